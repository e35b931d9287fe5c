"""What a client costs over requests, and a walk over many issues against the published client.

All ask the same live fake, which serves from threads of this process: what is compared is the CPU
time of the thread that asks, and for the walk also the time by the clock and the requests sent.

    python -m benchmarks yandex
"""

import atexit
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import requests
from yandex_tracker_client import TrackerClient

from benchmarks.runner import Comparison, Goal, Variant, interpreter
from sepelib.util.testing import MemoryRecorder
from sepelib.yandex.auth import OAuthToken
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeStartrek

CALLS = 200
ISSUES = 10_000
PER_SCROLL = 1000

_open = ExitStack()
atexit.register(_open.close)


def comparisons() -> list[Comparison]:
    small, large = _served(10), _served(ISSUES)
    return [*_calls(small), *_walks(large), _import("staff"), _import("startrek")]


def _served(issues: int) -> FakeStartrek:
    fake = FakeStartrek()
    fake.add_queue("T")
    for number in range(issues):
        fake.add_issue("T", f"issue {number}")
    _open.enter_context(fake.serve())
    return fake


def _calls(fake: FakeStartrek) -> list[Comparison]:
    url = f"{fake.url}/v2/issues/T-1"
    headers = {"Authorization": f"OAuth {fake.token}"}
    client = StartrekClient(fake.url, OAuthToken(fake.token), recorder=MemoryRecorder())
    plain, no_env = requests.Session(), requests.Session()
    no_env.trust_env = False
    return [
        Comparison(
            "Startrek: one issue, CPU of the caller",
            _cpu(lambda: client.issues.get("T-1"), CALLS),
            {
                "requests": _cpu(lambda: plain.get(url, headers=headers, timeout=10).json(), CALLS),
                "requests, no environment": _cpu(
                    lambda: no_env.get(url, headers=headers, timeout=10).json(), CALLS
                ),
            },
            goals=[Goal("requests", 1.0)],
            clocked=False,
        )
    ]


def _walks(fake: FakeStartrek) -> list[Comparison]:
    """By new clients, as in a script: ours frees the snapshot, the other one asks for the fields.

    A second walk of the same client is 11 requests of ours, and 10 of the other, which leaves the
    snapshot to its time.
    """

    def ours() -> None:
        recorder = MemoryRecorder()
        with StartrekClient(fake.url, OAuthToken(fake.token), recorder=recorder) as client:
            found = client.issues.scroll(filter={"queue": "T"}, per_scroll=PER_SCROLL)
            assert sum(issue.key is not None for issue in found) == ISSUES

    def theirs() -> None:
        client = TrackerClient(token=fake.token, org_id="1", base_url=fake.url)
        found = client.issues.find(filter={"queue": "T"}, scrollType="sorted", perScroll=PER_SCROLL)
        assert sum(issue.key is not None for issue in found) == ISSUES
        client._connection.session.close()

    def sent(walk: Callable[[], object]) -> Variant:
        @cache  # it is the same in each round
        def count() -> float:
            before = len(fake.calls)
            walk()
            return float(len(fake.calls) - before)

        return count

    name = "yandex_tracker_client"
    title = f"Startrek: {ISSUES} issues by scroll"
    goals = [Goal(name, 1.0)]
    return [
        Comparison(
            f"{title}, by the clock", _elapsed(ours), {name: _elapsed(theirs)}, goals, False
        ),
        Comparison(f"{title}, CPU", _cpu(ours), {name: _cpu(theirs)}, goals, False),
        Comparison(
            f"{title}, requests", sent(ours), {name: sent(theirs)}, goals, False, "requests"
        ),
    ]


def _import(service: str) -> Comparison:
    return Comparison(
        f"import sepelib.yandex.{service}",
        interpreter(f"import sepelib.yandex.{service}"),
        {"import requests": interpreter("import requests")},
    )


def _cpu(call: Callable[[], object], calls: int = 1) -> Variant:
    """Seconds of CPU that one *call* takes in this thread."""

    def measured() -> float:
        if calls > 1:
            call()  # connects
        start = time.thread_time()
        for _ in range(calls):
            call()
        return (time.thread_time() - start) / calls

    return measured


def _elapsed(call: Callable[[], object]) -> Variant:
    def measured() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return measured
