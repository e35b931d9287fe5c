"""``python -m sepelib.core.config`` says in CI what a service would say when it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sepelib.core.config.__main__ import main

BASE = """\
web: {port: {{ port }}, host: a}
password: hunter22
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg.yml").write_text(BASE)
    Path("local.yml").write_text("\nweb: {port: 81}\n")


def run(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    status = main(line.split())
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_good_file_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check cfg.yml -V port=80") == (0, "cfg.yml: ok\n", "")


def test_a_bad_file_is_one_line_with_its_snippet_and_a_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(capsys, "check cfg.yml -V prot=80") == (
        1,
        "",
        "cfg.yml:1:16: 'port' is undefined; did you mean 'prot'?\n"
        "    web: {port: {{ port }}, host: a}\n",
    )
    assert run(capsys, "check no.yml")[0] == 1
    assert run(capsys, "check cfg.yml -V port=80 --overlay no.yml")[0] == 1
    assert run(capsys, "check cfg.yml -V port") == (
        1,
        "",
        "not NAME=VALUE; write a name, '=' and a value\n",
    )


def test_warnings_are_shown_and_may_be_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("no.yml").write_text("country: NO\n")
    said = "no.yml:1:10: NO is read as the bool false; quote it if it is text, else write false\n"

    assert run(capsys, "check no.yml") == (0, "no.yml: ok\n", f"warning: {said}")
    assert run(capsys, "check no.yml --ambiguous error") == (1, "", f"{said}    country: NO\n")
    assert run(capsys, "check no.yml --ambiguous yaml11") == (0, "no.yml: ok\n", "")


def test_show_prints_all_layers_with_the_secrets_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_WEB__HOST", "b")
    line = "show cfg.yml -V port=80 --overlay local.yml --env-prefix APP --set web.port=82"

    assert run(capsys, line) == (0, "web:\n  port: 82\n  host: b\npassword: '***'\n", "")
    assert run(capsys, f"{line} --format json web.port") == (0, '{\n  "web.port": 82\n}\n', "")
    assert run(capsys, f"{line} password") == (0, "password: '***'\n", "")


def test_explain_prints_the_value_and_its_places(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_WEB__PORT", "83")
    line = "explain cfg.yml -V port=80 --overlay local.yml --env-prefix APP"

    assert run(capsys, f"{line} web.port") == (
        0,
        "web.port: 83\n"
        "  env       environment variable APP_WEB__PORT\n"
        "  overlay   local.yml:2:13\n"
        "  default   cfg.yml:1:13\n",
        "",
    )
    assert run(capsys, f"{line} password") == (0, "password: '***'\n  default   cfg.yml:2:11\n", "")
    assert run(capsys, f"{line} web.prot") == (
        1,
        "",
        "cfg.yml:1:6: no 'web.prot' in 'web'; did you mean 'web.port'?\n"
        "    web: {port: {{ port }}, host: a}\n",
    )


@pytest.mark.parametrize("line", ["", "explain cfg.yml", "check cfg.yml key", "other cfg.yml"])
def test_a_wrong_call_is_a_usage_error(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())

    assert caught.value.code == 2
    assert "usage: python -m sepelib.core.config" in capsys.readouterr().err


def test_the_module_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "sepelib.core.config"]
    child = subprocess.run(
        [*command, "check", "cfg.yml", "-V", "port=80"], capture_output=True, text=True, timeout=60
    )

    assert (child.stdout, child.stderr, child.returncode) == ("cfg.yml: ok\n", "", 0)
    child = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert "check FILE" in child.stdout
