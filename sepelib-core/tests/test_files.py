"""A file that cannot be read is one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sepelib.core.config import Config, ConfigError

if TYPE_CHECKING:
    from .conftest import Load, Refused


def refusal(path: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Config().load(path)
    assert caught.value.file == os.fspath(path)
    return str(caught.value)


def test_a_missing_file_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert refusal("./no.yml") == f"./no.yml: no such file; the working directory is {tmp_path}"
    assert refusal(tmp_path / "no.yml") == f"{tmp_path}/no.yml: no such file"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: is a directory; name a file in it"
    assert refusal(f"{tmp_path}/") == f"{tmp_path}/: is a directory; name a file in it"


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert refusal(tmp_path / "file" / "x.yml").endswith("cannot be read: Not a directory")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yml"
    path.touch(0o000)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        message = refusal(path)
        uid = os.geteuid()
    finally:
        if root:
            os.seteuid(0)

    assert message == f"{path}: permission denied; make it readable for uid {uid}"


def test_a_file_in_another_encoding_is_refused_at_the_byte(refused: Refused) -> None:
    assert str(refused("a: 1\nb: 'é'\n".encode("latin-1"))) == (
        "cfg.yml:2:5: byte 0xe9 is not UTF-8; save the file as UTF-8"
    )
    assert str(refused("a: 1\n".encode("utf-16"))).startswith("cfg.yml:1:1: byte 0xff is not UTF-8")


@pytest.mark.parametrize("name", ["cfg.yml", "one.yml"])
def test_a_file_that_everybody_may_write_is_refused_when_running_as_root(
    load: Load, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, files = "{% include 'one.yml' %}", {"one.yml": "a: 1"}
    load(text, files=files)
    (tmp_path / name).chmod(0o666)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(refused(text, files=files)) == (
        f"{name}: everybody may write this file and we run as root; chmod o-w"
    )

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load(text, files=files).get() == {"a": 1}


def test_an_included_directory_is_refused(refused: Refused) -> None:
    assert str(refused("{% include 'd' %}", files={"d/x": ""})) == (
        "./d: is a directory; name a file in it"
    ).removeprefix("./")


def test_a_file_may_be_a_pipe() -> None:
    program = "from sepelib.core import config; print(config.load('/dev/stdin').get())"

    child = subprocess.run(
        [sys.executable, "-c", program], input=b"a: 1\n", capture_output=True, timeout=60
    )

    assert (child.stdout, child.stderr) == (b"{'a': 1}\n", b"")


def test_a_link_to_another_directory_includes_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "cfg.yml").write_text("{% include 'one.yml' %}")
    (tmp_path / "cfg.yml").symlink_to("store/cfg.yml")
    (tmp_path / "one.yml").write_text("a: here")

    assert Config().load(tmp_path / "cfg.yml").get_value("a") == "here"
