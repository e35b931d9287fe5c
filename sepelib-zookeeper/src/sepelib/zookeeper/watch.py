"""Callbacks that are told what is so at a node, over whatever happens to node and connection.

    @DataWatch(client, "/config")
    def reload(data, stat):             # (None, None): there is no such node
        ...

    workers = ChildrenWatch(client, "/workers", rebalance)     # rebalance(["a", "b"]) or (None)
    ...
    workers.stop()

They tell states, not events: first the present one, then each that differs from what was told last.
While a callback runs, or the connection is away, changes may add up to one; the last state always
arrives. No state is older than one told before.

A watch goes on when the node is deleted and made again, when the session expires, when the client
is stopped and started, and whatever a callback raises: that is logged. It ends when the callback
returns False, or by `stop()`, and leaves nothing behind on the server then.

Errors: a node that may not be read is told of in the log once, and asked for again until it may.
Servers do not tell of changes to one that becomes unreadable while it is watched, and forget the
watch: then nothing more is told until the next reconnect.

Sharing: for the greenlets of the client's hub; `stop()` for any thread. Nothing here waits but
`wait()`. The callback runs in a greenlet of its own, never twice at once, and may do as it likes.
Any number of watches may share a path, and kazoo's clients may change it.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import DEBUG, WARNING, getLogger
from typing import Any, ClassVar, TypeVar

import gevent
import gevent.event
from kazoo.exceptions import NoNodeError
from kazoo.protocol.paths import normpath
from kazoo.protocol.states import ZnodeStat

from sepelib.zookeeper._contender import UNANSWERED
from sepelib.zookeeper._handler import name_of
from sepelib.zookeeper._watch import Ask, Watch
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import ZookeeperMisused
from sepelib.zookeeper.session import SessionState

__all__ = ["ChildrenWatch", "DataWatch"]

_log = getLogger(__name__)

_FIRST_DELAY, _MAX_DELAY = 0.5, 30.0
"""Seconds between two tries to read what the server refuses to show."""

_NOTHING = object()  # was told so far

F = TypeVar("F", bound=Callable[..., object])


def checked_path(path: str) -> str:
    """*path* from the client's root on, without a slash at its end; ValueError, TypeError."""
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    normal: str = normpath("/" + path)
    if "\0" in normal:
        raise ValueError(f"no path has a NUL: {path!r}")
    return normal


class Recency:
    """What lets a reader see nothing that is older than what it has seen.

    Servers that are behind what a client has seen refuse it; but one with a new session has
    forgotten what that was.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path
        self._session_id = 0

    def ensure(self) -> None:
        """Let what is asked for from now on, over this connection, be as new. Never waits."""
        session_id = self._client.session.session_id
        if self._session_id == 0:  # nothing was seen
            self._session_id = session_id
        elif self._session_id != session_id:

            def note(sync: Any) -> None:
                if sync.successful():
                    self._session_id = session_id

            self._client.sync_async(self._path).rawlink(note)


class _StateWatch:
    """What both watches are: each look reads the state and sets a watch, for the next look."""

    _WHAT: ClassVar[str]
    _READ: ClassVar[Ask]
    _MISSING: ClassVar[tuple[Any, ...]]
    """The arguments of the callback when there is no node."""

    def __init__(
        self, client: Client, path: str, callback: Callable[..., object] | None = None
    ) -> None:
        self._client = client_of(client)
        self._client.check_thread(f"a {self._WHAT}")
        self.path = checked_path(path)
        self._loop = gevent.get_hub().loop
        self._ended = gevent.event.Event()
        self._told_once = gevent.event.Event()
        self._callback: Callable[..., object] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._watch: Watch | None = None
        self._asking = False
        self._delay = _FIRST_DELAY
        self._seen: tuple[object, tuple[Any, ...]] = (_NOTHING, ())
        self._told: object = _NOTHING
        self._recency = Recency(self._client, self.path)
        self._timer: Any = None
        if callback is not None:
            self._begin(callback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' stopped' if self.stopped else ''}>"

    def __call__(self, callback: F) -> F:
        """Watch with *callback*, and give it back: for use as a decorator, once."""
        self._client.check_thread(f"a {self._WHAT}")
        self._begin(callback)
        return callback

    @property
    def stopped(self) -> bool:
        """Whether the callback is not called any more."""
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the callback has returned for the first time; False after *timeout* seconds.

        Also True when it has raised, or when the watch was stopped before.
        """
        return self._told_once.wait(timeout)

    def stop(self) -> None:
        """Call the callback no more, and take the watch off the server. Never waits; idempotent.

        A call that has begun comes to its end.
        """
        try:
            self._client.check_thread("")
        except ZookeeperMisused:
            self._loop.run_callback_threadsafe(self._end)
        else:
            self._end()

    def _begin(self, callback: Callable[..., object]) -> None:
        if not callable(callback):
            raise TypeError(f"a callback is callable, {callback!r} is not")
        if self._callback is not None:
            raise ZookeeperMisused(f"{self._WHAT} {self.path} has a callback already")
        self._callback = callback
        self._unsubscribe = self._client.session.subscribe(self._look)
        self._look()

    def _end(self) -> None:
        self._ended.set()
        self._told_once.set()
        self._unsubscribe()
        if self._watch is not None:
            self._watch.remove()
        self._drop_timer()

    # All below is called in the hub, or by whoever reads the connection, and must not wait. There
    # is no greenlet to be killed by somebody who kills all those he finds.

    def _look(self) -> None:
        """Read, if that may bring something new."""
        watched = self._watch is not None and not self._watch.fired
        connected = self._client.session.state is SessionState.CONNECTED
        if watched or self._asking or self.stopped or not connected:
            return
        self._recency.ensure()
        self._ask(self._READ)

    def _ask(self, what: Ask) -> None:
        self._asking = True
        watch = self._watch = Watch(self._client, self.path, self._look, what)
        watch.answer.rawlink(lambda _: self._note(watch, what))

    def _note(self, watch: Watch, what: Ask) -> None:
        self._asking = False
        if self.stopped:
            return
        try:
            value = watch.value
        except NoNodeError:
            watch.fired = True  # it was not set
            self._ask("exists")
        except UNANSWERED:
            if self._client.session.state is SessionState.CONNECTED:
                watch.remove()  # the answer may be late, and set it
            watch.fired = True
            self._look()
        except Exception as error:
            watch.fired = True
            self._try_later(error)
        else:
            self._delay = _FIRST_DELAY
            self._drop_timer()
            if value is None:
                self._see(None, self._MISSING)
            elif what == "exists":  # made in between
                watch.remove()
            else:
                self._see(*self._state(value))
            self._look()

    def _state(self, value: Any) -> tuple[object, tuple[Any, ...]]:
        """What tells this state from others, and the arguments of the callback."""
        raise NotImplementedError

    def _try_later(self, error: Exception) -> None:
        if self._timer is not None:  # of a try before a reconnect
            return
        _log.log(
            WARNING if self._delay == _FIRST_DELAY else DEBUG,
            "%s %s cannot be read, and is tried again: %r",
            self._WHAT,
            self.path,
            error,
            extra={"path": self.path},
        )
        self._timer = self._loop.timer(self._delay)
        self._timer.start(self._try_again)
        self._delay = min(2 * self._delay, _MAX_DELAY)

    def _try_again(self) -> None:
        self._drop_timer()
        self._look()

    def _drop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()

    def _see(self, key: object, arguments: tuple[Any, ...]) -> None:
        self._seen = key, arguments
        what = f"the callback {name_of(self._callback)} of {self._WHAT} {self.path}"
        self._client.handler.post(self, self._tell, what, self.path)

    def _tell(self) -> None:
        key, arguments = self._seen
        if self.stopped or key == self._told or self._callback is None:
            return
        self._told = key
        try:
            if self._callback(*arguments) is False:
                self.stop()
        finally:
            self._told_once.set()


class DataWatch(_StateWatch):
    """Calls *callback*(data, stat) for each state of a node's data; (None, None) is no node.

    A node that was deleted and made again meanwhile is another state, whatever its data. Without
    *callback* the watch begins when it is called with one, as a decorator is.
    """

    _WHAT = "data watch"
    _READ = "get"
    _MISSING = (None, None)

    def __init__(
        self,
        client: Client,
        path: str,
        callback: Callable[[bytes | None, ZnodeStat | None], object] | None = None,
    ) -> None:
        super().__init__(client, path, callback)

    def _state(self, value: Any) -> tuple[object, tuple[Any, ...]]:
        data, stat = value
        return stat.mzxid, (data, stat)


class ChildrenWatch(_StateWatch):
    """Calls *callback*(children) for each set of children, names in order; None is no node.

    A child that was deleted and made again meanwhile is another state of the same names. Without
    *callback* the watch begins when it is called with one, as a decorator is.
    """

    _WHAT = "children watch"
    _READ = "listing"
    _MISSING = (None,)

    def __init__(
        self,
        client: Client,
        path: str,
        callback: Callable[[list[str] | None], object] | None = None,
    ) -> None:
        super().__init__(client, path, callback)

    def _state(self, value: Any) -> tuple[object, tuple[Any, ...]]:
        children, stat = value
        return stat.pzxid, (sorted(children),)
