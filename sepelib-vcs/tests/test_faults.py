"""Servers that hang, vanish or refuse, secrets that must not be seen, programs that lack."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gevent import Timeout, monkey

import sepelib.vcs.svnfile
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.processes import Completed, run
from sepelib.util.secrets import Secret
from sepelib.util.testing import check_errors, free_port
from sepelib.vcs.svnfile import (
    AnswerTooLarge,
    AuthFailed,
    NetworkError,
    SvnClient,
    SvnError,
    SvnNotInstalled,
    SvnTimeout,
)
from sepelib.vcs.testing import Repository

pytest_plugins = ["sepelib.vcs.pytest_plugin"]

Alive = Callable[[], "list[int]"]
GENEROUS = 30.0
PASSWORD = "pa$$ 'w\N{LATIN SMALL LETTER O WITH DIAERESIS}rd\""


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def struck_after(seconds: float) -> Iterator[type[BaseException]]:
    """A BaseException from outside: gevent's in a patched process, a signal handler's otherwise."""
    if monkey.is_module_patched("select"):
        with Timeout(seconds):
            yield Timeout
        return

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield KeyboardInterrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_name_and_a_password_open_the_door(svn_repo: Repository) -> None:
    with svn_repo.serve("b\N{LATIN SMALL LETTER O WITH DIAERESIS}b", PASSWORD) as server:
        for password in (PASSWORD, Secret(PASSWORD)):
            client = SvnClient(
                username="b\N{LATIN SMALL LETTER O WITH DIAERESIS}b", password=password
            )
            client.mkdir(f"{server.url}/{type(password).__name__}", "m")
            log = next(client.log(server.url))
            assert log.author == "b\N{LATIN SMALL LETTER O WITH DIAERESIS}b"


def test_a_wrong_or_missing_password_is_told_at_once(svn_repo: Repository) -> None:
    with svn_repo.serve("bob", PASSWORD) as server:
        for client in (
            SvnClient(username="bob", password="wrong"),
            SvnClient(username="bob", password=""),
            SvnClient(username="eve", password=PASSWORD),
            SvnClient(username="bob"),
            SvnClient(),
        ):
            for call in (client.exists, lambda url, c=client: c.mkdir(f"{url}/d", "m")):
                with pytest.raises(AuthFailed) as caught:
                    call(server.url)
                assert caught.value.code == "E170001"
                assert "wrong" not in repr(caught.value) and PASSWORD not in repr(caught.value)
        assert svn_repo.youngest == 0


def test_a_password_is_in_no_process_list_no_environment_and_no_file(
    svn_repo: Repository, alive: Alive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    svn_repo.commit({"f": b"1"})
    with svn_repo.serve("bob", "hunter2secret") as server:
        servers = set(alive())
        looked_at: list[str] = []

        def looked_at_by_others(args: Sequence[str], /, **kwargs: Any) -> Completed:
            """Runs a program against a server that stands still for as long as the look takes."""
            done: list[Completed] = []
            server.pause()
            thread = threading.Thread(target=lambda: done.append(run(args, **kwargs)))
            thread.start()
            wait_until(
                lambda: [p for p in set(alive()) - servers if args[0].encode() in cmdline(p)]
            )
            for pid in set(alive()) - servers:
                looked_at.append(args[0])
                assert b"--password-from-stdin" in cmdline(pid)
                assert b"hunter2" not in cmdline(pid)
                assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
            for path in temporary.rglob("*"):
                assert path.is_dir() or b"hunter2" not in path.read_bytes()
            server.resume()
            thread.join(GENEROUS)
            return done[0]

        client = SvnClient(username="bob", password="hunter2secret", runner=looked_at_by_others)
        client.put(f"{server.url}/f", b"2", "m", base_revision=1)
        client.cat(f"{server.url}/f")
    assert looked_at == ["svn", "svnmucc", "svn"]
    assert "hunter2" not in repr(vars(client)) + repr(vars(client._commands))
    assert list(temporary.iterdir()) == []


def cmdline(pid: int) -> bytes:
    return contents(Path(f"/proc/{pid}/cmdline"))


def contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_hung_server_ends_with_the_timeout_and_nothing_is_left(
    svn_repo: Repository, alive: Alive
) -> None:
    with svn_repo.serve() as server:
        servers = alive()
        server.pause()
        client = SvnClient(timeout=0.5)
        for call in (client.cat, lambda url: client.mkdir(f"{url}/d", "m")):
            began = time.monotonic()
            with pytest.raises(SvnTimeout, match=re.escape(server.url)) as caught:
                call(server.url)
            assert 0.4 < time.monotonic() - began < GENEROUS
            assert isinstance(caught.value, TimeoutError) and 0.4 < caught.value.timeout <= 0.5
            assert set(alive()) <= set(servers)
        server.resume()
        assert client.exists(server.url)


def test_others_go_on_while_a_server_hangs(svn_repo: Repository) -> None:
    over = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    with svn_repo.serve() as server:
        server.pause()
        thread = threading.Thread(target=tick)  # a greenlet in the patched world
        thread.start()
        began = time.monotonic()
        with pytest.raises(SvnTimeout):
            SvnClient(timeout=0.5).exists(server.url)
        ended = time.monotonic()
        over.set()
        thread.join(GENEROUS)
    assert len([at for at in ticks if began < at < ended]) >= 5


def test_the_time_of_a_commit_is_for_all_of_its_calls(svn_repo: Repository) -> None:
    given: list[float] = []

    def runner(args: Sequence[str], /, *, timeout: float, **kwargs: Any) -> Completed:
        given.append(timeout)
        if len(given) == 1:
            time.sleep(0.3)
        return run(args, timeout=timeout, **kwargs)

    SvnClient(timeout=20.0, schemes=["file"], runner=runner).mkdir(f"{svn_repo.url}/d", "m")
    assert 19.0 < given[0] <= 20.0 and given[1] <= given[0] - 0.3

    with pytest.raises(SvnTimeout):
        SvnClient(timeout=0.0, schemes=["file"]).exists(svn_repo.url)


def test_the_current_deadline_cuts_the_timeout(svn_repo: Repository, alive: Alive) -> None:
    with svn_repo.serve() as server:
        server.pause()
        began = time.monotonic()
        with pytest.raises(SvnTimeout), deadline(0.3):
            SvnClient().exists(server.url)
        with pytest.raises(DeadlineExceeded), deadline(0.0):
            SvnClient().exists(server.url)
        assert time.monotonic() - began < GENEROUS


def test_a_tunnel_that_ignores_sigterm_ends_with_its_svn(
    alive: Alive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = script(tmp_path / "ssh", f"trap '' TERM; echo > {tmp_path}/up; sleep 1000 & wait; wait")
    monkeypatch.setenv("SVN_SSH", ssh)
    with pytest.raises(SvnTimeout):
        SvnClient(timeout=1.0).exists("svn+ssh://host/r")
    assert (tmp_path / "up").exists() and alive() == []


def test_a_cancelled_call_leaves_nothing_behind(
    svn_repo: Repository, alive: Alive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with svn_repo.serve() as server:
        servers = alive()
        server.pause()
        client = SvnClient()
        for call in (
            lambda: client.export(server.url, tmp_path / "out"),
            lambda: client.mkdir(f"{server.url}/d", "m"),
        ):
            with struck_after(0.3) as struck, pytest.raises(struck):
                call()
            # Not equal: a server's process for the look "are you ready?" may just be ending.
            assert set(alive()) <= set(servers)
    assert [path.name for path in tmp_path.iterdir()] == ["svn_repo"]


def test_a_server_that_is_not_there_is_a_network_error() -> None:
    url = f"svn://127.0.0.1:{free_port()}/r"
    for call in (SvnClient().exists, SvnClient().log, lambda url: SvnClient().mkdir(url, "m")):
        with pytest.raises(NetworkError, match=r"E170013.*E000111.*refused"):
            call(f"{url}/f")


def test_a_repository_that_vanishes_is_never_taken_for_a_missing_file(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b"1"})
    with svn_repo.serve() as server:
        assert client.exists(f"{server.url}/f")
        away = svn_repo.path.rename(svn_repo.path.with_name("away"))
        for url in (server.url, svn_repo.url):
            with pytest.raises(NetworkError):
                client.exists(f"{url}/f")
            with pytest.raises(NetworkError):
                client.put(f"{url}/f", b"", "m", base_revision=None)
        away.rename(svn_repo.path)
        assert client.cat(f"{server.url}/f") == b"1"


def test_a_repository_that_vanishes_between_the_look_and_the_commit(svn_repo: Repository) -> None:
    svn_repo.commit({"f": b"1"})

    def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
        if args[0] == "svnmucc":
            svn_repo.path.rename(svn_repo.path.with_name("away"))
        return run(args, **kwargs)

    client = SvnClient(schemes=["file"], runner=runner)
    with pytest.raises(NetworkError):
        client.put(f"{svn_repo.url}/f", b"2", "m", base_revision=1)


def test_a_server_that_dies_in_the_middle_of_a_call(svn_repo: Repository, alive: Alive) -> None:
    svn_repo.commit({"f": b"1"})
    with svn_repo.serve() as server:
        servers = set(alive())
        server.pause()
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                SvnClient().cat(f"{server.url}/f")
            except BaseException as e:
                errors.append(e)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: any(b"cat" in cmdline(pid) for pid in set(alive()) - servers))
        server.kill()
        thread.join(GENEROUS)
        assert [type(error) for error in errors] == [NetworkError]
        server.start()
        assert SvnClient().cat(f"{server.url}/f") == b"1"


def test_a_broken_repository_is_an_error_with_its_code(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b"1"})
    shutil.rmtree(svn_repo.path / "db" / "revs")
    with pytest.raises(SvnError) as caught:
        client.exists(f"{svn_repo.url}/f")
    assert type(caught.value) is SvnError and caught.value.code == "E160006"


def test_an_answer_that_is_too_large_is_cut_off(svn_repo: Repository, alive: Alive) -> None:
    svn_repo.commit({"f": b"x" * 100_000})
    client = SvnClient(schemes=["file"], max_output=10_000)
    with pytest.raises(AnswerTooLarge, match=r"cat file://.*10000") as caught:
        client.cat(f"{svn_repo.url}/f")
    assert caught.value.limit == 10_000 and alive() == []
    assert client.info(f"{svn_repo.url}/f").size == 100_000


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<?xml version='1.0' encoding='UTF-16'?><info/>",
        '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE info [<!ENTITY a "b">]><info>'
        '<entry kind="dir" revision="1"><url>&a;</url><repository><root>r</root><uuid>u</uuid>'
        '</repository><commit revision="1"/></entry></info>',
        '<?xml version="1.0" encoding="UTF-8"?><info><entry',
        '<?xml version="1.0" encoding="UTF-8"?><info></info>',
        '<?xml version="1.0" encoding="UTF-8"?><info><entry kind="dir" revision="x"/></info>',
        '<?xml version="1.0" encoding="UTF-8"?>' + "<a>" * 20_000,
    ],
    ids=["nothing", "encoding", "DTD", "broken", "no entry", "no number", "deep"],
)
def test_an_answer_that_is_not_of_svn_is_an_error(answer: str) -> None:
    def runner(args: Sequence[str], /, **_: Any) -> Completed:
        return Completed(0, answer.encode(), b"", 0.0)

    with pytest.raises(SvnError, match="answer") as caught:
        SvnClient(runner=runner).info("svn://host/r")
    assert type(caught.value) is SvnError


def test_an_svn_that_is_killed_or_says_nothing_has_not_succeeded() -> None:
    for status in (-9, 1, 127):
        client = SvnClient(
            runner=lambda args, /, status=status, **_: Completed(status, b"", b"Killed", 0.0)
        )
        for call in (client.exists, client.cat, lambda u, c=client: c.mkdir(f"{u}/d", "m")):
            with pytest.raises(SvnError, match="Killed") as caught:
                call("svn://host/r")
            assert type(caught.value) is SvnError and caught.value.code == ""


def test_an_answer_about_another_url_is_no_answer(svn_repo: Repository) -> None:
    svn_repo.commit({"a": b"", "b": b""})

    def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
        return run([arg.replace("/a@", "/b@") for arg in args], **kwargs)

    with pytest.raises(SvnError, match="asked for other URLs"):
        SvnClient(schemes=["file"], runner=runner).delete(f"{svn_repo.url}/a", "m")
    assert svn_repo.paths() == ["a", "b"]


def test_a_missing_svn_is_one_sentence_that_names_the_package(svn_repo: Repository) -> None:
    client = SvnClient(svn="/no/svn", svnmucc="/no/svnmucc", schemes=["file"])
    with pytest.raises(SvnNotInstalled, match=r"^/no/svn: no such program: apt-get install sub"):
        client.exists(svn_repo.url)
    client = SvnClient(svnmucc="/no/svnmucc", schemes=["file"])
    with pytest.raises(SvnNotInstalled, match=r"^/no/svnmucc: .* subversion"):
        client.mkdir(f"{svn_repo.url}/d", "m")


def test_settings_and_stored_passwords_of_the_user_are_left_alone(
    svn_repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".subversion").mkdir(parents=True)
    (home / ".subversion" / "servers").write_text("[global\n")  # svn would stumble over it
    before = sorted(home.rglob("*"))
    monkeypatch.setenv("HOME", str(home))
    with svn_repo.serve("bob", "pw") as server:
        client = SvnClient(username="bob", password="pw")
        client.mkdir(f"{server.url}/d", "m")
        with pytest.raises(AuthFailed):
            SvnClient(username="bob").exists(server.url)
        assert sorted(home.rglob("*")) == before

        mine = SvnClient(username="bob", password="pw", config_dir=home / ".subversion")
        with pytest.raises(SvnError, match="servers"):
            mine.exists(server.url)


def test_what_cannot_be_a_client_is_refused() -> None:
    with pytest.raises(ValueError, match="without username="):
        SvnClient(password="x")
    for wrong in ({"username": "a\nb"}, {"username": "a", "password": "b\nc"}):
        with pytest.raises(ValueError, match="control character") as caught:
            SvnClient(**wrong)  # type: ignore[arg-type]
        assert "b\nc" not in str(caught.value)
    for seconds in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite number of seconds"):
            SvnClient(timeout=seconds)
    with pytest.raises(ValueError, match="unknown-ca"):
        SvnClient(trust_server_cert=["all"])
    with pytest.raises(ValueError, match="unknown-ca"):
        SvnClient(trust_server_cert="other")


def test_a_runner_gets_plain_arguments_and_no_secret() -> None:
    calls: list[tuple[Sequence[str], dict[str, Any]]] = []

    def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
        calls.append((args, kwargs))
        return Completed(0, b"data", b"", 0.0)

    client = SvnClient(
        username="-bob",
        password="hunter2",
        runner=runner,
        trust_server_cert=["unknown-ca", "expired"],
        max_output=7,
        timeout=5.0,
    )
    assert client.cat("https://Host/r/a@b", 3, peg=4) == b"data"
    ((args, kwargs),) = calls
    assert args[:2] == ["svn", "cat"] and args[-2:] == ["--", "https://host/r/a@b@4"]
    assert set(args[2:-2]) == {
        "--non-interactive",
        "--no-auth-cache",
        "--config-dir=/proc/no-svn-settings",
        "--trust-server-cert-failures=unknown-ca,expired",
        "--username=-bob",
        "--password-from-stdin",
        "--ignore-keywords",
        "--revision=3",
    }
    assert kwargs["input"] == b"hunter2\n" and kwargs["max_output"] == 7
    assert kwargs["env"]["LC_ALL"] == "C.UTF-8" and 0 < kwargs["timeout"] <= 5.0


def test_every_error_is_one_line_and_can_be_pickled() -> None:
    check_errors(
        sepelib.vcs.svnfile,
        examples=[
            SvnError("svn cat svn://h/r", "E160013", "svn: E160013: no\n\x1b[31m way\nmore\n" * 99),
            SvnTimeout("svn cat svn://h/r", 0.5),
            AnswerTooLarge("svn cat svn://h/r", 10),
            SvnNotInstalled("svn"),
        ],
    )


def test_importing_is_light() -> None:
    code = (
        "import sys, sepelib.vcs.svnfile;"
        "heavy = {'xml', 'subprocess', 'tempfile', 'logging', 'datetime', 'socket', 'dataclasses'};"
        "print(*heavy & set(sys.modules))"
    )
    done = run([sys.executable, "-c", code], timeout=GENEROUS)
    assert (done.returncode, done.stdout.strip()) == (0, b"")
