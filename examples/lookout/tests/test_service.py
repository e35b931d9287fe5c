"""The whole service as a child process: what it shows, how it ends, what it survives."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import NOWHERE, Lookout, Target, until
from lookout.cli import main


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A lookout that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "lookout", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def ask(url: str) -> tuple[int, str]:
    """Status and body, also of an error."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# The demo


def test_the_demo_runs_its_time_and_says_what_it_did(tmp_path: Path) -> None:
    done = run("dev", "--replicas", 1, "--for", 1.1, "--port", 0, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "lookout watches 5 targets: steady, flaky, slow, directory, supervisor"
    assert re.search(r"^  metrics  http://127.0.0.1:\d+/metrics$", done.stdout, re.MULTILINE)
    assert re.search(r"^  health   curl '\S+/ping\?verbose=1'$", done.stdout, re.MULTILINE)
    assert re.fullmatch(
        r"1 s: \d+ probes of 5 targets, \d incidents? opened, \d closed, \d mails? sent", lines[-1]
    )
    assert str(tmp_path / ".lookout") in done.stdout
    assert (tmp_path / ".lookout" / "history.json").exists()


def test_an_incident_of_the_demo_opens_and_closes_before_your_eyes(
    target: Target, tmp_path: Path
) -> None:
    with Lookout("dev", "--replicas", 1, "--port", 0, target.url, cwd=tmp_path) as lookout:
        until(lambda: [i for i in lookout.status()["open_incidents"] if i["target"] == "flaky"])
        assert lookout.target("flaky")["state"] in ("down", "recovering")
        page = lookout.get()
        assert "flaky</strong>: answered 503 Service Unavailable" in page

        until(lambda: lookout.target("flaky")["state"] == "up")
        incident = next(i for i in lookout.status()["incidents"] if i["target"] == "flaky")
        assert (incident["state"], incident["closed_because"]) == ("closed", "recovered")
        assert lookout.target("steady")["state"] == "up"
        assert lookout.target("127.0.0.1")["state"] == "up"  # the URL of the command line
        until(lambda: re.search(r"[2-9] mails sent", lookout.get()))
        asked = time.monotonic()
        assert lookout.process.stop() == 0
        assert time.monotonic() - asked < 2  # nothing is waited for; serve would drain longer
        assert re.search(r"closed, [2-9] mails sent$", lookout.log)
        assert re.search(r"INC-\d opened: flaky: answered 503", lookout.log)
        assert re.search(r"INC-\d closed: flaky: recovered after \d\.\d s", lookout.log)


def test_a_demo_that_cannot_probe_anything_in_its_time_fails(tmp_path: Path) -> None:
    # Over before it is looked at, so that no probe has a turn of the loop.
    done = run("dev", "--replicas", 1, "--for", "0.000000001", "--port", 0, cwd=tmp_path)

    assert re.search(r"^0 s: 0 probes of 5 targets", done.stdout, re.MULTILINE)
    assert done.returncode == 1
    assert done.stderr == "lookout: nothing was probed\n"


def test_the_demo_goes_on_when_its_reader_has_gone_away(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "lookout", "dev", "--replicas", "1", "--for", "1.1", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()

    _, errors = child.communicate(timeout=60)

    assert (child.returncode, errors) == (0, b"")


# Ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_it_within_seconds_with_probes_and_browsers_under_way(
    number: signal.Signals, target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    target.hangs = True
    with serve(target.url) as lookout:
        until(lambda: target.connections.open)
        host, port = re.findall(r"//(.*):(\d+)/", lookout.url)[0]
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200 OK")

            asked = time.monotonic()
            lookout.signal(number)
            assert lookout.ended() == 0
            assert time.monotonic() - asked < 10  # stop_timeout is thirty seconds
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        assert "Traceback" not in lookout.log
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["history.json", "lock"]


def test_a_second_signal_ends_it_at_once(target: Target, serve: Callable[..., Lookout]) -> None:
    with serve(target.url, web="drain_delay: 1h") as lookout:
        lookout.signal(signal.SIGTERM)
        until(lambda: "stopping" in lookout.log)
        lookout.signal(signal.SIGTERM)

        assert lookout.ended() == 128 + signal.SIGTERM


def test_it_drains_after_a_signal_and_says_so(
    target: Target, serve: Callable[..., Lookout]
) -> None:
    with serve(target.url, web="drain_delay: 1s") as lookout:
        until(lambda: lookout.target("t0")["state"] == "up")
        asked = time.monotonic()
        lookout.signal(signal.SIGTERM)
        until(lambda: ask(lookout.url + "ping") == (503, "draining\n"))

        assert lookout.target("t0")["state"] == "up"  # who comes nevertheless is answered
        assert lookout.ended() == 0
        assert time.monotonic() - asked >= 1


# Memory


def test_history_goes_on_after_a_restart(
    target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    target.status = "500 Oops"
    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "down")
        lookout.signal(signal.SIGTERM)
        assert lookout.ended() == 0
        before = json.loads((tmp_path / "state/history.json").read_text())

    target.status = "200 OK"
    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "up")

        (incident,) = lookout.status()["incidents"]
        assert (incident["id"], incident["state"]) == ("INC-1", "closed")
        results = lookout.target("t0")["results"]
        old = before["targets"]["t0"]["results"]
        assert [r["status"] for r in results][: len(old)] == [500] * len(old)


def test_no_incident_that_was_announced_is_lost_by_a_kill(
    target: Target, serve: Callable[..., Lookout]
) -> None:
    for n in range(1, 3):
        target.status = "200 OK"
        with serve(target.url) as lookout:
            until(lambda: lookout.target("t0")["state"] == "up")
            until(lambda: lookout.status()["judged_by"] and not lookout.status()["open_incidents"])
            target.status = "500 Oops"
            until(lambda opened=f"INC-{n} opened": opened in lookout.log)
            lookout.process.kill()

    with serve(target.url) as lookout:
        ids = [i["id"] for i in lookout.status()["incidents"]]
        assert ids == ["INC-2", "INC-1"]
        assert [i["id"] for i in lookout.status()["open_incidents"]] == ["INC-2"]
        assert "ERROR lookout.store" not in lookout.log


def test_results_are_lost_by_a_kill_only_from_the_last_moments(
    target: Target, serve: Callable[..., Lookout]
) -> None:
    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["probes"] >= 20)
        lookout.process.kill()
    with serve(target.url) as lookout:
        assert lookout.target("t0")["probes"] >= 10  # saved ten times a second, probed twenty times


def test_a_disk_that_fails_meanwhile_is_shown_and_costs_the_exit_code(
    target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    with serve(target.url) as lookout:
        shutil.rmtree(tmp_path / "state")
        until(lambda: lookout.status()["complaints"])

        (complaint,) = lookout.status()["complaints"]
        assert complaint.startswith("The history cannot be saved: ")
        assert complaint.split(": ")[0] in lookout.get()
        probes = lookout.target("t0")["probes"]
        until(lambda: lookout.target("t0")["probes"] > probes)  # it watches on
        lookout.signal(signal.SIGTERM)
        assert lookout.ended() == 1
        assert lookout.log.count("history not saved, trying on: ") == 1
        assert "lookout: the last results are not saved: " in lookout.log.splitlines()[-1]


def test_a_damaged_history_is_moved_aside_and_the_service_starts(
    target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history.json").write_text('{"version": 1, "tar')

    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "up")

        (aside,) = (tmp_path / "state").glob("history.json.damaged-*")
        assert aside.read_text() == '{"version": 1, "tar'
        assert f"moved to {aside.name}" in lookout.log


# Targets


def test_one_target_that_does_not_resolve_is_down_and_the_others_go_on(
    target: Target, serve: Callable[..., Lookout]
) -> None:
    with serve("http://nowhere.invalid/", target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "down")
        until(lambda: lookout.target("t1")["state"] == "up")

        (incident,) = lookout.status()["open_incidents"]
        assert incident["cause"].startswith("nowhere.invalid does not resolve (")


def test_a_password_of_a_target_is_shown_nowhere(
    target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    url = target.url.replace("//", "//bob:sesame@") + "?token=t0ken"
    target.status = "500 Oops"
    with serve(url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "down")
        target.refuse()
        until(lambda: lookout.target("t0")["results"][-1]["error"] == "connection refused")
        seen = [lookout.get(), lookout.get("api/v1/status"), lookout.get("config/")]
        seen += [lookout.get("metrics"), lookout.get("config/?explain=1")]
        lookout.process.stop()
        seen += [lookout.log, *(p.read_text() for p in (tmp_path / "state").glob("*.json"))]

    for text in seen:
        assert "sesame" not in text
        assert "t0ken" not in text
    assert "bob:***@127.0.0.1" in seen[0]


# The page


def test_the_page_has_words_for_what_it_draws_and_runs_nothing_of_others(
    target: Target, serve: Callable[..., Lookout]
) -> None:
    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["probes"] >= 3)
        with urllib.request.urlopen(lookout.url, timeout=10) as answer:
            page, headers = answer.read().decode(), answer.headers

        assert "All targets are up" in page
        assert re.search(r'aria-label="Latency of the last \d+ probes: .* none failed\."', page)
        assert re.search(r'aria-label="Last \d+ probes: \d+ good, 0 failed\."', page)
        assert page.count("<article") == 1
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-cache"
        assert not re.search(r"https?://(?!127\.0\.0\.1|www\.w3\.org/2000/svg)", page)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            lookout.get("nothing/here")


# What keeps it from starting: one line, exit code 1


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("lookout: ")


def test_a_port_that_was_asked_for_and_is_in_use_is_an_error(
    target: Target, tmp_path: Path
) -> None:
    said = refusal(run("dev", "--replicas", 1, "--port", target.port, cwd=tmp_path))

    assert said == (
        f"cannot listen at 127.0.0.1:{target.port}: the address is in use; "
        "stop who listens there, or use another port"
    )


def test_the_default_port_may_be_in_use(tmp_path: Path) -> None:
    try:
        holder = socket.create_server(("127.0.0.1", 8080))
    except OSError:
        holder = socket.socket()  # somebody else holds it: as good
    with holder:
        done = run("dev", "--replicas", 1, "--for", 1.1, cwd=tmp_path)

    assert done.returncode == 0
    assert re.fullmatch(r"lookout: port 8080 is in use, port \d+ will do\n", done.stderr)


def test_a_second_one_on_the_same_state_is_an_error_and_leaves_the_first_alone(
    target: Target, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    with serve(target.url) as first:
        said = refusal(
            run("dev", "--replicas", 1, "--port", 0, "--state", tmp_path / "state", cwd=tmp_path)
        )

        assert said == (
            f"another lookout (pid {first.process.pid}) uses {tmp_path / 'state'}; "
            "stop it or give another directory"
        )
        assert first.get("ping") == "pong"


def test_a_disk_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lookout.yml").write_text(
        f"service: {{state: state}}\n{NOWHERE}targets: [{{name: a, url: 'http://a.invalid/'}}]\n"
    )
    command = f"ulimit -f 0; exec {sys.executable} -m lookout serve -c lookout.yml"

    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert "File too large" in refusal(done)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """What a lookout says that cannot start with a state directory. In this process."""

    def start(state: Path) -> str:
        path = tmp_path / "lookout.yml"
        path.write_text(
            f"service: {{state: {state}}}\nweb: {{port: 0}}\n{NOWHERE}"
            "targets: [{name: a, url: 'http://a.invalid/'}]\n"
        )
        assert main(["serve", "-c", str(path)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        return line.removeprefix("lookout: ")

    return start


def test_a_file_in_the_place_of_the_state_directory_is_an_error(
    tmp_path: Path, refused: Callable[[Path], str]
) -> None:
    (tmp_path / "state").write_text("mine")

    said = refused(tmp_path / "state")

    assert said == f"cannot keep the history in {tmp_path / 'state'}: not a directory"
    assert (tmp_path / "state").read_text() == "mine"


def test_a_state_directory_that_cannot_be_written_is_an_error(
    refused: Callable[[Path], str],
) -> None:
    # Of the kernel, and so read-only for root too.
    said = refused(Path("/proc/self/fdinfo"))

    assert said.startswith("cannot keep the history in /proc/self/fdinfo: ")


def test_a_history_that_is_no_file_is_an_error(
    tmp_path: Path, refused: Callable[[Path], str]
) -> None:
    (tmp_path / "history.json").mkdir()

    said = refused(tmp_path)

    assert said.startswith("the history cannot be read: ")
    assert "Is a directory" in said


def test_the_history_of_a_later_version_is_an_error_and_stays(
    tmp_path: Path, refused: Callable[[Path], str]
) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"version": 99}')

    said = refused(tmp_path)

    assert said.startswith(f"the history cannot be read: {path}: written by a later lookout")
    assert path.read_text() == '{"version": 99}'


def test_a_wrong_configuration_is_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lookout.yml").write_text(
        f"service: {{state: state}}\n{NOWHERE}"
        "targets:\n"
        "{% for name in ['a', 'b'] %}\n"
        "- name: {{ name }}\n"
        "  url: http://{{ name }}/\n"
        "  timeout: soon\n"
        "{% endfor %}\n"
    )

    monkeypatch.chdir(tmp_path)
    assert main(["serve", "-c", "lookout.yml"]) == 1

    assert capsys.readouterr().err == (
        "lookout: lookout.yml:7:12: targets.0.timeout must be seconds, "
        "which says: a time such as 5s, 250ms or 1m30s, more than none\n"
    )
    assert not (tmp_path / "state").exists()


def test_check_config_says_what_the_template_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text("service: {state: x}\nweb: {port: {{ prot }}}\n")

    assert main(["check-config", str(path), "-V", "port=80"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lookout: {path}:2")
    assert "'prot'" in line


def test_check_config_says_that_all_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(f"service: {{state: x}}\n{NOWHERE}" + "targets: {{ targets|yaml }}\n")

    targets = "targets=[{name: a, url: 'http://a/'}]"
    assert main(["check-config", str(path), "-V", targets]) == 0

    assert capsys.readouterr().out == f"{path}: fine, 1 target\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dev", "ftp://a/"], "argument URL: must be a URL that starts with http:// or https://"),
        (["dev", "--port", "http"], "argument --port: must be a whole number up to 65535"),
        (["dev", "--for", "-1"], "argument --for: must be a time such as 5s, 250ms or 1m30s"),
        (["check-config", "x", "-V", "port"], "argument -V: not NAME=VALUE; write a name"),
        (["check-config", "x", "-V", "port=["], "argument -V: value of port: not YAML"),
    ],
)
def test_a_wrong_argument_is_said_and_exits_with_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
