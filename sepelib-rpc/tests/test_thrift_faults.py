"""When servers, networks and callers fail: each row of the table in `_calls.py`.

How often a call was executed is what the server's own journal says.
"""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent import Timeout, monkey

from sepelib.rpc.testing import ThriftServer
from sepelib.rpc.thrift import (
    ConnectFailed,
    OutcomeUnknown,
    PoolExhausted,
    ProtocolViolation,
    ThriftError,
)
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import FlakyProxy

PATCHED = monkey.is_module_patched("socket")
SOON = Backoff(0.001)
ONCE = RetryPolicy(ThriftError, attempts=1)
TWICE = RetryPolicy(ThriftError, attempts=2, backoff=SOON)


@contextlib.contextmanager
def struck_after(seconds: float) -> Iterator[type[BaseException]]:
    """A BaseException from outside: gevent's in a patched process, a signal handler's otherwise."""
    if PATCHED:
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


@contextlib.contextmanager
def killed_after(seconds: float) -> Iterator[type[BaseException]]:
    """As a supervisor does to a greenlet of its own."""
    import gevent

    gevent.spawn_later(seconds, gevent.getcurrent().throw, gevent.GreenletExit)
    yield gevent.GreenletExit


STRIKES = [struck_after, killed_after] if PATCHED else [struck_after]


class Gate:
    """A handler of `echo` that keeps the answer to ALICE back until `open()`."""

    def __init__(self, server: ThriftServer) -> None:
        self._opened = threading.Event()
        self._server = server

    def __call__(self, text: str) -> str:
        if text == "ALICE":
            assert self._opened.wait(20.0)
        return text

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(served: Any) -> Gate:
    gate = Gate(served.server)
    served.handler.echo = gate
    return gate


# Nobody gets what was meant for another.


def test_after_a_timeout_bob_does_not_get_the_answer_to_alice(served: Any, gate: Gate) -> None:
    client = served.client(pool_size=1)
    with pytest.raises(OutcomeUnknown) as unknown:
        client.call("echo", "ALICE", timeout=0.1)
    assert unknown.value.kind == "timeout" and unknown.value.maybe_executed
    assert "ALICE" not in str(unknown.value)
    gate.open()
    for name in ("bob", "carol", "dave"):
        assert client.echo(name) == name
    served.server.wait_for(lambda: served.server.connections == (2, 1))  # hers was closed
    assert served.executed == ["echo"] * 4
    assert served.result("echo", "unknown") == 1 and served.result("echo", "ok") == 3


@pytest.mark.parametrize("strike", STRIKES)
def test_after_a_cancellation_bob_does_not_get_the_answer_to_alice(
    served: Any, gate: Gate, strike: Callable[[float], Any]
) -> None:
    client = served.client(pool_size=1, idempotent="all")
    with strike(0.1) as kind, pytest.raises(BaseException) as struck:  # noqa: PT011
        client.echo("ALICE")
    assert struck.type is kind
    gate.open()
    for name in ("bob", "carol", "dave"):
        assert client.echo(name) == name
    served.server.wait_for(lambda: served.server.connections == (2, 1))
    assert served.executed == ["echo"] * 4  # hers was not repeated
    assert served.result("echo", "cancelled") == 1


@pytest.mark.parametrize("fault", ["wrong_seqid", "wrong_method", "wrong_kind"])
def test_a_reply_to_another_call_is_nobodys(
    served: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = served.client()
    assert client.echo("warm") == "warm"
    getattr(served.server, fault)()
    with pytest.raises(ProtocolViolation) as violation:
        client.echo("ALICE")
    assert violation.value.maybe_executed
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert client.echo("bob") == "bob"
    served.server.wait_for(lambda: served.server.connections == (2, 1))
    assert served.executed == ["echo"] * 3


def test_even_a_reply_that_came_without_a_call_is_nobodys(served: Any) -> None:
    client = served.client(pool_size=1, retries=ONCE)
    assert client.echo("warm") == "warm"
    seqid = served.server.calls[0].seqid
    # A whole and proper reply, as if to the next call.
    assert served.server.stray(proper_reply(served, seqid + 1)) == 1
    assert client.echo("bob") == "bob"
    assert served.server.connections.accepted == 2 and served.executed == ["echo"] * 2


def proper_reply(served: Any, seqid: int) -> bytes:
    """What the server would send for `echo("stray")`."""
    from sepelib.rpc.testing._thrift_wires import envelope_of

    text = b"\x0b\0\0\0\0\0\5stray\0"
    message = b"\x80\1\0\2\0\0\0\4echo" + seqid.to_bytes(4, "big") + text
    if served.server.protocol == "compact":
        message = b"\x82\x41" + bytes([seqid]) + b"\4echo\x08\0\5stray\0"
    return envelope_of(served.server.transport).wrapped(message)


@pytest.mark.parametrize("data", [b"x", b"\0\0\0\1x", b"HTTP/1.1 408 Timeout\r\n\r\n"])
def test_stray_bytes_on_an_idle_connection_cost_nothing(served: Any, data: bytes) -> None:
    client = served.client(retries=ONCE)
    for number in range(1, 4):
        assert client.add(1) == number
        served.server.stray(data)
    assert served.executed == ["add"] * 3 and served.server.connections.accepted == 3
    assert served.result("add", "ok") == 3


def test_bytes_behind_a_reply_cost_the_connection_alone(served: Any) -> None:
    client = served.client(retries=ONCE)
    served.server.trailing(b"\0\0\0\x11more")
    for number in range(1, 4):
        try:
            assert client.add(1) == number
        except ProtocolViolation:
            # Where a frame says how long the reply is, and more was there, all is doubted.
            assert number == 1 and served.server.transport == "framed"
    assert served.executed == ["add"] * 3 and served.server.connections.accepted == 2


# The table: what was certainly not executed is tried again.


def test_a_connection_closed_while_idle_costs_nothing(served: Any) -> None:
    client = served.client(retries=ONCE)
    for number in range(1, 6):
        assert client.add(1) == number
        served.server.disconnect(reset=number % 2 == 0)
    assert served.executed == ["add"] * 5 and served.server.connections.accepted == 5


def test_server_restarts_are_invisible(served: Any) -> None:
    client = served.client(pool_size=2, retries=ONCE)
    for number in range(1, 11):
        assert client.add(1) == number
        served.server.restart()
    assert served.executed == ["add"] * 10 and served.result("add", "ok") == 10


def test_a_server_that_is_down_for_a_moment_is_found_again(served: Any) -> None:
    patient = RetryPolicy(ThriftError, attempts=50, backoff=Backoff(0.02, factor=1.0))
    client = served.client(retries=patient)
    assert client.add(1) == 1
    served.server.stop()
    starter = threading.Timer(0.1, served.server.start)
    starter.start()
    assert client.add(1) == 2
    starter.join()
    assert served.executed == ["add"] * 2


def test_what_finds_no_server_was_not_executed(served: Any) -> None:
    served.server.refuse()
    client = served.client(retries=TWICE)
    with pytest.raises(ConnectFailed) as failed:
        client.add(1)
    assert not failed.value.maybe_executed and "not executed" in str(failed.value)
    assert served.executed == [] and served.result("add", "not_sent") == 1
    assert served.recorder.value("thrift_client_connects", "dir", "failed") == 2
    served.server.start()
    assert client.add(1) == 1


def test_what_finds_no_free_connection_was_not_executed(served: Any, gate: Gate) -> None:
    client = served.client(pool_size=1, pool_timeout=0.1, retries=TWICE)
    busy = threading.Thread(target=client.echo, args=["ALICE"])
    busy.start()
    served.server.wait_for(lambda: served.executed)
    with pytest.raises(PoolExhausted) as exhausted:
        client.add(1)
    assert not exhausted.value.maybe_executed
    gate.open()
    busy.join()
    assert client.add(1) == 1 and served.executed == ["echo", "add"]


def test_a_request_that_did_not_leave_whole_is_sent_again(served: Any) -> None:
    served.handler.echo = lambda text: str(len(text))
    text = "x" * (12 << 20)
    with FlakyProxy(*served.server.address) as proxy:
        client = served.client(proxy.address, retries=TWICE)
        assert client.echo("") == "0"
        proxy.reset_after(100_000, direction="requests")
        assert client.echo(text) == str(len(text))
    assert served.executed == ["echo"] * 2 and served.result("echo", "ok") == 2


# What may have been executed is repeated only if that does no harm.

LOST: list[tuple[str, tuple[Any, ...], type[ThriftError]]] = [
    ("cut", (), OutcomeUnknown),
    ("reset", (), OutcomeUnknown),
    ("cut", (5,), OutcomeUnknown),
    ("reset", (5,), OutcomeUnknown),
    ("wrong_seqid", (), ProtocolViolation),
    ("wrong_method", (), ProtocolViolation),
    ("wrong_kind", (), ProtocolViolation),
    ("garbage", (), ProtocolViolation),
    ("html", (500,), ProtocolViolation),
]


@pytest.mark.parametrize(("fault", "args", "kind"), LOST)
def test_a_lost_answer_is_an_error_and_the_call_is_executed_once(
    served: Any, fault: str, args: tuple[Any, ...], kind: type[ThriftError]
) -> None:
    client = served.client(retries=TWICE)
    getattr(served.server, fault)(*args)
    with pytest.raises(kind) as lost:
        client.add(1)
    assert lost.value.maybe_executed and "may have been executed" in str(lost.value)
    assert lost.value.method == "add" and str(served.server.port) in lost.value.host
    assert served.executed == ["add"] and served.result("add", "unknown") == 1
    assert client.add(1) == 2


@pytest.mark.parametrize(("fault", "args", "kind"), LOST)
def test_a_lost_answer_to_an_idempotent_call_is_asked_for_again(
    served: Any, fault: str, args: tuple[Any, ...], kind: type[ThriftError]
) -> None:
    client = served.client(retries=TWICE, idempotent={"echo"})
    getattr(served.server, fault)(*args)
    assert client.echo("bob") == "bob"
    assert served.executed == ["echo"] * 2 and served.result("echo", "ok") == 1

    getattr(served.server, fault)(*args, times=2)
    with pytest.raises(kind):
        client.echo("bob")
    assert served.executed == ["echo"] * 4


@pytest.mark.parametrize("served", ["buffered", "http"], indirect=True)
def test_a_timeout_is_a_lost_answer(served: Any) -> None:
    client = served.client(retries=TWICE, idempotent={"echo"})
    served.server.late(30.0)
    with pytest.raises(OutcomeUnknown, match=r"no reply within 0\.1 s; may have been executed"):
        client.call("add", 1, timeout=0.1)
    assert served.executed == ["add"]
    served.server.late(30.0)
    assert client.call("echo", "bob", timeout=0.5) == "bob"
    assert served.executed == ["add", "echo", "echo"]


@pytest.mark.parametrize("idempotent", ["all", ()])
def test_exceptions_of_the_peer_pass_unchanged_once_and_keep_the_connection(
    served: Any, idempotent: Any
) -> None:
    client = served.client(retries=TWICE, idempotent=idempotent)
    with pytest.raises(served.types.NotFound) as missing:
        client.forget("bob")
    assert type(missing.value) is served.types.NotFound and missing.value.key == "bob"
    served.handler.ping = lambda: 1 / 0
    with pytest.raises(served.library.application_error) as internal:
        client.ping()
    assert internal.value.type == served.library.application_error.INTERNAL_ERROR
    assert client.add(1) == 1
    assert served.executed == ["forget", "ping", "add"]
    assert served.server.connections.accepted == 1
    assert served.result("forget", "idl_exception") == served.result("ping", "app_exception") == 1


@pytest.mark.parametrize("kind", [3, 4, 7])  # wrong name, bad sequence id, protocol error
def test_a_peer_out_of_step_is_believed_but_not_called_again_on_that_connection(
    served: Any, kind: int
) -> None:
    def out_of_step() -> None:
        raise served.library.application_error(kind, "out of step")

    served.handler.ping = out_of_step
    client = served.client(retries=TWICE, idempotent="all")
    with pytest.raises(served.library.application_error, match="out of step"):
        client.ping()
    assert client.add(1) == 1
    assert served.executed == ["ping", "add"] and served.server.connections.accepted == 2


def test_a_oneway_call_is_done_when_its_bytes_are_gone(served: Any) -> None:
    client = served.client()
    for number in range(1, 4):
        assert client.tell(f"{number}") is None
        assert client.add(1) == number
    assert served.handler.told == ["1", "2", "3"]
    assert served.server.connections.accepted == 1


def test_a_oneway_call_whose_server_answers_does_not_hand_the_answer_on(served: Any) -> None:
    client = served.client(retries=ONCE)
    assert client.tell("psst") is None
    served.server.wait_for(lambda: served.executed)
    assert served.server.stray(proper_reply(served, 1)) == 1
    assert client.echo("bob") == "bob"
    assert served.executed == ["tell", "echo"] and served.server.connections.accepted == 2


# Several hosts.


def test_of_three_hosts_a_dead_one_costs_nobody_a_call(served: Any) -> None:
    service, options = (
        served.library.service,
        {"protocol": served.server.protocol, "transport": served.server.transport},
    )
    with (
        ThriftServer(service, served.handler, **options) as second,
        ThriftServer(service, served.handler, **options) as dead,
    ):
        dead.refuse()
        addresses = [dead.address, served.server.address, second.address]
        client = served.client(*addresses, pool_size=4, retries=ONCE, max_idle=0.0)
        for number in range(1, 61):
            assert client.add(1) == number
        assert len(served.server.calls) + len(second.calls) == 60
        assert min(len(served.server.calls), len(second.calls)) > 25  # by turns

        place = next(label for label in client.stats()["hosts"] if str(dead.port) in label)
        assert client.stats()["hosts"][place]["state"] == "ejected"
        assert client.stats()["hosts"][place]["ejected_until"] is not None
        failed = served.recorder.value("thrift_client_connects", "dir", "failed")
        assert 3 <= failed < 10  # then it was left out, and not tried at each third call

        dead.start()
        served.server.stop()
        second.stop()
        assert client.add(1) == 61  # the last one that is left, ejected or not
        assert [call.method for call in dead.calls] == ["add"]


# The rest of the process.


def test_no_setting_of_the_process_is_touched(served: Any) -> None:
    seen = set()
    served.handler.echo = lambda text: seen.add(socket.getdefaulttimeout()) or text
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.25)
    try:
        client = served.client(pool_size=8, timeout=3.0)

        def call(number: int) -> None:
            for turn in range(5):
                assert client.call("echo", f"{number} {turn}", timeout=2.0 + turn)
                seen.add(socket.getdefaulttimeout())

        threads = [threading.Thread(target=call, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(served.executed) == 40 and seen == {7.25}
        # Nor does it reach into ours.
        served.server.late(0.3)
        socket.setdefaulttimeout(0.05)
        assert client.add(1) == 1
        assert socket.getdefaulttimeout() == 0.05
    finally:
        socket.setdefaulttimeout(before)
