"""Who is there: a group of processes that know of each other.     Status: production.

    with Party(client, "/app/replicas", "web1") as party:
        for member in party.members():
            print(member.identifier)
        with party.watch(lambda members: share_out([it.identifier for it in members])):
            ...

A member is one as long as its process wants it: after the end of the session, or when somebody has
deleted its node, it joins again by itself. One that is cut off or dead is a member for the others
until the servers end its session, at the latest one session timeout after they heard of it last.

On the wire this is kazoo's Party, with a node `PATH/<32 hex digits>__party__`: members of both see
each other. kazoo's ShallowParty may not share a path with either.
Metrics: `zk_persistent_made` (path_class) as of a PersistentNode; `zk_party_members` (path_class):
how many a view has seen last.
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import ZnodeStat

from sepelib.zookeeper._call import Call
from sepelib.zookeeper._handler import Lane
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._keeper import Keeper, Life
from sepelib.zookeeper._watch import Watch
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.persistent import PersistentNode
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Member", "Party", "PartyView"]

_MARKER = "__party__"


class Member(NamedTuple):
    """One of a party."""

    identifier: str
    """As given to the Party; `host:pid` when nothing was given. Several may have the same."""
    data: Any
    """As given to the Party."""
    session_id: int
    token: int
    """Of the joining: grows from one to the next, whichever host it is."""


Members = tuple[Member, ...]
"""Those who are there, in the order in which they have joined."""


class Party:
    """The members at *path*, and this process as one of them once it has joined.

    *identifier*: any text; `host:pid` when None. *data*: what else the others are to know of this
    member, anything that JSON can hold. *container*: let the servers remove *path* when nobody is
    there; not where kazoo's parties are used.

    Sharing: for the greenlets of the client's hub; `is_member` for any thread.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        identifier: str | None = None,
        data: Any = None,
        *,
        container: bool = False,
        path_class: str = "",
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "party")
        if identifier is None:
            identifier = f"{socket.gethostname()}:{os.getpid()}"
        self.identifier = identifier
        self._path_class = path_class
        self._node = PersistentNode(
            client,
            f"{self.path}/{uuid.uuid4().hex}{_MARKER}",
            _written(identifier, data),
            container=container,
            path_class=path_class,
        )

    def __repr__(self) -> str:
        joined = " joined" if self.is_member else ""
        return f"<Party {self.path} as {self.identifier!r}{joined}>"

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __iter__(self) -> Iterator[str]:
        """The identifiers of the members, asked of the server; as `members()`."""
        return iter([member.identifier for member in self.members()])

    def __len__(self) -> int:
        """How many members there are, asked of the server; as `members()`."""
        with Call.for_answer(self._client, self.path, "party") as call:
            return len(self._names(call))

    def __bool__(self) -> bool:
        return True  # `if party:` is not a question to the server

    @property
    def is_member(self) -> bool:
        """Whether this one is a member, as far as the session's lease lets one say: local.

        As `PersistentNode.is_present`: the node was seen and is ours. While cut off it is True as
        long as no server can have ended the session.
        """
        return self._node.is_present

    def join(self, timeout: float | None = None) -> bool:
        """Become a member, and stay one until `leave()`; whether it is one by now.

        Waits *timeout* seconds, None: the client's `request_timeout`. When that is over this is
        False, and goes on trying. Struck by anything else meanwhile, it does not join.
        """
        if timeout is None and self._client.request_timeout < math.inf:
            timeout = self._client.request_timeout
        begun = self._node.start()
        try:
            return self._node.wait(timeout)
        except BaseException:
            if begun:
                self._node.stop(0.0)
            raise

    def leave(self, timeout: float = 1.0) -> bool:
        """Be no member any more; whether the servers know. As `PersistentNode.stop()`."""
        return self._node.stop(timeout)

    def members(self, timeout: float | None = None) -> Members:
        """Those who are there, in the order in which they have joined, asked of the server.

        One request for each. ZookeeperTimeout after *timeout* seconds; None: the client's
        `request_timeout`.
        """
        with Call.for_answer(self._client, self.path, "party", timeout) as call:
            return _in_order(_read(call, self._names(call)))

    def watch(self, on_change: Callable[[Members], object] | None = None) -> PartyView:
        """A view that follows the membership until its `stop()`; started already.

        *on_change*(members) is called with what is there first, and after each change.
        """
        view = PartyView(self._client, self.path, on_change, path_class=self._path_class)
        view.start()
        return view

    def _names(self, call: Call) -> list[str]:
        call.read(lambda: self._client.sync_async(self.path))
        try:
            names = call.read(lambda: self._client.get_children_async(self.path))
        except NoNodeError:
            return []
        return [name for name in names if _MARKER in name]


class PartyView(Keeper):
    """Follows the membership of the party at *path*, from `start()` to `stop()`.

    *on_change*(members) is called in a greenlet of its own, never twice at once, with what is there
    first and whenever that is another; of several changes that came meanwhile with the last only,
    and never with an older state after a newer one. What it raises is logged.
    A view need not be of a member.
    """

    _WHAT = "party"

    def __init__(
        self,
        client: Client,
        path: str,
        on_change: Callable[[Members], object] | None = None,
        *,
        path_class: str = "",
    ) -> None:
        super().__init__(client, path)
        self._on_change = on_change
        self._lane = Lane()
        self._members: Members | None = None
        self._told: Members | None = None
        self._looked = False
        self._watch: Watch | None = None
        self._epoch = 0
        self._seen = _Seen()
        self._gauge = self._client.recorder.gauge(
            "zk_party_members", "Members that a view has seen last.", ("path_class",)
        ).labels(path_class)

    @property
    def members(self) -> Members:
        """Those seen last, in the order in which they have joined; none before the first look."""
        return self._members or ()

    @property
    def is_current(self) -> bool:
        """Whether `members` are those that are there, as far as the server has told: local.

        False before the first look, without a connection, and while a change is being read.
        """
        watch = self._watch  # fired as soon as it is of no use any more
        return (
            watch is not None
            and not watch.fired
            and self._session.state is SessionState.CONNECTED
            and self._session.holds(self._epoch)
        )

    def wait(
        self,
        condition: Callable[[Members], object] = lambda members: True,
        timeout: float | None = None,
    ) -> bool:
        """Wait until `is_current` and *condition*(members); False after *timeout* seconds."""
        return self._await(timeout, lambda: self.is_current and condition(self.members))

    # In the greenlet.

    def _go_on(self, call: Call) -> None:
        self._told = None
        self._epoch = 0
        super()._go_on(call)

    def _step(self, call: Call) -> bool:
        if self._life is not Life.ON:
            return False
        if self._epoch != self._session.epoch:
            # A new session may be with a server that knows less than the former one did.
            call.read(lambda: self._client.sync_async(self.path))
            self._epoch = self._session.epoch
        try:
            with call.watch(self.path, "listing") as watch:
                names, stat = watch.value
                known = self._seen.still_known(names, stat)
                self._follow(call, watch, _Seen(names, stat, _read(call, names, known)))
        except NoNodeError:
            with call.watch(self.path, "exists") as watch:
                if watch.value is None:
                    self._follow(call, watch, _Seen())
        return True

    def _follow(self, call: Call, watch: Watch, seen: _Seen) -> None:
        """*seen* is what is there until *watch* fires."""
        if not self._session.holds(self._epoch):
            return
        self._seen = seen
        self._looked = True
        self._members = _in_order(seen.members)
        self._watch = watch
        self._gauge.set(len(self._members))
        self._changed()
        self._post()
        self._until(call, lambda: watch.fired or self._life is not Life.ON)

    def _move(self, life: Life) -> None:
        if life is Life.ON and self._life is not Life.ENDING:
            self._looked = False  # what a former run has seen is not told in this one
        super()._move(life)
        self._post()  # what has come while it was ending, and goes on

    def _post(self) -> None:
        if self._on_change is not None and self._members != self._told:
            self._lane.post(self._tell, f"on_change of party {self.path}", self.path)

    def _tell(self) -> None:
        members = self._members
        may = self._looked and self._life is Life.ON
        if may and members is not None and members != self._told:
            self._told = members
            assert self._on_change is not None
            self._on_change(members)


class _Seen:
    """One look at all children; those of them which are members by their names."""

    def __init__(
        self,
        names: Iterable[str] = (),
        stat: ZnodeStat | None = None,
        members: Mapping[str, Member] = MappingProxyType({}),
    ) -> None:
        self._names = frozenset(names)
        self._stat = stat
        self.members = members

    def still_known(self, names: Iterable[str], stat: ZnodeStat) -> Mapping[str, Member]:
        """The members that need not be read again, now that there are *names*.

        All, or none if one may have gone and come again unseen: each coming and going is one step
        of the server's counter.
        """
        before = self._stat
        if before is None or before.czxid != stat.czxid:
            return {}
        steps = len(self._names.symmetric_difference(names))
        return self.members if stat.cversion - before.cversion == steps else {}


def _read(
    call: Call, names: Iterable[str], known: Mapping[str, Member] = MappingProxyType({})
) -> dict[str, Member]:
    """The members among *names* who are still there; those not *known* are asked for at once."""
    members = {name: known.get(name) for name in names if _MARKER in name}
    asked = {
        name: call.client.get_async(f"{call.path}/{name}")
        for name, member in members.items()
        if member is None
    }
    for name in list(asked):

        def ask(name: str = name) -> Any:
            return asked.pop(name, None) or call.client.get_async(f"{call.path}/{name}")

        try:
            data, stat = call.read(ask)
        except NoNodeError:
            continue
        members[name] = Member(*_understood(data), stat.ephemeralOwner, stat.czxid)
    return {name: member for name, member in members.items() if member is not None}


def _in_order(members: Mapping[str, Member]) -> Members:
    return tuple(sorted(members.values(), key=lambda member: member.token))


def _written(identifier: str, data: Any) -> bytes:
    """Bare, as kazoo does, unless there is more to say or it would be taken for that."""
    if not isinstance(identifier, str):
        raise TypeError(f"an identifier is a str, not {type(identifier).__name__}")
    if data is None and not identifier.startswith("{"):
        try:
            return identifier.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            pass
    return json.dumps({"id": identifier, "data": data}, allow_nan=False).encode()


def _understood(data: bytes | None) -> tuple[str, Any]:
    text = (data or b"").decode(errors="replace")
    if text.startswith("{"):
        try:
            told = json.loads(text)
            return str(told["id"]), told.get("data")
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
    return text, None
