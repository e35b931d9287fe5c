"""Each service is a process of its own, in both worlds: signals, exit statuses, a second signal."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.threadpool import ThreadPool

from sepelib.gevent import GreenThreadMisused, run_service
from sepelib.util.testing import ServerProcess

LIMIT = 20.0  # seconds; far more than anything here takes

HEAD = """
import sys
if sys.argv[1] == "green":
    from gevent import monkey; monkey.patch_all()
import logging, os, signal, time
import gevent
from sepelib.gevent import *
logging.basicConfig(format="%(levelname)s %(message)s", level="INFO", stream=sys.stdout)
say = lambda *words: print(*words, flush=True)
"""

pytestmark = pytest.mark.parametrize("world", ["plain", "green"])


@contextmanager
def service(world: str, body: str) -> Iterator[ServerProcess]:
    """Ready when it says so, or has ended, which `wait()` tells."""
    source = HEAD + textwrap.dedent(body)

    def command(server: ServerProcess) -> list[str]:
        (server.folder / "service.py").write_text(source)
        return [sys.executable, "service.py", world]

    with ServerProcess(command, ready=lambda s: "ready" in log_of(s), name="service") as server:
        yield server


def ran(world: str, body: str, tmp_path: Path) -> tuple[int, str]:
    """Status and output of a service that ends by itself."""
    (tmp_path / "service.py").write_text(HEAD + textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "service.py", world],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout


def log_of(server: ServerProcess) -> str:
    return server.log_path.read_text()


def told(server: ServerProcess, text: str) -> None:
    until = time.monotonic() + LIMIT
    while text not in log_of(server):
        assert time.monotonic() < until, f"no {text!r} in {log_of(server)}"
        gevent.sleep(0.01)


def test_a_signal_stops_all_in_order_and_the_status_is_0(world: str) -> None:
    body = """
    def work():
        thread = GreenThread.current()
        while not thread.wait(0.01): pass
        say("stopped", thread.name)
    def main(threads):
        threads.add(GreenThread(work, "db"))
        threads.add(GreenThread(work, "http"), tier=1)
        GreenThread(work, "stranger").start()
        gevent.sleep(0.05)
        say("ready")
        work()
    status = run_service(main)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    sys.exit(status)
    """
    with service(world, body) as server:
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0, log_of(server)
        said = [line for line in log_of(server).splitlines() if line.startswith("stopped")]
    assert set(said[:2]) == {"stopped main", "stopped stranger"}
    assert said[2:] == ["stopped http", "stopped db"]


def test_all_may_wait_without_any_timer_and_signals_are_heard(world: str) -> None:
    body = """
    from gevent.event import Event
    def main(threads):
        gevent.spawn_later(0.1, say, "ready")
        threads.add(GreenThread(Event().wait, "waits for ever"))
    sys.exit(run_service(main, signals=[signal.SIGINT], stop_timeout=0.1))
    """
    with service(world, body) as server:
        server.signal(signal.SIGINT)
        assert server.wait(LIMIT) == 0, log_of(server)


def test_sigterm_is_obeyed_once_a_busy_hub_is_free_again(world: str) -> None:
    body = """
    def main(threads):
        said, until = False, time.monotonic() + 20.0
        while not os.path.exists("go"):        # no turn of the hub in here
            if not said: say("ready")
            said = True
            assert time.monotonic() < until
        say("free")
        GreenThread.current().wait(20.0)
        say("asked")
    sys.exit(run_service(main))
    """
    with service(world, body) as server:
        server.signal(signal.SIGTERM)
        (server.folder / "go").touch()
        assert server.wait(LIMIT) == 0, log_of(server)
        assert "asked" in log_of(server)


def test_the_second_signal_ends_the_process_at_once_even_a_busy_one(world: str) -> None:
    body = """
    def main(threads):
        GreenThread.current().wait(20.0)
        say("asked")
        while True: pass
    gevent.spawn_later(0.1, say, "ready")
    run_service(main)
    """
    with service(world, body) as server:
        server.signal(signal.SIGTERM)
        told(server, "asked")
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 128 + signal.SIGTERM, log_of(server)
        assert "SIGTERM: the second signal, ending at once" in log_of(server)


def test_a_dead_member_stops_the_others_and_the_status_is_1(world: str, tmp_path: Path) -> None:
    body = """
    def work():
        GreenThread.current().wait(20.0)
        say("work stopped")
    def dies():
        time.sleep(0.01)
        raise OSError("the disk is gone")
    def main(threads):
        say("ready")
        threads.add(GreenThread(work, "work"))
        threads.add(GreenThread(dies, "writer"))
    sys.exit(run_service(main))
    """
    status, log = ran(world, body, tmp_path)
    assert status == 1, log
    assert log.count("writer died: OSError: the disk is gone") == 1 and "work stopped" in log


@pytest.mark.parametrize(("code", "status"), [("3", 3), ("None", 0), ("'no disk'", 1)])
def test_the_status_of_a_system_exit_is_that_of_the_service(
    world: str, code: str, status: int, tmp_path: Path
) -> None:
    body = f"""
    def main(threads):
        say("ready")
        threads.add(GreenThread(gevent.sleep, "work", args=(20.0,)))
        sys.exit({code})
    status = run_service(main, stop_timeout=0.1)
    say("over")
    sys.exit(status)
    """
    ended, log = ran(world, body, tmp_path)
    assert ended == status, log
    assert "main died: SystemExit" in log and "over" in log


def test_the_end_of_main_is_not_the_end_before_all_but_daemons_have_ended(
    world: str, tmp_path: Path
) -> None:
    body = """
    def work(seconds, name):
        time.sleep(seconds) if sys.argv[1] == "green" else gevent.sleep(seconds)
        say(name, "done")
    def main(threads):
        threads.add(GreenThread(work, args=(0.1, "member")))
        threads.add(GreenThread(work, daemon=True, args=(20.0, "daemon")))
        GreenThread(work, args=(0.2, "stranger")).start()
        GreenThread(work, daemon=True, args=(20.0, "daemon")).start()
    sys.exit(run_service(main, stop_timeout=0.1))
    """
    assert ran(world, body, tmp_path) == (0, "member done\nstranger done\n")


def test_a_thread_that_will_not_end_makes_the_status_1(world: str) -> None:
    body = """
    from gevent.event import Event
    def deaf():
        while True:
            try: Event().wait(20.0)
            except gevent.GreenletExit: pass
    def main(threads):
        threads.add(GreenThread(deaf, "deaf"))
        gevent.spawn_later(0.05, say, "ready")
    sys.exit(run_service(main, stop_timeout=0.1))
    """
    with service(world, body) as server:
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 1
        assert "deaf is still alive" in log_of(server)


def test_hup_calls_one_at_a_time_and_a_failed_one_changes_nothing(world: str) -> None:
    body = """
    calls = []
    def hup():
        calls.append(1)
        number = len(calls)
        say("begin", number)
        if number == 1: raise ValueError("bad config")
        while not os.path.exists("go"): gevent.sleep(0.01)
        say("end", number)
    def main(threads):
        gevent.spawn_later(0.05, say, "ready")
        GreenThread.current().wait(20.0)
    sys.exit(run_service(main, hup=hup))
    """
    with service(world, body) as server:
        server.signal(signal.SIGHUP)
        told(server, "hup died: ValueError: bad config")
        server.signal(signal.SIGHUP)
        told(server, "begin 2")
        server.signal(signal.SIGHUP)
        (server.folder / "go").touch()
        told(server, "end 3")
        assert "end 2\nbegin 3" in log_of(server)
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0, log_of(server)


def test_sigusr2_shows_where_everybody_is_also_when_the_hub_is_busy(world: str) -> None:
    body = """
    def hog():
        say("ready")
        while not os.path.exists("go"): pass
    def main(threads):
        threads.add(GreenThread(hog, "hog"))
        GreenThread.current().wait(20.0)
    sys.exit(run_service(main))
    """
    with service(world, body) as server:
        server.signal(signal.SIGUSR2)
        told(server, "# greenlets")
        told(server, 'while not os.path.exists("go")')
        (server.folder / "go").touch()
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0, log_of(server)
        assert "\nhog: " in log_of(server)


def test_a_native_thread_cannot_run_a_service(world: str) -> None:
    pool = ThreadPool(1)
    try:
        with pytest.raises(GreenThreadMisused, match="main thread"):
            pool.spawn(run_service, print).get(timeout=LIMIT)
    finally:
        pool.kill()
