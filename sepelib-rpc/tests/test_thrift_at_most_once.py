"""Thousands of calls while connections are cut and servers restarted, against the server's journal.

A call that is not idempotent is executed at most once; not at all where the error says so, once
where it returned. One that is idempotent always returns, with its own answer.
"""

import collections
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sepelib.rpc.thrift import ThriftError
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import FlakyProxy

WORKERS = 6
PATIENT = RetryPolicy(ThriftError, attempts=200, backoff=Backoff(0.002, cap=0.02))


class Chaos:
    """One fault after the other, until told to end."""

    def __init__(self, served: Any, proxy: FlakyProxy, seed: int) -> None:
        self._server = served.server
        self._proxy = proxy
        self._rng = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None
        self.struck: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "Chaos":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._proxy.heal()
        self._server.heal()

    def _run(self) -> None:
        faults: list[Callable[[], object]] = [
            self.cut,
            self.cut_inside_requests,
            self.cut_inside_replies,
            self.lose_an_answer,
            self.disconnect,
            self.wrong_reply,
            self.restart,
        ]
        try:
            while not self._ended.wait(self._rng.uniform(0.0005, 0.005)):
                fault = self._rng.choice(faults)
                fault()
                self.struck[fault.__name__] += 1
        except BaseException as error:
            self.failure = error
            raise

    def cut(self) -> None:
        self._proxy.cut(reset=self._rng.random() < 0.5)

    def cut_inside_requests(self) -> None:
        self._proxy.reset_after(self._rng.randrange(60), direction="requests")

    def cut_inside_replies(self) -> None:
        self._proxy.reset_after(self._rng.randrange(60), direction="replies")

    def lose_an_answer(self) -> None:
        loss = self._proxy.lose_answer(then=self._rng.choice(["cut", "reset"]))
        self._ended.wait(0.002)
        loss.cancel()

    def disconnect(self) -> None:
        self._server.disconnect(reset=self._rng.random() < 0.5)

    def wrong_reply(self) -> None:
        name = self._rng.choice(["wrong_seqid", "wrong_method", "garbage", "cut", "trailing"])
        getattr(self._server, name)()

    def restart(self) -> None:
        self._server.restart()


def drive(served: Any, calls: int, faults: int, seed: int) -> None:
    """At least so many *calls* that are not idempotent, and *faults* meanwhile."""
    outcomes: dict[str, str] = {}

    def work(worker: int, once: Any, again: Any, chaos: Chaos) -> None:
        number = 0
        while number < calls / WORKERS or chaos.struck.total() < faults:
            number += 1
            assert chaos.failure is None
            name = f"once {worker} {number}"
            try:
                assert once.echo(name) == name
                outcomes[name] = "returned"
            except ThriftError as error:
                outcomes[name] = "unknown" if error.maybe_executed else "not executed"
            if number % 4 == 0:
                name = f"again {worker} {number}"
                assert again.echo(name) == name
                outcomes[name] = "returned"

    with FlakyProxy(*served.server.address) as proxy:
        client = served.client(proxy.address, pool_size=WORKERS, pool_timeout=30.0, retries=PATIENT)
        again = client.with_options(idempotent={"echo"})
        with Chaos(served, proxy, seed) as chaos:
            workers = [
                threading.Thread(target=work, args=[worker, client, again, chaos])
                for worker in range(WORKERS)
            ]
            for thread in workers:
                thread.start()
            for thread in workers:
                thread.join()
        assert chaos.failure is None, chaos.failure
        assert client.echo("over") == "over"

    executed = collections.Counter(call.args[0] for call in served.server.calls)
    once = {name: outcome for name, outcome in outcomes.items() if name.startswith("once")}
    again = {name: outcome for name, outcome in outcomes.items() if name.startswith("again")}
    assert len(once) >= calls
    for name, outcome in once.items():
        times = executed[name]
        assert times in {"returned": (1,), "not executed": (0,), "unknown": (0, 1)}[outcome], name
    assert all(outcome == "returned" and executed[name] >= 1 for name, outcome in again.items())
    # It was no sunny day: calls were lost, and some of those had been executed.
    lost = [name for name, outcome in once.items() if outcome == "unknown"]
    assert len(lost) > 5 and any(executed[name] for name in lost), chaos.struck


def test_a_few_hundred_calls_in_bad_weather_are_executed_at_most_once(served: Any) -> None:
    drive(served, 300, 60, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("served", ["buffered"], indirect=True)
def test_ten_thousand_calls_in_bad_weather_are_executed_at_most_once(served: Any) -> None:
    drive(served, 10_000, 1000, seed=2)
