"""Connections: their time limits, their number, who has to go, and that nothing is left of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from sepelib.flask.testing import NoAnswer, SlowClient
from sepelib.flask.testing._probe import Probe

WAIT = 15.0  # seconds; far more than anything here takes
HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
SLEEP = b"GET /sleep?s=%g HTTP/1.1\r\nHost: x\r\n\r\n"


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def in_state(probe: Probe, **expected: int) -> Callable[[], bool]:
    def reached() -> bool:
        found = probe.stats()["connections"]
        return all(found[state] == number for state, number in expected.items())

    return reached


def nothing_is_left(probe: Probe, descriptors: int) -> None:
    until(lambda: sum(probe.stats()["connections"].values()) == 0)
    until(lambda: probe.leaks() == {"greenlets": 0, "descriptors": descriptors})
    assert set(probe.stats()["gauge"].values()) == {0.0}


@pytest.fixture(scope="module")
def child() -> Iterator[Probe]:
    with Probe() as child:
        yield child


# -- Time.


@pytest.fixture
def probe(child: Probe) -> Iterator[Probe]:
    limits = {"header_timeout": 0.3, "idle_timeout": 0.6, "write_timeout": 0.3, "min_rate": 1e7}
    child.open(limits=limits, access_log="combined")
    descriptors = child.leaks()["descriptors"]
    yield child
    nothing_is_left(child, descriptors)


def test_slow_headers_are_a_408_when_their_time_is_over(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        start = time.monotonic()
        client.send(b"GET /hello HTTP/1.1\r\nX-Slow: " + b"a" * 200, every=0.05)
        answer = client.answer()

        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert client.closed()
        assert time.monotonic() - start < 9.0  # all would take 11.5
    assert probe.stats()["rejected"]["header_timeout"] >= 1


def test_a_client_that_says_nothing_is_closed_without_a_word(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        assert client.closed()
    assert probe.stats()["journal"] == []


def test_an_idle_connection_is_closed_without_a_word(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        assert client.get("/hello").status == 200
        start = time.monotonic()
        assert client.closed()
        assert time.monotonic() - start > 0.4


def test_the_headers_of_a_second_request_have_their_own_time(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        assert client.get("/hello").status == 200
        time.sleep(0.4)  # longer than header_timeout, shorter than idle_timeout
        assert client.get("/hello").status == 200
        client.send(b"GET /hel")
        assert client.answer().status == 408


def test_a_slow_application_is_not_a_slow_client(probe: Probe) -> None:
    with SlowClient(probe.address) as client:
        assert client.get("/sleep?s=0.7").body == b"slept"
        assert client.get("/stream?every=0.25").complete


def test_a_client_that_does_not_read_is_cut_off_and_its_greenlet_is_free(probe: Probe) -> None:
    with SlowClient(probe.address, receive_buffer=4096) as client:
        client.send(b"GET /stream?n=1000&size=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(in_state(probe, busy=1))
        until(in_state(probe, busy=0))
        assert client.answer().complete is False
    assert probe.stats()["journal"] == ["GET /stream", "closed"]
    until(lambda: '"GET /stream?n=1000&size=100000 HTTP/1.1" 499' in probe.log_lines()[-1])


def test_a_client_that_reads_a_little_now_and_then_runs_out_of_time(probe: Probe) -> None:
    with SlowClient(probe.address, receive_buffer=4096) as client:
        client.send(b"GET /big?n=50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(in_state(probe, busy=1))
        end = time.monotonic() + WAIT
        while probe.stats()["connections"]["busy"]:
            assert time.monotonic() < end
            assert client.receive(2000)  # each within write_timeout


def test_a_busy_hub_does_not_cost_the_clients_their_time(probe: Probe) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SlowClient(probe.address)) for _ in range(5)]
        for client in clients:
            assert client.get("/hello").status == 200
            client.send(HELLO[:10])
        until(in_state(probe, reading=5))
        # Meanwhile their time runs out, and what they send lies in the kernel.
        blocker = stack.enter_context(SlowClient(probe.address))
        blocker.send(b"GET /block?s=0.6 HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            client.send(HELLO[10:])
        assert [client.answer().status for client in clients] == [200] * 5
        assert blocker.answer().status == 200


def test_a_busy_hub_is_not_a_client_that_does_not_read(child: Probe) -> None:
    child.open(limits={"write_timeout": 0.5})
    with SlowClient(child.address) as client:
        client.send(b"GET /big?n=20000000&block=1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)  # the kernel is full, and the hub is busy from now on
        assert client.answer().complete


def test_nothing_is_left_of_clients_that_vanish_anywhere(probe: Probe) -> None:
    stages = [
        b"",
        b"GET /hel",
        HELLO,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /stream?n=100&every=0.01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /big?n=5000000 HTTP/1.1\r\nHost: x\r\n\r\n",
        SLEEP % 0.1,
        HELLO * 10,
        b"BAD\r\n\r\n",
    ]
    for stage in stages:
        for leave in (SlowClient.reset, SlowClient.close):
            client = SlowClient(probe.address)
            client.send(stage)
            leave(client)


# -- Numbers.


@pytest.fixture
def small(child: Probe) -> Probe:
    child.open(limits={"max_connections": 4, "reserve": 2, "header_timeout": 5.0})
    return child


def test_the_connection_that_idles_longest_goes_for_a_new_one(small: Probe) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SlowClient(small.address)) for _ in range(4)]
        for client in (clients[1], clients[0], clients[2], clients[3]):
            assert client.get("/hello").status == 200
        with SlowClient(small.address) as new:
            assert new.get("/hello", "Connection: close").status == 200
        assert clients[1].closed()
        for client in (clients[0], clients[2], clients[3]):
            assert client.get("/hello").status == 200
    assert small.stats()["rejected"] == {"evicted": 1.0}


def test_silent_connections_and_slow_headers_do_not_starve_others(small: Probe) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(SlowClient(small.address)) for _ in range(20)]
        for client in silent[-2:]:
            client.send(b"GET /he")
        time.sleep(0.3)  # until none of them counts as one whose request is on the way
        with SlowClient(small.address) as client:
            assert b'"sepelib.over_limit": false' in client.get("/environ").body
        assert sum(small.stats()["connections"].values()) <= 6


def test_nobody_goes_whose_request_may_be_on_the_way(small: Probe) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SlowClient(small.address)) for _ in range(6)]
        for client in clients:
            client.send(HELLO)
        assert [client.answer().status for client in clients] == [200] * 6


def test_slow_headers_go_when_there_is_nobody_else(small: Probe) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(SlowClient(small.address)) for _ in range(4)]
        for number, client in enumerate(slow):
            client.send(b"GET /hel")
            until(in_state(small, reading=number + 1))
        time.sleep(0.3)
        with SlowClient(small.address) as client:
            assert client.get("/hello").status == 200
        assert slow[0].answer().status == 503


def test_when_all_are_busy_the_reserve_gets_one_answer_each(small: Probe) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(SlowClient(small.address)) for _ in range(4)]
        for client in busy:
            client.send(SLEEP % 3.0)
        until(in_state(small, busy=4))

        for _ in range(5):  # more than the reserve: each frees its place
            with SlowClient(small.address) as client:
                answer = client.get("/environ")
                assert b'"sepelib.over_limit": true' in answer.body
                assert answer.headers["connection"] == "close"
                assert client.closed()

        reserve = [stack.enter_context(SlowClient(small.address)) for _ in range(2)]
        for client in reserve:
            client.send(SLEEP % 3.0)
        until(in_state(small, busy=6))
        with SlowClient(small.address) as client:
            answer = client.answer()  # without having asked
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert client.closed()
        assert small.stats()["rejected"] == {"full": 1.0}
        assert [client.answer().body for client in busy + reserve] == [b"slept"] * 6


def test_a_request_that_came_before_the_eviction_is_answered(small: Probe) -> None:
    with ExitStack() as stack:
        # While the hub is blocked, four requests and a fifth connection arrive.
        clients = [stack.enter_context(SlowClient(small.address)) for _ in range(4)]
        for client in clients[1:]:
            assert client.get("/hello").status == 200
        clients[0].send(b"GET /block?s=0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients[1:]:
            client.send(HELLO)
        new = stack.enter_context(SlowClient(small.address))
        new.send(HELLO)
        assert [client.answer().status for client in [*clients, new]] == [200] * 5


def test_a_flood_of_connections_leaves_nothing(small: Probe) -> None:
    descriptors = small.leaks()["descriptors"]
    answered = 0
    for _ in range(10):
        with ExitStack() as stack:
            clients = [stack.enter_context(SlowClient(small.address)) for _ in range(20)]
            for client in clients:
                client.send(HELLO)
            for client in clients:
                with suppress(NoAnswer):
                    answered += client.answer().status == 200
    assert answered >= 10
    nothing_is_left(small, descriptors)
