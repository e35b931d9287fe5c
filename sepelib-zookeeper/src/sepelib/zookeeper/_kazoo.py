"""The connection, on names of kazoo which are not public.

kazoo's own loop counts each request as a sign of life, times no answer and asks the selector four
times for a request. This one sends from the greenlet that asks, reads in one of its own, and is
told by the client's beat when to ping and when to give the connection up.

Everything is in one hub: whatever does not wait is not interrupted.
"""

from __future__ import annotations

import math
import os
import random
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import gevent
import kazoo.protocol.connection
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionDropped,
    NoNodeError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.serialization import (
    Auth,
    Close,
    CloseInstance,
    Connect,
    Exists,
    GetChildren,
    GetChildren2,
    ReplyHeader,
    Transaction,
    Watch,
    int_struct,
)
from kazoo.protocol.states import KeeperState

from sepelib.zookeeper import _kazoo_requests as wire
from sepelib.zookeeper import _kazoo_watches as watches
from sepelib.zookeeper._handler import resolve
from sepelib.zookeeper._lease import SessionState, Timings
from sepelib.zookeeper._result import Result
from sepelib.zookeeper._stream import Stream, connect
from sepelib.zookeeper.session import clock

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Connection"]

_WATCH_XID = -1
_AUTH_XID = -4
_NODE_EVENTS = (1, 2, 3, 4)  # created, deleted, changed, a child
# The server's own limit, jute.maxbuffer, is 1 MB; listings may be larger.
_MAX_REPLY = 1 << 28
_RW_PAUSE = 0.5  # seconds between two searches for a server that takes writes

# Between two beats, in seconds.
_SOON = 0.02
_MAX_BEAT = 1.0

_ServerFound = kazoo.protocol.connection.RWServerAvailable


class Connection(kazoo.protocol.connection.ConnectionHandler):  # type: ignore[misc]
    """kazoo's way to get connected, and our own to be."""

    _EXPECTED = (ConnectionDropped, OSError, KazooTimeoutError, _ServerFound)

    client: Client
    _socket: Any
    _rw_server: Any

    def __init__(self, client: Client, retry: Any, **options: Any) -> None:
        super().__init__(client, retry, **options)
        self.handler.create_connection = self._open_socket
        self._stream: Any = None
        # Requests may be sent: the session is set up, and so are its logins.
        self._open = False
        self._ping_sent: float | None = None
        self._answered_at = 0.0
        self._rw_search: Any = None
        self.connect_sent = 0.0
        self.timeout = 0.0  # T as negotiated, s
        self._timings = Timings.of(client._session_timeout / 1000)
        self._patience = 0.0  # with each step of setting up a connection, s
        self._unheard = 0  # how often a server has not answered the first request, in a row
        self.trouble = ""

    # The life of the greenlet.

    def start(self) -> None:
        """Connect, in a greenlet, until `stop()`."""
        self._pid = os.getpid()
        self.connection_closed.clear()
        self._connection_routine = self.handler.spawn(self.zk_loop)

    @property
    def routine(self) -> Any:
        """The greenlet, or None."""
        return self._connection_routine

    def stop(self, timeout: float | None = None) -> bool:
        """Close the session within *timeout* seconds, or leave it to expire; never from inside."""
        routine = self._connection_routine
        if routine is not None:
            if self._open and timeout:
                self.client._queue.append((CloseInstance, Result()))
                self.flush()
                routine.join(timeout)
            routine.kill(timeout=1.0)
            self._connection_routine = None
        # A greenlet that was killed before it began has not said so.
        self.client._session_callback(KeeperState.CLOSED)
        self.connection_stopped.set()
        return True

    def abandon(self) -> None:
        """In a forked process: forget the parent's connection without touching it."""
        self.client._stopped.set()
        self.client._beat.stop()
        if self._connection_routine is not None:
            self._connection_routine.kill(block=False)

    def close(self) -> None:
        """Nothing is left to free after `stop()`."""
        self.connection_closed.set()

    # Setting up a connection.

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        client = self.client
        # A resolver whose first server is gone takes longer than one that is there.
        found = resolve(client.hosts, client._session_timeout / 1000, self._timings.connect)
        if client.randomize_hosts:
            random.shuffle(found)
        if not found:
            self.trouble = "no address is known of any host"
        return found

    def _connect_attempt(self, host: str, hostip: str, port: int, retry: Any) -> Any:
        client = self.client
        if self._rw_server:
            host, hostip, port = self._rw_server
            self._rw_server = None
        if client._state != KeeperState.CONNECTING:
            client._session_callback(KeeperState.CONNECTING)
        self._socket = None
        self._xid = 0
        try:
            self._connect(host, hostip, port)
            retry.reset()
            self.trouble = ""
            self._serve()
            return kazoo.protocol.connection.STOP_CONNECTING
        except AuthFailedError:
            self.logger.error("authentication failed at %s:%s", host, port)
            client._failure = AuthFailedError(f"authentication failed at {host}:{port}")
            client._session_callback(KeeperState.AUTH_FAILED)
            return kazoo.protocol.connection.STOP_CONNECTING
        except SessionExpiredError:
            retry.reset()
            client._session_callback(KeeperState.EXPIRED_SESSION)
        except Exception as error:
            self._note_trouble(f"{host}:{port}: {error}", error)
            client._session_callback(KeeperState.CONNECTING)
        finally:
            self._shut()

    def _note_trouble(self, trouble: str, error: Exception) -> None:
        if not isinstance(error, self._EXPECTED):
            self.logger.error("the connection to %s", trouble, exc_info=error)
        elif not self.trouble:  # Said once, not at each try that follows.
            self.logger.warning("connection to %s", trouble)
        else:
            self.logger.debug("connection to %s", trouble)
        self.trouble = trouble

    def _connect(self, host: str, hostip: str, port: int) -> None:
        super()._connect(host, hostip, port)
        self._open = True
        self._answered_at = clock()
        if self.client._state == KeeperState.CONNECTED_RO:
            self._rw_search = gevent.spawn(self._search_rw)
        self.client._beat.by(self._answered_at)
        self.flush()

    def _open_socket(self, address: tuple[str, int], timeout: object = None, **tls: Any) -> Any:
        # Not as long as kazoo would wait: one host that is gone must not cost the session.
        return connect(address, self._timings.connect, **tls)

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if not isinstance(request, Connect):
            return super()._invoke(timeout, request, xid)
        timings = self._timings
        # A server that has just begun to listen may never answer; a slow one needs more time.
        longest = max(timings.connect, timings.silence)
        self._patience = min(timings.connect * 2**self._unheard, longest)
        self._stream = Stream(self._socket, self._check_process, self.flush)
        self.connect_sent = clock()
        try:
            answer, zxid = super()._invoke(self._patience, request, xid)
        except KazooTimeoutError:
            self._unheard = min(self._unheard + 1, 10)
            raise
        self._unheard = 0
        if answer.time_out > 0:  # 0 says: expired
            self.timeout = answer.time_out / 1000
            self._timings = Timings.of(self.timeout)
        self._patience = self._timings.silence
        return answer, zxid

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        """Only while a connection is set up: kazoo's logs what it sends, with passwords."""
        self._write(wire.framed(request, xid), timeout)

    def _write(self, data: bytes, timeout: float) -> None:
        limit = min(timeout, self._patience)
        with gevent.Timeout(limit, KazooTimeoutError(f"no room to send for {limit:.3g} s")):
            self._stream.send(data)

    def _read(self, length: int, timeout: float) -> bytes:
        if not 0 <= length <= _MAX_REPLY:
            raise ConnectionDropped(f"a reply claims to have {length} bytes")
        limit = min(timeout, self._patience)
        with gevent.Timeout(limit, KazooTimeoutError(f"no answer within {limit:.3g} s")):
            return bytes(self._stream.take(length))

    def _search_rw(self) -> None:
        """Look for a server that takes writes, and leave the read-only one for it.

        kazoo asks the first host only, and waits for its answer without an end.
        """
        while True:
            gevent.sleep(_RW_PAUSE)
            for server in self._expand_client_hosts():
                if self._takes_writes(server[1:]):
                    self._rw_server = server
                    self.cut(_ServerFound("a server that takes writes was found"))
                    return

    def _takes_writes(self, address: tuple[str, int]) -> bool:
        limit = self._timings.connect
        with (
            suppress(OSError, KazooTimeoutError),
            gevent.Timeout(limit, KazooTimeoutError),
            closing(connect(address)) as sock,
        ):
            sock.sendall(b"isro")
            return bool(sock.recv(16) == b"rw")
        return False

    # A connection that is set up.

    def _serve(self) -> None:
        """Read until the session is closed; raises what ends the connection otherwise."""
        while True:
            (length,) = int_struct.unpack(self._stream.take(4))
            if not 16 <= length <= _MAX_REPLY:
                raise ConnectionDropped(f"a reply claims to have {length} bytes")
            data = self._stream.take(length)
            header, offset = ReplyHeader.deserialize(data, 0)
            if header.xid == wire.PING_XID:
                sent, self._ping_sent = self._ping_sent, None
                self._note_answer(sent)
                self.client._beat.by(self._answered_at + self._timings.ping)
            elif header.xid == _WATCH_XID:
                self._note_event(data, offset)
            elif header.xid == _AUTH_XID:
                self._note_login(header)
            elif self._note_reply(header, data, offset):
                return

    def _note_answer(self, sent: float | None) -> None:
        self._answered_at = self._stream.received_at
        if sent is not None and self.client._state == KeeperState.CONNECTED:
            self.client.session._answered(sent)

    def _note_event(self, data: bytes, offset: int) -> None:
        try:
            watch, _ = Watch.deserialize(data, offset)
        except Exception as error:
            raise ConnectionDropped("a watch event is broken") from error
        if watch.type in _NODE_EVENTS:
            self._read_watch_event(data, offset)
            if self.client._recursive_watchers:
                watches.tell_recursive_watches(self.client, watch.type, watch.path)

    def _note_login(self, header: Any) -> None:
        # The server answers these at once, before requests that were sent earlier.
        pending = self.client._pending
        for entry in pending:
            if entry[2] == _AUTH_XID:
                pending.remove(entry)
                _, result, _ = entry
                self._note_answer(result.sent)
                if header.err:
                    result.set_exception(AuthFailedError())
                    raise AuthFailedError()
                result.set(True)
                return
        raise ConnectionDropped("an answer to a login that was not sent")

    def _note_reply(self, header: Any, data: bytes, offset: int) -> bool:
        """The answer to the oldest request; True when that was the session's end."""
        client = self.client
        if not client._pending:
            raise ConnectionDropped(f"an answer to nothing: xid {header.xid}")
        request, result, xid = client._pending[0]
        if header.xid != xid:
            raise ConnectionDropped(f"the answer to request {xid} has xid {header.xid}")
        client._pending.popleft()
        self._note_answer(result.sent)
        if header.zxid > 0:
            client.last_zxid = header.zxid
        if isinstance(request, Close):
            return True
        if result.ready():  # Too late: the caller was told so.
            return False
        absent = header.err == NoNodeError.code and isinstance(request, Exists)
        ok = not header.err or absent
        client._meters.answered(request.type, ok, self._stream.received_at - result.began)
        if ok:
            self._set(result, request, absent, data, offset)
        else:
            error = wire.error_of(header.err)
            result.set_exception(error)
            wire.heed(error)
        return False

    def _set(self, result: Result, request: Any, absent: bool, data: bytes, offset: int) -> None:
        client = self.client
        try:
            value = None if absent else request.deserialize(data, offset)
        except Exception as error:
            result.set_exception(error)
            raise ConnectionDropped(f"the answer to {type(request).__name__} is broken") from error
        parts = []
        if request.type == Transaction.type:
            value = parts = Transaction.unchroot(client, value)
        result.set(value)
        for part in parts:
            wire.heed(part)
        watcher = getattr(request, "watcher", None)
        if watcher and not client._stopped.is_set():
            lists = isinstance(request, GetChildren | GetChildren2)
            watching = client._child_watchers if lists else client._data_watchers
            watching[request.path].add(watcher)

    def flush(self) -> None:
        """Send what is queued as far as the socket takes it; never waits, never raises."""
        client = self.client
        while self._open and not self._stream.full and client._queue:
            request, result = client._queue.popleft()
            if result.ready():
                continue
            xid = _AUTH_XID if isinstance(request, Auth) else self._xid % 0x7FFFFFFF + 1
            try:
                data = wire.framed(watches.as_sent(client, request), xid)
            except Exception as error:
                result.set_exception(error)
                continue
            if xid != _AUTH_XID:
                self._xid = xid
            result.sent = clock()
            client._pending.append((request, result, xid))
            self._stream.push(data)

    def cut(self, why: Exception) -> None:
        """End the connection: the reading greenlet wakes and tries another one."""
        if self._open:
            self._open = False
            self._stream.cut(why)

    def beat(self, now: float) -> float:
        """Ping, or give up a silent connection, when it is time; gives when to ask again."""
        if not self._is_ours():
            self.abandon()
            return now + _MAX_BEAT
        if not self._open:
            return now + _MAX_BEAT
        return min(self._ping(now), self._look_for_silence(now), now + _MAX_BEAT)

    def _ping(self, now: float) -> float:
        client = self.client
        lost = client._state == KeeperState.CONNECTED and client.session.state is SessionState.LOST
        due = now if lost else self._answered_at + self._timings.ping
        if self._ping_sent is None and now >= due:
            if self._stream.full:
                return now + _SOON
            self._ping_sent = now
            self._stream.push(wire.PING)
        return due if self._ping_sent is None else math.inf

    def _look_for_silence(self, now: float) -> float:
        asked: list[float] = [] if self._ping_sent is None else [self._ping_sent]
        if self.client._pending:
            oldest: Result = self.client._pending[0][1]
            asked.append(oldest.sent or now)
        if not asked:
            return math.inf
        timings = self._timings
        received: float = self._stream.received_at
        due = max(received + timings.silence, min(asked) + timings.answer)
        if now < due:
            return due
        if self._stream.readable():  # The hub was blocked: this timer comes before the reader.
            return now + _SOON
        self.cut(ConnectionDropped(f"nothing received for {now - received:.3g} s"))
        return math.inf

    def _shut(self) -> None:
        self._open = False
        self._ping_sent = None
        if self._rw_search is not None:
            self._rw_search.kill(block=False)
            self._rw_search = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _check_process(self) -> None:
        if not self._is_ours():
            self.client._stopped.set()
            raise gevent.GreenletExit

    def _is_ours(self) -> bool:
        return os.getpid() == self._pid
