"""What contenders write about themselves, and who stands in a queue."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kazoo.exceptions import KazooException, NoNodeError
from kazoo.protocol.paths import normpath

from sepelib.zookeeper._contender import check_running
from sepelib.zookeeper._queue import Place, Queue
from sepelib.zookeeper._wait import TimeIsUp, Wait
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperTimeout

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = [
    "Contender",
    "ask",
    "contenders",
    "identifier_of",
    "identity",
    "normal_path",
    "read_places",
]


_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\U0010ffff]")
"""What no server takes in a path: control characters, private ones, those of more than 16 bits."""
_LONGEST = 100_000
"""Bytes of an identifier. A server drops the connection at a request of 1 MiB."""


class Contender(NamedTuple):
    """Who stands in the queue of a lock."""

    identifier: str
    """As given to the lock; `host:pid` when nothing was given."""
    token: int
    """What `fencing_token` is once it holds the lock."""
    session_id: int


def normal_path(path: str, what: str = "lock") -> str:
    """*path* as it is on the server, from the client's root on; ValueError, TypeError."""
    if not isinstance(path, str):
        raise TypeError(f"the path of a {what} is a str, not {type(path).__name__}")
    forbidden = _FORBIDDEN.search(path)
    if forbidden is not None:
        raise ValueError(f"the path of a {what} cannot have {forbidden[0]!a} in it: {path!a}")
    try:
        normal: str = normpath("/" + path)
    except ValueError:  # . or ..
        normal = "/"
    if normal == "/":
        raise ValueError(f"the path of a {what} names a node below the root, {path!r} does not")
    return normal


def identity(identifier: str | None) -> Callable[[str], bytes]:
    """The data of a contender node, a function of its GUID; ValueError, TypeError.

    A given *identifier* is written as kazoo writes it: bare.
    """
    if identifier is not None:
        if not isinstance(identifier, str):
            raise TypeError(f"an identifier is a str, not {type(identifier).__name__}")
        data = identifier.encode()
        if len(data) > _LONGEST:
            raise ValueError(f"an identifier has {_LONGEST} bytes at most, not {len(data)}")
        return lambda guid: data
    host, pid = socket.gethostname(), os.getpid()
    # What is the same each time is encoded once: a lock may be taken a thousand times a second.
    constant = json.dumps({"id": f"{host}:{pid}", "host": host, "pid": pid}).removesuffix("}")

    def description(guid: str) -> bytes:
        start = datetime.now(UTC).isoformat(timespec="milliseconds")
        return f'{constant}, "start": "{start}", "guid": "{guid}"}}'.encode()

    return description


def contenders(client: Client, path: str, queue: Queue, timeout: float | None) -> list[Contender]:
    """Those in the queue at *path*, the holder first; ZookeeperTimeout after *timeout* seconds."""
    found = read_places(client, path, queue, timeout)
    return [Contender(identifier_of(data), s.czxid, s.ephemeralOwner) for _, data, s in found]


def read_places(
    client: Client, path: str, queue: Queue, timeout: float | None, what: str = "lock"
) -> list[tuple[Place, bytes | None, Any]]:
    """The places of *queue* at *path*, in order, each with its data and its stat.

    Those that go meanwhile are left out. ZookeeperTimeout after *timeout* seconds, the client's
    `request_timeout` for None.
    """
    wait = Wait.for_answer(path, timeout, client.request_timeout)
    wait.what = what
    found = []
    try:
        children = ask(client, wait, client.get_children_async(path))[0]
        answers = [
            (place, client.get_async(f"{path}/{place.name}")) for place in queue.order(children)
        ]
        for place, answer in answers:
            try:
                data, stat = ask(client, wait, answer)[0]
            except NoNodeError:
                continue
            found.append((place, data, stat))
    except NoNodeError:
        return []
    except ZookeeperError:
        raise
    except KazooException as e:
        raise ZookeeperError(f"{what} {path}: its contenders cannot be read: {e!r}") from e
    return found


def ask(client: Client, wait: Wait, *results: Any) -> list[Any]:
    """The values of *results*, or the error of the first that has one; ZookeeperTimeout."""
    for result in results:
        result.rawlink(wait.wake)

    def settled() -> bool:
        check_running(client)
        return all(result.ready() for result in results)

    try:
        wait.until(settled)
    except TimeIsUp as e:
        raise ZookeeperTimeout(
            f"{wait.what} {wait.path}: no answer in {wait.waited():.3g} s"
        ) from e
    return [result.get_nowait() for result in results]


def identifier_of(data: bytes | None) -> str:
    """What the data of a contender's node calls it."""
    text = (data or b"").decode(errors="replace")
    if text.startswith("{"):
        try:
            return str(json.loads(text)["id"])
        except (ValueError, KeyError, RecursionError):
            pass
    return text
