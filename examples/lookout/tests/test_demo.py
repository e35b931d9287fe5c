"""The demo: who looks for half a minute sees all of its timetable, and nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import until
from lookout.database import Database
from lookout.demo import RULES, TIMETABLES, restarting
from lookout.judge import Rules, Standing, State
from lookout.ledger import Epoch, Ledger, LedgerStore
from lookout.mail import sentence
from lookout.records import Record, Result
from lookout.replicas import News


def answer(name: str, second: int) -> tuple[str, float]:
    if name == "supervisor":
        return ("200 OK" if restarting(second) == "RUNNING" else "a wrong answer"), 0.01
    return TIMETABLES[name](second)


def outages(name: str, seconds: int) -> list[tuple[int, int]]:
    """When incidents would open and close, probed each second."""
    standing, found, opened = Standing(), [], 0
    for second in range(seconds):
        status, delay = answer(name, second)
        before = standing.state.is_outage
        standing = standing.after(status == "200 OK" and delay <= RULES["max_latency"], Rules())
        if standing.state.is_outage and not before:
            opened = second
        if before and not standing.state.is_outage:
            found.append((opened, second))
    return found


def test_the_steady_one_never_fails() -> None:
    assert outages("steady", 600) == []


@pytest.mark.parametrize("name", ["flaky", "slow", "supervisor"])
def test_the_others_open_an_incident_within_ten_seconds_and_close_it_within_twenty(
    name: str,
) -> None:
    opened, closed = outages(name, 120)[0]

    assert 3 <= opened <= 10
    assert closed <= 20
    assert len(outages(name, 120)) >= 4


def test_at_its_slowest_the_slow_one_is_not_waited_for() -> None:
    delays = [TIMETABLES["slow"](second).delay for second in range(24)]

    assert max(delays) > RULES["timeout"]
    assert any(RULES["max_latency"] < delay < RULES["timeout"] for delay in delays)


# Several replicas, as child processes


def test_news_are_what_the_database_did_not_tell_before(database: Database) -> None:
    news = News(LedgerStore(database))
    assert look(news) == []

    writer = LedgerStore(database).claim("r2", Epoch(1, 7))
    open_(writer.ledger, "a")
    writer.write()
    assert look(news) == ["r2 judges", "INC-1 opened: a: refused"]
    close(writer.ledger, "a")
    # Opened and closed between two looks.
    open_(writer.ledger, "b")
    close(writer.ledger, "b")
    writer.write()
    assert look(news) == [
        "INC-1 closed: a: recovered after 0.0 s",
        "INC-2 opened: b: refused",
        "INC-2 closed: b: recovered after 0.0 s",
    ]
    assert look(news) == []
    assert (news.opened, news.closed) == (2, 2)


def look(news: News) -> list[str]:
    return [said if isinstance(said, str) else sentence(said) for said in news.look()]


NOON = datetime(2026, 11, 23, tzinfo=UTC)
DOWN, UP = Standing(State.DOWN, 2), Standing(State.UP, 2)


def open_(ledger: Ledger, target: str) -> None:
    result = Result(NOON, 0.1, None, "refused")
    ledger.judge_target(target, [Record(DOWN, NOON, deque([result]))], Rules())


def close(ledger: Ledger, target: str) -> None:
    ledger.judge_target(target, [Record(UP, NOON, deque([Result(NOON, 0.1, 200)]))], Rules())


class Demo:
    """`lookout dev` with replicas: what it says, and what it leaves in processes and files."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.mark = f"{folder}".encode()  # inherited by all that it starts
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "DEMO_MARK": str(folder),
            **environment,
        }
        self.folder = folder

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lookout", "dev", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Once it has said hello; `said` grows."""
        self.said = ""
        with subprocess.Popen(
            [sys.executable, "-m", "lookout", "dev"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                self.hear(process, "the first incident comes")
                yield process
            finally:
                process.kill()

    def hear(self, process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
        """Read on until a line has *pattern*."""
        assert process.stdout is not None
        for line in process.stdout:
            self.said += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern!r} in {self.said}")

    def get(self, path: str, replica: str = "r1") -> str:
        with urllib.request.urlopen(f"{self.row(replica)[0]}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def row(self, replica: str) -> tuple[str, int]:
        """Its URL and its pid, as the demo says hello with them."""
        found = re.search(rf"^  {replica} +(http://\S+) \(kill -9 (\d+): ", self.said, re.MULTILINE)
        assert found
        return found[1], int(found[2])

    def processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may end at any moment
                if b"DEMO_MARK=" + self.mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
        return found

    def is_over(self) -> bool:
        return not self.processes() and not any(self.temporary.iterdir())


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


@pytest.mark.slow
def test_three_replicas_show_an_incident_within_twenty_seconds_and_leave_only_the_history(
    demo: Demo,
) -> None:
    done = demo.run("--for", "20")

    assert (done.returncode, done.stderr) == (0, "")
    assert demo.is_over()
    assert [path.name for path in demo.folder.iterdir() if path != demo.temporary] == [".lookout"]
    assert re.search(r"^\d\d:\d\d:\d\d  r[123] judges$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"INC-1 opened: flaky: answered 503", done.stdout)) == 1
    assert len(re.findall(r"INC-1 closed: flaky: recovered after \d\.\d s", done.stdout)) == 1
    account = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"2\d s: (\d+) probes of 5 targets, (\d) incidents opened, (\d) closed, (\d) mails sent",
        account,
    )
    assert found, account
    probes, opened, closed, mails = map(int, found.groups())
    assert 100 < probes < 500  # of three
    assert opened + closed - mails in (0, 1)  # the last one may be on its way


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_ends_all_that_the_demo_has_started(number: signal.Signals, demo: Demo) -> None:
    with demo.running() as process:
        # Itself, MongoDB, ZooKeeper, three replicas, and five supervisors.
        assert len(demo.processes()) >= 11
        until(
            lambda: re.search(r"^lookout_probes_total.* [1-9]", demo.get("metrics"), re.MULTILINE)
        )
        process.send_signal(number)
        demo.hear(process, r" s: \d+ probes? of 5 targets, ")
        assert process.wait(30) == 0
        assert demo.is_over()


@pytest.mark.slow
def test_a_demo_killed_with_9_takes_all_that_it_has_started_with_it(demo: Demo) -> None:
    with demo.running() as process:
        process.kill()
        process.wait()
        until(demo.is_over)


@pytest.mark.slow
def test_when_the_judge_is_killed_another_judges_and_the_demo_starts_it_again(demo: Demo) -> None:
    with demo.running() as process:
        judge = demo.hear(process, r"(r[123]) judges$")[1]
        os.kill(demo.row(judge)[1], signal.SIGKILL)
        demo.hear(process, rf"{judge} has ended with status -9, starting it again$")
        assert demo.hear(process, r"(r[123]) judges$")[1] != judge

        until(lambda: json.loads(demo.get("api/v1/status", judge))["judged_by"] not in ("", judge))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_second_demo_on_the_same_directory_is_refused_in_one_sentence(demo: Demo) -> None:
    with demo.running() as process:
        other = demo.run("--for", "1")

        assert (other.returncode, other.stdout) == (1, "")
        assert re.fullmatch(
            r"lookout: r[123] cannot start: another lookout \(pid \d+\) uses \S+; .*\n",
            other.stderr,
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert demo.is_over()


@pytest.mark.parametrize("missing", ["PATH", "ZOOKEEPER_HOME"])
def test_without_java_or_zookeeper_the_demo_names_the_packages_and_the_way_without(
    missing: str, tmp_path: Path
) -> None:
    done = Demo(tmp_path, **{missing: str(tmp_path)}).run("--for", "1")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "lookout: several replicas need Java and ZooKeeper: apt-get install default-jre-headless "
        "libzookeeper-java, or do without: --replicas 1\n"
    )


@pytest.mark.parametrize("replicas", ["1", "3"])
def test_without_a_server_of_mongodb_the_demo_says_how_to_get_one(
    replicas: str, tmp_path: Path
) -> None:
    demo = Demo(tmp_path, SEPELIB_MONGOD="/nowhere/mongod")
    done = demo.run("--for", "1", "--replicas", replicas)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "lookout: the demo needs a server of MongoDB: pip install 'sepelib-mongo[embedded]' "
        "(Python before 3.14), or mongod\n"
    )


def test_a_port_is_for_a_single_replica(tmp_path: Path) -> None:
    done = Demo(tmp_path).run("--port", "1234")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lookout: --port is for --replicas 1, several listen where there is room\n"
    )
