"""A client of ZooKeeper whose session, requests and stop keep their word.

    with Client("zk1:2181,zk2:2181/myapp", timeout=10.0) as client:
        client.create("/config", b"", makepath=True)
        client.session.add_listener(tell)

It is kazoo's client, with its names, signatures and errors. What differs: `session` knows when the
session is lost; every request ends within `request_timeout`, whatever the connection does;
`start()` raises an Exception, `stop()` ends soon and is legal everywhere. Recipes as attributes
(`client.Lock`) are kazoo's own too: those which know the session are `sepelib.zookeeper.Lock` etc.

Sharing: for the greenlets of one hub. From other threads `stop()`, `close()` and what `session`
allows; all else raises ZookeeperMisused there, and in a forked process.
"""

from __future__ import annotations

import os
from logging import getLogger
from typing import Any, Self

import gevent
import gevent.event
import gevent.monkey
from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    SessionExpiredError,
)
from kazoo.protocol.states import KeeperState

from sepelib.util.deadline import DeadlineExceeded, clip, deadline
from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.zookeeper._beat import Beat
from sepelib.zookeeper._handler import Handler, ListenersMixin
from sepelib.zookeeper._janitor import Janitor
from sepelib.zookeeper._kazoo import Connection
from sepelib.zookeeper._log import QuietLogger
from sepelib.zookeeper._meters import RequestMeters, SessionMeters, described
from sepelib.zookeeper._requests import RequestsMixin
from sepelib.zookeeper._result import Bounds, Result
from sepelib.zookeeper.errors import SessionLost, ZookeeperMisused, ZookeeperTimeout
from sepelib.zookeeper.session import Session, clock

__all__ = ["Client", "client_of"]

_log = getLogger(__name__)

# Native under gevent too: there the patched one names greenlets.
_get_ident = gevent.monkey.get_original("_thread", "get_ident")
_allocate_lock = gevent.monkey.get_original("_thread", "allocate_lock")

_REFUSED: dict[str, type[Exception]] = {
    KeeperState.AUTH_FAILED: AuthFailedError,
    KeeperState.CLOSED: ConnectionClosedError,
    KeeperState.EXPIRED_SESSION: SessionLost,
}
_KILL_TIME = 3.0
_LONGEST_SESSION = 0x7FFFFFFF / 1000  # seconds: the protocol has 31 bits of milliseconds


class Client(ListenersMixin, RequestsMixin, KazooClient):  # type: ignore[misc]
    """Not connected until `start()`, or the entry of a `with`.

    *hosts* as kazoo takes them, a chroot at the end. *timeout*: T of the session, in seconds, to be
    negotiated with the server. *request_timeout*: what each request is given, also while there is
    no connection; None is T, `math.inf` no limit. *options* are kazoo's, but for `handler`.
    """

    _connection: Connection

    def __init__(
        self,
        hosts: str = "127.0.0.1:2181",
        timeout: float = 10.0,
        *,
        request_timeout: float | None = None,
        recorder: Recorder = AMBIENT,
        **options: Any,
    ) -> None:
        if not 0 < timeout <= _LONGEST_SESSION:
            raise ValueError(f"a session's timeout is positive, 24 days at most, not {timeout!r}")
        if request_timeout is not None and request_timeout <= 0:
            raise ValueError(f"a request timeout is positive, not {request_timeout!r}")
        if "handler" in options:
            raise TypeError("a Client brings its own handler")
        self.recorder = recorder
        self.session = Session()
        self._meters = RequestMeters(recorder)
        self._failure: Exception | None = None  # of what has ended the attempts to connect
        self._session_meters = SessionMeters(recorder)
        self._request_timeout = request_timeout
        self._bounds = Bounds()
        self._hub = gevent.get_hub()
        self._thread = _get_ident()
        self._pid = os.getpid()
        self._ending: Any = None
        self._create_request: Any = None
        self._beat = Beat(self._hub, self._run_beat)
        handler = Handler(recorder)
        limit = timeout if request_timeout is None else request_timeout
        longest = min(1.0, timeout / 4)
        sleep = handler.sleep_func
        options = {
            "connection_retry": {
                "max_tries": -1,
                "delay": min(0.05, longest),
                "max_delay": longest,
                "sleep_func": sleep,
            },
            "command_retry": {
                "max_tries": -1,
                "delay": min(0.05, longest),
                "max_delay": longest,
                "deadline": limit,
                "sleep_func": sleep,
            },
            **options,
            "logger": QuietLogger(options.get("logger") or _log),
        }
        # kazoo's connection is replaced below; it has the options that no attribute keeps.
        super().__init__(hosts, timeout, handler=handler, **options)
        self._connection = Connection(
            self,
            self._connection.retry_sleeper,
            logger=self.logger,
            sasl_options=self._connection.sasl_options,
        )
        self.retry = self._run_retry
        self._janitor = Janitor(self)

    def __repr__(self) -> str:
        return f"<Client of {self._hosts_text()}: {self.session!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def request_timeout(self) -> float:
        """Seconds that each request is given."""
        if self._request_timeout is not None:
            return self._request_timeout
        return self.session.timeout or self._session_timeout / 1000

    @property
    def client_state(self) -> Any:
        """kazoo's KeeperState; CLOSED from the call of `stop()` on."""
        return KeeperState.CLOSED if self._stopped.is_set() else self._state

    def check_thread(self, what: str) -> None:
        """Raise ZookeeperMisused where *what* cannot work: another thread, a forked process."""
        if _get_ident() != self._thread:
            raise ZookeeperMisused(
                f"{what} belongs to the thread that made the client: another one hands its work "
                "over to a greenlet there"
            )
        if os.getpid() != self._pid:
            raise ZookeeperMisused(
                f"{what} belongs to process {self._pid}, which made the client: a forked process "
                "makes its own"
            )

    # Start and stop.

    def start(self, timeout: float | None = 15.0) -> None:
        """Connect. What does not succeed leaves nothing running.

        ZookeeperTimeout after *timeout* seconds or with the current deadline; kazoo's
        AuthFailedError at once.
        """
        self.check_thread("start()")
        try:
            limit = clip(timeout)
        except DeadlineExceeded as error:
            raise ZookeeperTimeout(f"not connected: {error}", maybe_executed=False) from error
        try:
            with deadline(limit):
                self.start_async()
                self._wait_until_connected(limit)
        except BaseException:
            self.stop()
            raise

    def start_async(self) -> Any:
        """Begin to connect; the event that is set while there is a connection."""
        self.check_thread("start()")
        routine = self._connection.routine
        if routine is not None and routine.dead:
            self.stop()
        self._join_ending()
        if self._ending is not None and not self._ending.dead:
            raise ZookeeperMisused("start() came where it cannot wait for the end of a stop()")
        if self._stopped.is_set():
            self._ending = None
            self._failure = None
            self._stopped.clear()
            self._writer_stopped.clear()
            self._session_meters.start(self.session)
            self.handler.start()
            self._beat.start()
            self._connection.start()
            # Requests may come now, and wait for the connection.
            self._session_callback(KeeperState.CONNECTING)
        return self._live

    def stop(self) -> None:
        """End the session, within seconds; its ephemerals are gone then if the server was reached.

        Legal everywhere, and any number of times: in callbacks and listeners, in other threads,
        before `start()`. Where waiting is impossible (inside of the hub) the end has begun when
        this returns.
        """
        if os.getpid() != self._pid:
            self._connection.abandon()
        elif _get_ident() != self._thread:
            self._stop_from_thread()
        else:
            self._stop_here()

    def close(self) -> None:
        """As `stop()`: nothing else is left to free."""
        self.stop()

    def _wait_until_connected(self, timeout: float | None) -> None:
        routine = self._connection.routine
        # What is returned tells, and not `is_set()`: the connection may be lost again by now.
        ready = gevent.wait([self._live, routine], timeout, count=1)
        if self._live in ready:
            self._look_for_chroot()
        elif ready:
            raise self._refusal()
        else:
            raise ZookeeperTimeout(
                f"no connection to {self._hosts_text()} within {timeout:.3g} s: "
                f"{self._connection.trouble or 'no answer yet'}",
                maybe_executed=False,
            )

    def _look_for_chroot(self) -> None:
        try:
            if self.chroot and not self.exists("/"):
                _log.warning("the chroot %s does not exist: make it before use", self.chroot)
        except (ConnectionLoss, SessionExpiredError):
            pass  # connected it was; the next request tells

    def _stop_here(self) -> None:
        if self._stopped.is_set():
            self._join_ending()
            return
        self._stopped.set()
        # Before the request for it leaves: once that is done, others have what we held.
        self.session._ended("closed")
        # In a greenlet of its own: whatever happens to the caller, it comes to its end.
        self._ending = gevent.spawn(self._end)
        try:
            self._join_ending()
        finally:
            self.handler.stop()  # here, where it sees which callback is the caller

    def _end(self) -> None:
        try:
            self._connection.stop(min(self.session.timeout / 2, 2.0))
        finally:
            self._beat.stop()
            self._session_meters.stop()

    def _join_ending(self) -> None:
        ending = self._ending
        here = gevent.getcurrent()
        if ending is not None and here not in (ending, self._hub, self._connection.routine):
            ending.join(timeout=2.0 + _KILL_TIME)

    def _stop_from_thread(self) -> None:
        ended = _allocate_lock()
        ended.acquire()

        def end() -> None:
            try:
                self.stop()
            finally:
                ended.release()

        self._hub.loop.run_callback_threadsafe(gevent.spawn, end)
        ended.acquire(timeout=2.0 + 2 * _KILL_TIME)

    def _hosts_text(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.hosts)

    # Requests.

    def create_async(
        self,
        path: str,
        value: bytes = b"",
        acl: Any = None,
        ephemeral: bool = False,
        sequence: bool = False,
        makepath: bool = False,
        include_data: bool = False,
    ) -> Any:
        """As kazoo's."""
        self._create_request = None
        result = super().create_async(path, value, acl, ephemeral, sequence, makepath, include_data)
        if makepath:
            return self._bound(result, "create", path)
        result.behind = self._create_request
        return result

    def _create_async_inner(self, *args: Any, **kwargs: Any) -> Any:
        # kazoo's result of a create is one that waits for the request's.
        self._create_request = super()._create_async_inner(*args, **kwargs)
        return self._create_request

    def ensure_path_async(self, path: str, acl: Any = None) -> Any:
        """As kazoo's."""
        return self._bound(super().ensure_path_async(path, acl), "ensure_path", path)

    def _bound(self, result: Result, what: str, path: str) -> Result:
        """Let several requests have the time of one."""
        limit = self.request_timeout

        def error() -> ZookeeperTimeout:
            return ZookeeperTimeout(f"{what} {path}: not done within {limit:.3g} s")

        self._bounds.add(clock() + limit, result, error)
        return result

    def _call(self, request: Any, async_object: Result) -> bool | None:
        self.check_thread("a client")
        async_object.request = request
        if self._state in _REFUSED or self._stopped.is_set():
            async_object.set_exception(self._refusal())
            return False
        now = clock()
        async_object.began = now
        bound = now + self.request_timeout
        self._bounds.add(bound, async_object, lambda: self._timed_out(request, async_object))
        self._beat.by(bound)
        self._queue.append((request, async_object))
        self._connection.flush()
        return None

    def _refusal(self) -> Exception:
        """Why there will be no connection, or none of this session."""
        if self._failure is not None:
            return self._failure
        state: str = self.client_state
        text = state.lower().replace("_", " ")
        kind: type[Exception] = _REFUSED.get(state, ConnectionClosedError)
        return kind(f"not connected to {self._hosts_text()}: the client is {text}")

    def _timed_out(self, request: Any, result: Result) -> ZookeeperTimeout:
        self._meters.unanswered(request.type, "timeout")
        waited = clock() - result.began
        if result.sent is None:
            reason = f"not sent within {waited:.3g} s: no connection to {self._hosts_text()}"
        else:
            reason = f"no answer within {waited:.3g} s from {self._hosts_text()}"
        sent = result.sent is not None
        return ZookeeperTimeout(f"{described(request)}: {reason}", maybe_executed=sent)

    def _run_retry(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """kazoo's, within the current deadline too."""
        attempts = self._retry.copy()
        try:
            attempts.deadline = clip(attempts.deadline)
        except DeadlineExceeded as error:
            raise ZookeeperTimeout(f"not tried: {error}", maybe_executed=False) from error
        return attempts(func, *args, **kwargs)

    def _notify_pending(self, state: Any) -> None:
        kind = _REFUSED.get(state, ConnectionLoss)
        ended = [entry[:2] for entry in self._pending] + list(self._queue)
        self._pending.clear()
        self._queue.clear()
        for request, result in ended:
            if not result.ready():
                self._meters.unanswered(request.type, "lost")
                fate = "no answer came before the end of" if result.sent else "not sent before"
                connection = f"the connection to {self._hosts_text()}"
                result.set_exception(kind(f"{described(request)}: {fate} {connection}"))

    # What the connection tells.

    def _run_beat(self, now: float) -> float:
        self.session._passed(now)
        return min(self.session.due, self._connection.beat(now), self._bounds.sweep(now))

    def _session_callback(self, state: Any) -> None:
        if not self._stopped.is_set():  # That was the session's end.
            self._tell_session(state)
        super()._session_callback(state)

    def _tell_session(self, state: Any) -> None:
        session = self.session
        if state == KeeperState.CONNECTED:
            if session.epoch:
                self._session_meters.reconnects.inc()
            connection = self._connection
            session._connected(self._session_id, connection.timeout, connection.connect_sent)
        elif state == KeeperState.CONNECTING:
            session._disconnected(self._connection.trouble)
        elif state == KeeperState.CONNECTED_RO:
            session._disconnected("the server is read-only")
        elif state == KeeperState.EXPIRED_SESSION:
            session._ended("expired, says the server")
        elif state == KeeperState.AUTH_FAILED:
            session._ended("authentication has failed")
        else:
            session._ended("closed")


def client_of(client: object) -> Client:
    """*client*; ZookeeperMisused when it is no client of this package."""
    if isinstance(client, Client):
        return client
    raise ZookeeperMisused(
        f"recipes need a sepelib.zookeeper.Client, not a {type(client).__module__}."
        f"{type(client).__qualname__}: only that one knows when its session is lost"
    )
