"""The end of a server: nothing accepted is lost, and nothing idle is waited for."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sepelib.flask.testing import NoAnswer, SlowClient
from sepelib.flask.testing._probe import Probe

WAIT = 15.0
HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
SLEEP = b"GET /sleep?s=%g HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def child() -> Iterator[Probe]:
    with Probe() as child:
        yield child


@pytest.fixture
def probe(child: Probe) -> Probe:
    child.open(limits={"max_connections": 2000})
    return child


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def busy(probe: Probe, number: int) -> Callable[[], bool]:
    return lambda: bool(probe.stats()["connections"]["busy"] == number)


def took(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def test_a_draining_server_ends_connections_and_still_takes_new_ones(probe: Probe) -> None:
    with ExitStack() as stack:
        idle, working, fresh = (stack.enter_context(SlowClient(probe.address)) for _ in range(3))
        assert "connection" not in idle.get("/hello").headers
        working.send(SLEEP % 0.5)
        until(busy(probe, 1))

        probe.tell("begin_drain")

        assert idle.closed()
        for client in (working, fresh):
            if client is fresh:
                client.send(HELLO)
            assert client.answer().headers["connection"] == "close"
            assert client.closed()
        with SlowClient(probe.address) as new:
            assert new.get("/hello").headers["connection"] == "close"
            assert new.closed()


def test_idle_connections_do_not_delay_the_stop(probe: Probe) -> None:
    with ExitStack() as stack:
        for number in range(10):
            client = stack.enter_context(SlowClient(probe.address))
            if number:  # one has never said anything
                assert client.get("/hello").status == 200

        assert took(lambda: probe.tell("stop", 30.0)) < 10.0

        assert sum(probe.stats()["connections"].values()) == 0


def test_the_stop_waits_for_busy_ones_and_not_longer(probe: Probe) -> None:
    with SlowClient(probe.address) as working, SlowClient(probe.address) as idle:
        idle.get("/hello")
        working.send(SLEEP % 0.7)
        until(busy(probe, 1))

        seconds = took(lambda: probe.tell("stop", 30.0))

        answer = working.answer()
        assert (answer.body, answer.headers["connection"]) == (b"slept", "close")
        assert 0.3 < seconds < 10.0


def test_who_does_not_end_in_time_is_killed(probe: Probe) -> None:
    with SlowClient(probe.address) as working, SlowClient(probe.address) as streaming:
        streaming.send(b"GET /stream?n=1000&every=0.1 HTTP/1.1\r\nHost: x\r\n\r\n")
        working.send(SLEEP % 60.0)
        until(busy(probe, 2))

        assert took(lambda: probe.tell("stop", 0.3)) < 10.0

        assert working.answer().status == 503
        assert streaming.answer().complete is False
    stats = probe.stats()
    assert sum(stats["connections"].values()) == 0 and probe.leaks()["greenlets"] == 0
    assert sorted(stats["journal"][2:]) == ["closed", "killed"]
    log = probe.process.log_tail()
    assert "2 requests did not end in time" in log and "does not end when killed" not in log


def test_a_request_that_ignores_its_kill_delays_nobody_and_loses_its_connection(
    probe: Probe,
) -> None:
    with SlowClient(probe.address) as client:
        client.send(b"GET /stubborn?s=3 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(busy(probe, 1))
        assert took(lambda: probe.tell("stop", 0.1)) < 2.9
        assert client.closed()
    assert "ignored" in probe.stats()["journal"]
    assert "does not end when killed" in probe.process.log_tail()
    until(busy(probe, 0))
    assert probe.leaks()["greenlets"] == 0


def test_a_half_sent_request_is_still_served(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        client.send(HELLO[:10])
        until(lambda: probe.stats()["connections"]["reading"] == 1)
        probe.tell("stop_soon", 10.0)
        until(lambda: _refused(probe))
        client.send(HELLO[10:])
        assert client.answer().body == b"hello"


def test_those_in_the_backlog_are_served(probe: Probe) -> None:
    # They connect and ask while the hub is busy, so that the stop comes before the accept.
    with ExitStack() as stack:
        blocker = stack.enter_context(SlowClient(probe.address))
        blocker.send(b"GET /block?s=0.5&stop=10 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)  # so that it begins; if it has not, the test proves less and still holds
        clients = [stack.enter_context(SlowClient(probe.address)) for _ in range(20)]
        for client in clients:
            client.send(HELLO)
        assert [client.answer().body for client in clients] == [b"hello"] * 20
        assert blocker.answer().status == 200
    until(lambda: _refused(probe))


def test_the_stop_may_come_twice_at_once_and_again(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        client.send(SLEEP % 0.3)
        until(busy(probe, 1))
        probe.tell("stop_twice_at_once", 10.0)
        assert client.answer().body == b"slept"
    probe.tell("stop", 10.0)
    assert sum(probe.stats()["connections"].values()) == 0


def test_a_request_may_stop_its_own_server(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        answer = client.get("/stop?timeout=20")
        assert (answer.status, float(answer.body) < 10.0) == (200, True)
        assert client.closed()


def _refused(probe: Probe) -> bool:
    try:
        SlowClient(probe.address).close()
    except ConnectionRefusedError:
        return True
    return False


class Caller(threading.Thread):
    """Asks on a few kept connections in turn until told to stop; counts what becomes of it."""

    def __init__(self, probe: Probe, connections: int) -> None:
        super().__init__(daemon=True)
        self.answered = self.cut = self.closed = 0
        self.over = threading.Event()
        self.ready = threading.Event()
        self._address = probe.address
        self._clients = [SlowClient(probe.address, timeout=30.0) for _ in range(connections)]

    def run(self) -> None:
        clients = self._clients
        while clients and not self.over.is_set():
            for client in clients:
                client.send(HELLO)
            clients = [client for client in clients if self._answered(client)]
            self.ready.set()
        for client in self._clients:
            client.close()

    def _answered(self, client: SlowClient) -> bool:
        """Whether to go on."""
        try:
            answer = client.answer()
        except NoAnswer as error:
            # Closed between two requests, which the client may send elsewhere, or in an answer.
            self.closed += not error.received
            self.cut += bool(error.received)
            return False
        self.answered += answer.complete and answer.status == 200
        self.cut += not answer.complete
        return answer.headers.get("connection") != "close"


def test_a_thousand_connections_lose_no_accepted_request_in_a_drain(probe: Probe) -> None:
    callers = [Caller(probe, 100) for _ in range(10)]
    for caller in callers:
        caller.start()
    try:
        for caller in callers:
            assert caller.ready.wait(30.0)
        stats = probe.stats()
        assert sum(stats["connections"].values()) == 1000

        probe.tell("begin_drain")
        probe.tell("stop", 30.0)

        for caller in callers:
            caller.join(30.0)
            assert not caller.is_alive()
    finally:
        for caller in callers:
            caller.over.set()
    accepted = probe.stats()["journal"].count("GET /hello")
    assert sum(caller.cut for caller in callers) == 0
    assert sum(caller.answered for caller in callers) == accepted >= 1000
