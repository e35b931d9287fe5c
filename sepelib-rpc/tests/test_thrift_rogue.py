"""Replies that claim to hold gigabytes, or are nested without end: refused for what they claim."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sepelib.rpc.thrift import ProtocolViolation, ThriftError

TWO_GIB = (1 << 31) - 1
METHODS = {"string": "echo", "list": "many", "set": "numbers", "map": "counters"}
ARGUMENTS: dict[str, tuple[Any, ...]] = {"echo": ("x",), "many": (1,)}


@contextlib.contextmanager
def no_more_memory_than(extra: int) -> Iterator[None]:
    """AssertionError if the process has had *extra* bytes more in memory at any moment.

    Memory that is asked for and never touched does not count.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = _peak()
    yield
    assert _peak() - before < extra


def _peak() -> int:
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def call(client: Any, method: str) -> Any:
    return client.call(method, *ARGUMENTS.get(method, ()))


def refused(client: Any, method: str) -> ProtocolViolation:
    with pytest.raises(ProtocolViolation) as violation:
        call(client, method)
    return violation.value


def test_the_limit_of_these_tests_holds() -> None:
    with pytest.raises(AssertionError), no_more_memory_than(64 << 20):
        bytearray(100 << 20)
    with no_more_memory_than(64 << 20):
        bytearray(1 << 20)


@pytest.mark.parametrize("served", ["framed", "compact", "http"], indirect=True)
@pytest.mark.parametrize("claim", [TWO_GIB, 17 << 20, 15 << 20, 2000])
@pytest.mark.parametrize("rogue", METHODS)
def test_what_claims_more_than_its_message_is_refused(served: Any, rogue: str, claim: int) -> None:
    client = served.client()
    served.server.rogue(rogue, claim)
    with no_more_memory_than(64 << 20):
        # At once: the connection stays open, and the rest of the claim never comes.
        refused(client, METHODS[rogue])
    assert client.echo("bob") == "bob"
    assert served.server.connections.accepted == 2 and len(served.executed) == 2


@pytest.mark.parametrize("served", ["buffered"], indirect=True)
@pytest.mark.parametrize("claim", [TWO_GIB, 17 << 20, 15 << 20])
@pytest.mark.parametrize("rogue", METHODS)
def test_where_nothing_says_how_long_a_message_is_a_claim_costs_time_but_no_memory(
    served: Any, rogue: str, claim: int
) -> None:
    client = served.client()
    served.server.rogue(rogue, claim)
    with no_more_memory_than(64 << 20), pytest.raises(ThriftError) as error:
        client.call(METHODS[rogue], *ARGUMENTS.get(METHODS[rogue], ()), timeout=0.1)
    if rogue == "string" and claim == TWO_GIB:
        assert isinstance(error.value, ProtocolViolation)
    assert client.echo("bob") == "bob"
    assert served.server.connections.accepted == 2 and len(served.executed) == 2


@pytest.mark.parametrize("rogue", METHODS)
def test_a_claim_in_a_field_of_another_type_takes_no_memory_either(served: Any, rogue: str) -> None:
    client = served.client(timeout=0.1 if served.server.transport == "buffered" else 10.0)
    with no_more_memory_than(64 << 20):
        for method in ("ping", "many" if rogue == "string" else "echo"):
            served.server.rogue(rogue)
            with pytest.raises(ThriftError):
                call(client, method)


@pytest.mark.parametrize("served", ["framed", "compact", "http"], indirect=True)
@pytest.mark.parametrize("rogue", METHODS)
def test_a_negative_length_is_refused_or_nothing(served: Any, rogue: str) -> None:
    client = served.client()
    served.server.rogue(rogue, 0xFFFFFFFF)
    with contextlib.suppress(ProtocolViolation):
        # thriftpy2's codec in Cython takes a container of -1 items for an empty one.
        assert not call(client, METHODS[rogue]) and rogue != "string"
    assert client.echo("bob") == "bob"
    assert served.server.connections.accepted == 2


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_what_is_nested_without_end_is_refused(served: Any, levels: int) -> None:
    client = served.client()
    served.server.rogue("depth", levels)
    violation = refused(client, "echo")
    assert "\n" not in str(violation)
    assert client.echo("bob") == "bob"


@pytest.mark.parametrize("served", ["framed", "compact"], indirect=True)
@pytest.mark.parametrize("length", [0, 16 << 20 | 1, TWO_GIB, 0x80000000, 0xFFFFFFFF])
def test_a_frame_of_a_rogue_length_is_refused_before_it_is_read(served: Any, length: int) -> None:
    client = served.client()
    served.server.garbage(length.to_bytes(4, "big") + b"x")
    with no_more_memory_than(64 << 20):
        refused(client, "echo")
    assert client.echo("bob") == "bob"


def test_a_message_over_max_message_is_refused_and_one_below_is_not(served: Any) -> None:
    client = served.client(max_message=100_000)
    assert client.echo("x" * 99_000) == "x" * 99_000
    with pytest.raises(ProtocolViolation, match="max_message"):
        client.echo("x" * 100_000)
    assert client.echo("bob") == "bob"
