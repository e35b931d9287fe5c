"""Requests that kazoo does not know, and what stands on those of its names which are not public.

The others are `_kazoo`, the connection, and `_kazoo_watches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kazoo.exceptions import (
    EXCEPTIONS,
    ConnectionDropped,
    SessionExpiredError,
    SessionMovedError,
    ZookeeperError,
)
from kazoo.protocol.paths import _prefix_root
from kazoo.protocol.serialization import (
    CheckVersion,
    Create,
    Create2,
    Delete,
    MultiHeader,
    PingInstance,
    SetData,
    int_struct,
    long_struct,
    read_string,
    stat_struct,
)
from kazoo.protocol.serialization import Transaction as KazooTransaction
from kazoo.protocol.states import ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

__all__ = [
    "CONTAINER",
    "EPHEMERAL",
    "PING",
    "PING_XID",
    "SEQUENCE",
    "CreateContainer",
    "CreateTTL",
    "Multi",
    "ask",
    "check_version",
    "create",
    "delete",
    "error_of",
    "framed",
    "full_path",
    "heed",
    "set_data",
]

EPHEMERAL, SEQUENCE, CONTAINER, _TTL, _TTL_SEQUENCE = 1, 2, 4, 5, 6  # CreateMode of the server
PING_XID = -2


class CreateContainer(Create2):  # type: ignore[misc]
    """An empty container node is removed by the server, once it has had a child."""

    type = 19


class CreateTTL(NamedTuple):
    """A node that the server removes after *ttl* milliseconds without a change or a child."""

    path: str
    data: bytes
    acl: Any
    flags: int
    ttl: int
    type: int = 21

    def serialize(self) -> bytes:
        plain = Create2(self.path, self.data, self.acl, self.flags).serialize()
        return bytes(plain + long_struct.pack(self.ttl))

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> Any:
        return Create2.deserialize(data, offset)


class Multi(NamedTuple):
    """Several operations, of which all are done or none.

    The answer is read completely: kazoo's parser stops at the types it does not know, and leaves
    out what is empty.
    """

    operations: Sequence[Any]
    type: int = KazooTransaction.type

    def serialize(self) -> bytes:
        return bytes(KazooTransaction(self.operations).serialize())

    def deserialize(self, data: bytes, offset: int) -> list[Any]:
        results: list[Any] = []
        header, offset = MultiHeader.deserialize(data, offset)
        while not header.done:
            result, offset = _RESULTS[header.type](data, offset)
            results.append(result)
            header, offset = MultiHeader.deserialize(data, offset)
        return results


def _path_result(data: bytes, offset: int) -> tuple[Any, int]:
    path, offset = read_string(data, offset)
    return path, offset


def _path_and_stat_result(data: bytes, offset: int) -> tuple[Any, int]:
    path, offset = read_string(data, offset)
    stat, offset = _stat_result(data, offset)
    return (path, stat), offset


def _stat_result(data: bytes, offset: int) -> tuple[Any, int]:
    return ZnodeStat._make(stat_struct.unpack_from(data, offset)), offset + stat_struct.size


def _empty_result(data: bytes, offset: int) -> tuple[Any, int]:
    return True, offset


def _error_result(data: bytes, offset: int) -> tuple[Any, int]:
    (code,) = int_struct.unpack_from(data, offset)
    return error_of(code), offset + int_struct.size


_RESULTS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    -1: _error_result,
    Create.type: _path_result,
    Create2.type: _path_and_stat_result,  # as the server answers the create of a container
    Delete.type: _empty_result,
    SetData.type: _stat_result,
    CheckVersion.type: _empty_result,
}


def full_path(client: Any, path: str, *, trailing: bool = False) -> str:
    """*path* behind the chroot of *client*, normalized; *trailing* keeps a slash at the end."""
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    return str(_prefix_root(client.chroot, path, trailing=trailing))


def ask(client: Any, request: Any) -> Any:
    """Send *request* behind those before it; its result, which fails when it cannot be sent."""
    result = client.handler.async_result()
    client._call(request, result)
    return result


def create(path: str, data: bytes, acl: Any, flags: int, *, ttl: float | None = None) -> Any:
    """The request for a node at the full *path*.

    Answered with its path; with (path, stat) for a container and with a *ttl*.
    """
    acl = acl or OPEN_ACL_UNSAFE
    if ttl is not None:
        flags = _TTL_SEQUENCE if flags & SEQUENCE else _TTL
        return CreateTTL(path, data, acl, flags, round(ttl * 1000))
    if flags == CONTAINER:
        return CreateContainer(path, data, acl, flags)
    return Create(path, data, acl, flags)


delete = Delete
set_data = SetData
check_version = CheckVersion


def error_of(code: int) -> Exception:
    """What the server means by *code*; also that of a newer one, for which kazoo has no class."""
    kind: type[Exception] | None = EXCEPTIONS.get(code)  # EXCEPTIONS[code] fails
    return ZookeeperError(f"error {code}") if kind is None else kind()


def heed(answer: object) -> None:
    """Raise what ends the connection when *answer* says that the session does not live here.

    A follower may have let in a session which its leader has ended: it goes on to answer pings and
    reads, and each write is refused, without an end.
    """
    if isinstance(answer, SessionExpiredError):
        raise answer
    if isinstance(answer, SessionMovedError):
        raise ConnectionDropped("the session has moved to another server")


def framed(request: Any, xid: int | None) -> bytes:
    """*request* as it is sent; without an *xid* that of a hello."""
    body = bytearray()
    if xid is not None:
        body += int_struct.pack(xid)
    if request.type:
        body += int_struct.pack(request.type)
    body += request.serialize()
    return bytes(int_struct.pack(len(body)) + body)


PING = framed(PingInstance, PING_XID)
