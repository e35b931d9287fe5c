"""Many threads, in a patched process greenlets, on one client of a service over HTTP.

What only greenlets do, to be timed out or killed at any moment, is done in a patched process: in
an unpatched one this file runs itself there. The base alone: test_base_greenlets.py.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.monkey import is_module_patched

from sepelib.util.testing import MemoryRecorder
from sepelib.yandex.auth import OAuthToken
from sepelib.yandex.blackbox import BlackboxClient
from sepelib.yandex.errors import NotFound
from sepelib.yandex.passport import PassportClient
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeBlackbox, FakePassport, FakeService, FakeStartrek

LIMIT = 60.0
MANY = 200
POOL = 10


def all_at_once(ask: Callable[[int], None], many: int = MANY) -> None:
    """Call *ask* with each number in a thread of its own; the first error is raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            ask(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)


def accepted(fake: FakeService[Any]) -> int:
    assert fake.server is not None
    return fake.server.connections.accepted


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def startrek() -> Iterator[FakeStartrek]:
    fake = FakeStartrek()
    fake.add_queue("T")
    with fake.serve():
        yield fake


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def tracker(startrek: FakeStartrek, recorder: MemoryRecorder) -> Iterator[StartrekClient]:
    options: dict[str, Any] = {
        "recorder": recorder,
        "max_connections": POOL,
        "total_timeout": LIMIT,
    }
    with StartrekClient.from_config(startrek.config(), **options) as client:
        yield client
    gc.collect()  # a connection that nobody has closed is a warning, hence an error


def test_each_of_many_gets_its_own_answers(startrek: FakeStartrek, tracker: StartrekClient) -> None:
    def ask(number: int) -> None:
        made = tracker.issues.create("T", f"of {number}", unique=f"u{number}")
        assert made.key is not None
        comment = tracker.comments.create(made, f"by {number}")
        assert tracker.issues.get(made).summary == f"of {number}"
        assert [one.text for one in tracker.comments.list(made)] == [comment.text]
        probe = {"X-For": made.key}
        tracker.request("probe", "GET", "/v2/issues/{key}", at={"key": made.key}, headers=probe)

    all_at_once(ask)

    assert len(startrek.state.issues) == MANY
    probes = [call for call in startrek.calls if "X-For" in call.headers]
    assert len(probes) == MANY
    assert all(call.path == f"/v2/issues/{call.headers['X-For']}" for call in probes)
    assert len({call.request_id for call in startrek.calls}) == len(startrek.calls) == 5 * MANY
    assert accepted(startrek) <= POOL


def test_the_token_of_one_is_never_sent_for_another() -> None:
    fake = FakePassport()
    for number in range(MANY):
        fake.accounts.add_user(f"user{number}", uid=number + 1)
        fake.accounts.add_token(f"token-{number}", uid=number + 1)
    with fake.serve(), PassportClient.from_config(fake.config(), total_timeout=LIMIT) as client:

        def ask(number: int) -> None:
            assert client.user_info(f"token-{number}").login == f"user{number}"

        all_at_once(ask)
        assert accepted(fake) <= POOL


def test_forms_and_tickets_of_many_do_not_mix() -> None:
    fake = FakeBlackbox()
    for number in range(MANY):
        fake.add_user(f"user{number}", uid=number + 1)
        fake.add_token(f"token-{number}", uid=number + 1)
    with fake.serve(), BlackboxClient(fake.url, total_timeout=LIMIT) as client:

        def ask(number: int) -> None:
            found = client.oauth(f"token-{number}", "127.0.0.1")
            assert (found.is_valid, found.login, found.uid) == (
                True,
                f"user{number}",
                str(number + 1),
            )

        all_at_once(ask)


def test_faults_of_some_are_nobody_elses(startrek: FakeStartrek, tracker: StartrekClient) -> None:
    for number in range(20):
        startrek.add_issue("T", f"{number}")
    for _ in range(10):
        startrek.faults.next("issues.get", status=404)
        startrek.faults.next("issues.get", reset="after-apply")
    wrong: list[str] = []

    def ask(number: int) -> None:
        key = f"T-{number % 20 + 1}"
        try:
            if tracker.issues.get(key).key != key:
                wrong.append(key)
        except NotFound as error:
            if key not in str(error):
                wrong.append(str(error))

    all_at_once(ask)

    assert wrong == [] and startrek.faults.pending == 0
    assert tracker._slots.free == POOL


if not is_module_patched("socket"):

    def test_greenlets_pass_in_a_patched_process() -> None:
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", __file__]
        done = subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

else:

    def test_a_timeout_in_mid_read_leaves_no_connection(
        startrek: FakeStartrek, tracker: StartrekClient, recorder: MemoryRecorder
    ) -> None:
        startrek.add_issue("T", "one")
        startrek.faults.on("issues.get", drip=0.05)
        assert startrek.server is not None

        def ask() -> None:
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
                tracker.issues.get("T-1")

        jobs = [gevent.spawn(ask) for _ in range(POOL)]
        gevent.joinall(jobs, timeout=LIMIT, raise_error=True)

        assert recorder.value("yandex_requests", "startrek", "issues.get", "cancelled") == POOL
        assert tracker._slots.free == POOL
        startrek.faults.clear()
        server = startrek.server
        assert eventually(lambda: server.connections.open == 0), "half an answer is nobody's"
        before = accepted(startrek)
        assert tracker.issues.get("T-1").key == "T-1"
        assert accepted(startrek) == before + 1

    def test_whoever_is_killed_leaves_nothing_behind(
        startrek: FakeStartrek, tracker: StartrekClient
    ) -> None:
        for number in range(20):
            startrek.add_issue("T", f"{number}")
        wrong: list[Any] = []

        def ask(number: int) -> None:
            key = f"T-{number % 20 + 1}"
            while True:
                found = tracker.issues.get(key)
                if found.key != key:
                    wrong.append((key, found.key))

        for step in range(8):
            jobs = [gevent.spawn(ask, number) for number in range(MANY)]
            gevent.sleep(0.01 * step)
            gevent.killall(jobs, timeout=LIMIT)
            assert tracker._slots.free == POOL
        assert wrong == [] and tracker.issues.get("T-1").key == "T-1"

    def test_a_walk_that_is_killed_while_it_waits_asks_for_nothing_more(
        startrek: FakeStartrek, tracker: StartrekClient
    ) -> None:
        for number in range(30):
            startrek.add_issue("T", f"{number}")
        seen: list[Any] = []

        def walk() -> None:
            for issue in tracker.issues.scroll(filter={"queue": "T"}, per_scroll=10):
                seen.append(issue)
                startrek.faults.on("issues.search", delay=LIMIT)

        job = gevent.spawn(walk)
        assert eventually(lambda: len(startrek.calls) == 2)
        job.kill(timeout=LIMIT)
        assert startrek.calls.ops == ["issues.search"] * 2, "the tracker frees it by itself"
        assert len(seen) == 10 and tracker._slots.free == POOL

    def test_the_credential_is_asked_for_by_each_for_itself(startrek: FakeStartrek) -> None:
        issue = startrek.add_issue("T", "one")
        startrek.tokens = {f"token-{number}" for number in range(MANY)}
        mine: dict[Any, str] = {}

        class Mine:
            def apply(self, headers: Any, /) -> None:
                token = mine[gevent.getcurrent()]
                gevent.sleep(0)  # others come in between
                OAuthToken(token).apply(headers)

            def invalidate(self) -> None: ...

        def ask(number: int, client: StartrekClient) -> None:
            mine[gevent.getcurrent()] = f"token-{number}"
            client.request(
                "probe", "GET", "/v2/issues/{key}", at={"key": "T-1"}, headers={"X-N": str(number)}
            )

        with StartrekClient(startrek.url, Mine(), total_timeout=LIMIT) as client:
            jobs = [gevent.spawn(ask, number, client) for number in range(MANY)]
            gevent.joinall(jobs, timeout=LIMIT, raise_error=True)
        assert issue is not None and len(startrek.calls) == MANY
        for call in startrek.calls:
            assert call.headers["Authorization"] == f"OAuth token-{call.headers['X-N']}"
