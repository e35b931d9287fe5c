"""What a call does with each way to fail, with options and with time, over scripted connections."""

import logging
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sepelib.core.exceptions import LogicalError
from sepelib.rpc import _thrift_errors, thrift
from sepelib.rpc._connection import Connection, PeerClosed, ReplyRefused
from sepelib.rpc._hosts import Host
from sepelib.rpc.thrift import (
    ConnectFailed,
    DeadlineExceeded,
    OutcomeUnknown,
    PoolExhausted,
    ProtocolViolation,
    RequestNotSent,
    ThriftBinClient,
    ThriftError,
)
from sepelib.util.deadline import deadline
from sepelib.util.retry import Backoff, RetryBudget, RetryPolicy
from sepelib.util.testing import (
    MemoryRecorder,
    ThreadedServer,
    check_errors,
    check_obeys_deadline,
    check_transport_nesting,
)

AT_ONCE = Backoff(0)
ONCE = RetryPolicy(ThriftError, attempts=1)
FIVE_TIMES = RetryPolicy(ThriftError, attempts=5, backoff=AT_ONCE)
REPLY, EXCEPTION = 2, 3


class Killed(BaseException):
    """What a GreenletExit is to the code that it strikes."""


def message(name: str, body: bytes, kind: int = REPLY, offset: int = 0) -> Callable[[int], bytes]:
    """A message to the call whose seqid it is given."""
    head = struct.pack(">II", 0x80010000 | kind, len(name)) + name.encode()
    return lambda seqid: head + struct.pack(">i", seqid + offset) + body


def text(value: str) -> bytes:
    """The result struct of `echo`."""
    return b"\x0b\0\0" + struct.pack(">i", len(value)) + value.encode() + b"\0"


def app_exception(kind: int) -> bytes:
    return b"\x0b\0\1\0\0\0\2no\x08\0\2" + struct.pack(">i", kind) + b"\0"


ECHO = message("echo", text("hello"))


class Scripted(Connection):
    """Plays *steps*, one for each `receive`; a step is bytes, made of the seqid, or is raised."""

    def __init__(self, *steps: Any, send: BaseException | None = None, at_end: bool = True) -> None:
        self.steps = list(steps)
        self.send_error = send
        self.at_end = at_end
        self.fresh = True
        self.closed = 0
        self.sent: list[bytes] = []
        self.ends: list[float] = []
        self.confirmed = 0

    def send(self, message: bytes, end: float) -> None:
        self.replied = False
        self.ends.append(end - time.monotonic())
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)
        name_size = struct.unpack_from(">i", message, 4)[0]
        (self.seqid,) = struct.unpack_from(">i", message, 8 + name_size)

    def receive(self, size: int) -> bytes:
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        self.replied = True
        return step if isinstance(step, bytes) else step(self.seqid)

    def confirm(self) -> None:
        self.confirmed += 1

    def is_at_end(self) -> bool:
        return self.at_end

    def is_fresh(self) -> bool:
        return self.fresh

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A client of `Directory`, whose next connects give or raise what `script` has."""

    def __init__(self, service: Any, *script: Any, **options: Any) -> None:
        self.recorder = MemoryRecorder()
        self.script = list(script)
        self.connects = 0
        self.last_end = 0.0
        options = {
            **{"timeout": 10.0, "connect_timeout": 3.0, "pool_size": 8, "pool_timeout": ...},
            **{"max_idle": 60.0, "max_age": 600.0, "protocol": "binary", "idempotent": ()},
            **{"retries": RetryPolicy(ThriftError, attempts=2, backoff=AT_ONCE, layer="transport")},
            **{"name": "dir", "recorder": self.recorder, "max_message": 1 << 20},
        } | options
        self.client: Any = thrift._Client(service, [Host("a:1", None)], self.connect, **options)

    def connect(self, target: object, end: float) -> Connection:
        self.connects += 1
        self.last_end = end
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        assert isinstance(step, Connection)
        return step

    def results(self) -> dict[str, float]:
        """Of all methods."""
        counted: Counter[str] = Counter()
        for labels, value in self.recorder.series("thrift_client_calls").items():
            counted[labels[2]] += value
        return {result: value for result, value in counted.items() if value}

    @property
    def idle(self) -> int:
        idle = self.client.stats()["hosts"]["a:1"]["idle"]
        assert isinstance(idle, int)
        return idle


@pytest.fixture
def directory(thriftpy: Any) -> Any:
    return thriftpy.service


# The table, row by row: what was not executed is repeated.


def test_a_refused_connect_is_repeated(directory: Any) -> None:
    rig = Rig(directory, ConnectionRefusedError(111, "refused"), Scripted(ECHO))
    assert rig.client.echo("x") == "hello"
    assert rig.connects == 2 and rig.results() == {"ok": 1}


def test_what_never_connects_is_told_so(directory: Any) -> None:
    rig = Rig(directory, *[TimeoutError("timed out")] * 2)
    with pytest.raises(ConnectFailed, match=r"^echo at a:1: no connection \(timed out\); not exec"):
        rig.client.echo("x")
    assert rig.connects == 2 and rig.results() == {"not_sent": 1}


def test_a_full_pool_is_asked_again(directory: Any) -> None:
    rig = Rig(directory, pool_size=1, pool_timeout=0.01)
    pool = rig.client._caller.pool
    pool._slots.take()
    with pytest.raises(PoolExhausted) as exhausted:
        rig.client.echo("x")
    assert exhausted.value.__notes__[0].startswith("retry: gave up after 2 attempts")
    assert rig.results() == {"not_sent": 1}


def test_a_stale_connection_costs_no_attempt(directory: Any) -> None:
    stale = Scripted(ECHO)
    rig = Rig(directory, stale, Scripted(ECHO), retries=ONCE)
    rig.client.echo("x")
    stale.fresh = False

    assert rig.client.echo("x") == "hello"
    assert stale.closed == 1 and len(stale.sent) == 1 and rig.connects == 2


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), TimeoutError("timed out")])
def test_a_request_that_did_not_leave_is_sent_again(directory: Any, error: OSError) -> None:
    broken = Scripted(send=error)
    rig = Rig(directory, broken, Scripted(ECHO))
    assert rig.client.echo("x") == "hello"
    assert broken.closed == 1 and rig.results() == {"ok": 1}

    rig = Rig(directory, *[Scripted(send=error) for _ in range(2)])
    with pytest.raises(RequestNotSent) as not_sent:
        rig.client.echo("x")
    assert not not_sent.value.maybe_executed and not_sent.value.__cause__ is error


# What may have been executed is repeated only if idempotent.

UNKNOWN = {
    "closed before the reply": ([PeerClosed("gone")], OutcomeUnknown, "closed", False),
    "reset before the reply": ([ConnectionResetError(104, "r")], OutcomeUnknown, "closed", False),
    "no reply in time": ([TimeoutError("timed out")], OutcomeUnknown, "timeout", False),
    "closed inside the reply": ([b"\x80\1\0", PeerClosed("gone")], OutcomeUnknown, "cut", True),
    "silent inside the reply": ([b"\x80", TimeoutError("t")], OutcomeUnknown, "timeout", True),
    "another call's": (
        [message("echo", text("x"), offset=-1)],
        *(ProtocolViolation, "another call", True),
    ),
    "another method's": ([message("ping", b"\0")], ProtocolViolation, "another call", True),
    "another's exception": (
        [message("ping", app_exception(6), EXCEPTION)],
        *(ProtocolViolation, "another call", True),
    ),
    "a call": ([message("echo", text("x"), 1)], ProtocolViolation, "of the kind 1", True),
    "not Thrift": ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], ProtocolViolation, "not a reply", True),
    "refused by the transport": ([ReplyRefused("too large")], ProtocolViolation, "too large", True),
    "torn inside": (
        [message("echo", b"\x0b\0\0\xff\xff\xff\xff\0")],
        *(ProtocolViolation, "not a reply", True),
    ),
}


@pytest.mark.parametrize("row", UNKNOWN)
def test_a_call_that_may_have_been_executed_is_not_repeated(
    directory: Any, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    steps, kind, word, logged = UNKNOWN[row]
    connection = Scripted(*steps)
    rig = Rig(directory, connection, Scripted(ECHO), retries=FIVE_TIMES)

    with pytest.raises(kind) as raised:
        rig.client.echo("ALICE")

    assert raised.value.maybe_executed and "may have been executed" in str(raised.value)
    assert word in (getattr(raised.value, "kind", None) or str(raised.value))
    assert "ALICE" not in str(raised.value)
    assert rig.connects == 1 and connection.closed == 1 and rig.results() == {"unknown": 1}
    assert [r.levelno for r in caplog.records] == ([logging.ERROR] if logged else [])


@pytest.mark.parametrize("row", UNKNOWN)
def test_an_idempotent_one_is(directory: Any, row: str) -> None:
    steps, *_ = UNKNOWN[row]
    connection = Scripted(*steps)
    rig = Rig(directory, connection, Scripted(ECHO), idempotent={"echo"})

    assert rig.client.echo("x") == "hello"
    assert rig.connects == 2 and connection.closed == 1 and rig.results() == {"ok": 1}


def test_a_retry_is_another_call_to_the_peer_by_its_bytes(directory: Any) -> None:
    first, second = Scripted(PeerClosed("gone")), Scripted(ECHO, ECHO)
    rig = Rig(directory, first, second, idempotent="all")
    rig.client.echo("x")
    rig.client.echo("x")

    (again, later) = second.sent
    assert first.sent == [again]
    assert later != again and later[:12] == again[:12] and later[16:] == again[16:]


# Never repeated.


@pytest.mark.parametrize("kind", range(11))
def test_an_application_exception_passes_unchanged(thriftpy: Any, kind: int) -> None:
    connection = Scripted(message("echo", app_exception(kind), EXCEPTION))
    rig = Rig(thriftpy.service, connection, retries=FIVE_TIMES, idempotent="all")

    with pytest.raises(thriftpy.application_error) as raised:
        rig.client.echo("x")

    assert (raised.value.type, raised.value.message) == (kind, "no")
    in_step = kind in (0, 1, 5, 6)
    assert rig.connects == 1 and rig.idle == in_step and connection.closed == (not in_step)
    assert rig.results() == {"app_exception": 1}


def test_a_result_without_a_value_is_an_application_exception(thriftpy: Any) -> None:
    rig = Rig(thriftpy.service, Scripted(message("echo", b"\0")))
    with pytest.raises(thriftpy.application_error, match="echo: no result") as raised:
        rig.client.echo("x")
    assert raised.value.type == thriftpy.application_error.MISSING_RESULT and rig.idle == 1


def test_an_exception_of_the_idl_passes_and_keeps_the_connection(thriftpy: Any) -> None:
    missing = b"\x0c\0\1\x0b\0\1\0\0\0\3bob\0\0"
    rig = Rig(thriftpy.service, Scripted(message("forget", missing)), idempotent="all")
    with pytest.raises(thriftpy.types.NotFound) as raised:
        rig.client.forget("bob")
    assert raised.value.key == "bob" and rig.idle == 1 and rig.connects == 1
    assert rig.results() == {"idl_exception": 1}


@pytest.mark.parametrize("step", [[], [b"\x80\1"]])
def test_who_is_killed_is_not_called_again_and_drops_the_connection(
    directory: Any, step: list[bytes]
) -> None:
    connection = Scripted(*step, Killed())
    rig = Rig(directory, connection, retries=FIVE_TIMES, idempotent="all")
    with pytest.raises(Killed):
        rig.client.echo("x")
    assert connection.closed == 1 and rig.connects == 1 and rig.results() == {"cancelled": 1}
    assert rig.client.stats()["hosts"]["a:1"]["in_use"] == 0
    assert len(rig.recorder.observations("thrift_client_seconds", "dir", "echo")) == 1


def test_killed_while_connecting_or_sending(directory: Any) -> None:
    sending = Scripted(send=Killed())
    rig = Rig(directory, Killed(), sending, Scripted(ECHO))
    for _ in range(2):
        with pytest.raises(Killed):
            rig.client.echo("x")
    assert sending.closed == 1 and rig.results() == {"cancelled": 2}
    assert rig.recorder.value("thrift_client_connects", "dir", "cancelled") == 1
    assert rig.client.echo("x") == "hello"


def test_killed_while_a_reply_is_read_to_its_end(directory: Any) -> None:
    class Slow(Scripted):
        def is_at_end(self) -> bool:
            raise Killed

    connection = Slow(ECHO)
    rig = Rig(directory, connection)
    with pytest.raises(Killed):
        rig.client.echo("x")
    assert connection.closed == 1 and rig.results() == {"cancelled": 1}


# Connections after a good reply.


def test_bytes_behind_a_reply_cost_the_connection_alone(directory: Any) -> None:
    for step in ([lambda seqid: ECHO(seqid) + b"!"], [ECHO]):
        connection = Scripted(*step, at_end=len(step) > 1)
        rig = Rig(directory, connection)
        assert rig.client.echo("x") == "hello"
        assert connection.closed == 1 and rig.idle == 0 and rig.results() == {"ok": 1}


def test_oneway_is_done_when_its_bytes_are_gone(directory: Any) -> None:
    connection = Scripted()
    rig = Rig(directory, connection)
    assert rig.client.tell("pssst") is None
    assert connection.sent[0][:4] == b"\x80\1\0\4" and connection.confirmed == 1 and rig.idle == 1


def test_oneway_fails_as_the_transport_says(directory: Any) -> None:
    class NoStatus(Scripted):
        def confirm(self) -> None:
            raise PeerClosed("gone")

    rig = Rig(directory, NoStatus(), Scripted(), retries=FIVE_TIMES)
    with pytest.raises(OutcomeUnknown):
        rig.client.tell("pssst")
    assert rig.connects == 1


# Policies.


def test_a_budget_earns_by_each_call_and_may_refuse(directory: Any) -> None:
    budget = RetryBudget(ratio=0.5, min_per_second=0.0)
    policy = RetryPolicy(ThriftError, attempts=5, backoff=AT_ONCE, budget=budget)
    rig = Rig(directory, OSError("no"), Scripted(ECHO, ECHO), retries=policy)
    with pytest.raises(ConnectFailed):
        rig.client.echo("x")
    assert rig.connects == 1  # half a retry was earned

    for _ in range(2):
        rig.client.echo("x")
    rig.client._caller.pool.close()
    rig = Rig(directory, OSError("no"), Scripted(ECHO), retries=policy)
    assert rig.client.echo("x") == "hello"


def test_the_deadline_of_a_policy_holds_from_the_first_attempt(directory: Any) -> None:
    connection = Scripted(ECHO)
    policy = RetryPolicy(ThriftError, attempts=5, deadline=2.0)
    rig = Rig(directory, connection, retries=policy)
    rig.client.echo("x")
    assert 1.0 < connection.ends[0] <= 2.0


def test_a_policy_sees_attempts_and_names_the_method(
    directory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    policy = RetryPolicy(
        ThriftError,
        attempts=3,
        backoff=AT_ONCE,
        on_retry=lambda state: seen.append(state.number),
    )
    rig = Rig(directory, OSError("no"), OSError("no"), Scripted(ECHO), retries=policy)
    assert rig.client.echo("x") == "hello"
    assert seen == [1, 2]
    assert caplog.records[0].getMessage().startswith("Directory.echo: attempt 1 of 3 failed")


def test_a_policy_cannot_repeat_what_may_have_been_executed_at_a_later_attempt(
    directory: Any,
) -> None:
    for policy in (FIVE_TIMES, RetryPolicy(Exception, attempts=5, backoff=AT_ONCE, deadline=9.0)):
        rig = Rig(directory, OSError("no"), Scripted(PeerClosed("gone")), retries=policy)
        with pytest.raises(OutcomeUnknown):
            rig.client.echo("x")
        assert rig.connects == 2 and rig.results() == {"unknown": 1}


def test_a_policy_for_other_errors_repeats_none_of_these(directory: Any) -> None:
    rig = Rig(directory, OSError("no"), retries=RetryPolicy(KeyError))
    with pytest.raises(ConnectFailed):
        rig.client.echo("x")
    assert rig.connects == 1


def test_retries_give_way_to_those_of_a_transport_above(directory: Any) -> None:
    rig = Rig(directory)
    rig.script = [OSError("no")] * 100
    check_transport_nesting(lambda: rig.client.echo("x"), lambda: rig.connects, on=ConnectFailed)


# Time.


def test_each_attempt_has_the_timeout_and_connecting_one_of_its_own(directory: Any) -> None:
    connection = Scripted(ECHO, ECHO)
    rig = Rig(directory, connection, timeout=7.0, connect_timeout=2.0)
    began = time.monotonic()
    rig.client.echo("x")
    assert 1.9 < rig.last_end - began <= 2.1
    rig.client.call("echo", "x", timeout=1.5)
    assert 6.0 < connection.ends[0] <= 7.0 and 1.0 < connection.ends[1] <= 1.5


def test_none_is_no_limit_but_the_deadline(directory: Any) -> None:
    connection = Scripted(ECHO, ECHO)
    rig = Rig(directory, connection, timeout=None)
    rig.client.echo("x")
    with deadline(5.0):
        rig.client.echo("x")
    assert connection.ends[0] == float("inf") and 4.0 < connection.ends[1] <= 5.0


def test_a_deadline_in_the_middle_says_whether_anything_was_sent(directory: Any) -> None:
    for script, sent in (
        ([Scripted(send=TimeoutError("timed out"))], False),
        ([Scripted(TimeoutError("timed out"))], True),
        ([TimeoutError("timed out")], False),
    ):
        rig = Rig(directory, *script, retries=FIVE_TIMES, idempotent="all")
        with deadline(0.01), pytest.raises(DeadlineExceeded) as exceeded:
            rig.client.echo("x")
        assert exceeded.value.maybe_executed is sent
        assert rig.results() == {"deadline": 1} and rig.connects == 1


def test_a_server_that_accepts_and_says_nothing(directory: Any) -> None:
    class Silent(ThreadedServer):
        def handle(self, connection: Any, peer: Any) -> None:
            while connection.recv(4096):
                pass

    with Silent() as server, ThriftBinClient(directory, f"127.0.0.1:{server.port}") as client:
        check_obeys_deadline(lambda: client.echo("x"))
        check_obeys_deadline(lambda: client.with_options(timeout=None).echo("x"))
        check_obeys_deadline(lambda: client.with_options(timeout=0.2, idempotent="all").echo("x"))


def test_a_full_pool_obeys_the_deadline(directory: Any) -> None:
    rig = Rig(directory, pool_size=1, pool_timeout=None)
    rig.client._caller.pool._slots.take()
    check_obeys_deadline(lambda: rig.client.echo("x"))


# Options.


def test_arguments_come_by_position_or_by_name(directory: Any) -> None:
    connection = Scripted(*[ECHO] * 3)
    rig = Rig(directory, connection)
    rig.client.echo("x")
    rig.client.echo(text="x")
    rig.client.call("echo", text="x")
    assert len({sent[16:] for sent in connection.sent}) == 1


@pytest.mark.parametrize(
    ("args", "kwargs"), [(("a", "b"), {}), ((), {"nope": 1}), (("a",), {"text": "b"})]
)
def test_arguments_that_do_not_fit_send_nothing(
    directory: Any, args: tuple[str, ...], kwargs: dict[str, Any]
) -> None:
    rig = Rig(directory)
    with pytest.raises(TypeError, match=r"^echo\(\) takes \(text\)$"):
        rig.client.echo(*args, **kwargs)
    with pytest.raises(TypeError, match=r"^ping\(\) takes no arguments$"):
        rig.client.ping(*args, **kwargs)
    assert rig.connects == 0 and rig.results() == {"not_sent": 2}


def test_values_that_do_not_fit_send_nothing(directory: Any) -> None:
    rig = Rig(directory, Scripted(message("add", b"\x0a\0\0" + bytes(7) + b"\x05\0")))
    with pytest.raises(Exception, match="number"):
        rig.client.add("not a number")
    assert rig.connects == 0 and rig.results() == {"not_sent": 1}
    assert rig.client.add(1) == 5


def test_options_make_another_client_over_the_same_connections(directory: Any) -> None:
    connection = Scripted(ECHO, ECHO, PeerClosed("gone"))
    rig = Rig(directory, connection, Scripted(ECHO))
    hurried = rig.client.with_options(timeout=0.5, idempotent={"echo"})
    rig.client.echo("x")
    hurried.echo("x")
    assert connection.ends[1] <= 0.5 < connection.ends[0]
    assert hurried.echo("x") == "hello" and rig.connects == 2
    assert hurried.with_options(timeout=1.0)._is_idempotent("echo")
    assert not rig.client._is_idempotent("echo")
    assert hurried.stats()["hosts"]["a:1"]["connects"] == 2
    assert rig.client.stats()["hosts"]["a:1"]["connects"] == 2

    hurried.close()
    assert rig.idle == 1
    rig.client.close()
    with pytest.raises(LogicalError, match="closed"):
        hurried.echo("x")


def test_one_call_may_say_for_itself_that_it_is_idempotent_or_not(directory: Any) -> None:
    rig = Rig(directory, Scripted(PeerClosed("gone")), Scripted(ECHO))
    assert rig.client.call("echo", "x", idempotent=True) == "hello"
    rig = Rig(directory, Scripted(PeerClosed("gone")), idempotent="all")
    with pytest.raises(OutcomeUnknown):
        rig.client.call("echo", "x", idempotent=False)


def test_a_method_the_service_does_not_have(directory: Any) -> None:
    rig = Rig(directory)
    for ask in (lambda: rig.client.nope, lambda: rig.client.call("nope")):
        with pytest.raises(AttributeError, match="Directory has no method 'nope'"):
            ask()
    with pytest.raises(AttributeError, match=r"no _echo; use call\(\)"):
        rig.client._echo("x")
    assert not hasattr(rig.client, "__fspath__")
    assert {"echo", "whoami", "call", "close"} <= set(dir(rig.client))
    assert repr(rig.client) == "<_Client Directory a:1>"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pool_size": 0}, ValueError),
        ({"pool_size": True}, ValueError),
        ({"max_message": 0}, ValueError),
        ({"timeout": -1.0}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"connect_timeout": float("nan")}, ValueError),
        ({"idempotent": "echo"}, TypeError),
        ({"protocol": "json"}, ValueError),
        ({"hosts": []}, ValueError),
        ({"hosts": "nowhere"}, ValueError),
        ({"hosts": "::1:80"}, ValueError),
        ({"hosts": "host:0"}, ValueError),
        ({"hosts": "host:65536"}, ValueError),
        ({"hosts": "host:8²"}, ValueError),
        ({"hosts": ":80"}, ValueError),
        ({"hosts": "unix:"}, ValueError),
        ({"service": object()}, TypeError),
    ],
)
def test_options_that_cannot_be(
    directory: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    service, hosts = options.pop("service", directory), options.pop("hosts", "a:1")
    with pytest.raises(error):
        ThriftBinClient(service, hosts, **options)


# Metrics and errors.


def test_metrics_are_named_by_the_client(directory: Any) -> None:
    rig = Rig(directory, Scripted(ECHO, message("ping", b"\0")), name=None)
    value = rig.recorder.value
    rig.client.echo("x")
    rig.client.ping()

    assert value("thrift_client_calls", "Directory", "echo", "ok") == 1
    assert value("thrift_client_calls", "Directory", "ping", "ok") == 1
    assert len(rig.recorder.observations("thrift_client_seconds", "Directory", "echo")) == 1
    assert value("thrift_client_connects", "Directory", "ok") == 1
    assert value("thrift_client_pool", "Directory", "idle") == 1
    assert value("thrift_client_pool", "Directory", "in_use") == 0
    assert value("thrift_client_pool", "Directory", "waiting") == 0
    rig.client.close()
    assert value("thrift_client_pool", "Directory", "idle") == 0


def test_a_forgotten_client_is_not_kept_by_its_gauges(directory: Any) -> None:
    import gc
    import weakref

    rig = Rig(directory, Scripted(ECHO))
    rig.client.echo("x")
    pool = weakref.ref(rig.client._caller.pool)
    rig.client = None
    gc.collect()
    assert pool() is None
    assert rig.recorder.value("thrift_client_pool", "dir", "idle") == 0


def test_errors_copy_and_read_well() -> None:
    examples = [
        ThriftError("a:1", "echo"),
        PoolExhausted("a:1", "echo", 8, 3.0),
        ConnectFailed("a:1", "echo", "refused"),
        RequestNotSent("a:1", "echo", "broken pipe"),
        OutcomeUnknown("a:1", "echo", "cut", "the connection ended inside the reply"),
        ProtocolViolation("a:1", "echo", "a page"),
        DeadlineExceeded("a:1", "echo", True),
    ]
    check_errors(_thrift_errors, examples=examples)
    executed = {type(error).__name__: error.maybe_executed for error in examples}
    assert [name for name, maybe in executed.items() if not maybe] == [
        *("PoolExhausted", "ConnectFailed", "RequestNotSent")
    ]
    assert str(examples[-1]) == "echo at a:1: deadline exceeded; may have been executed"
    assert isinstance(examples[-1], TimeoutError)
