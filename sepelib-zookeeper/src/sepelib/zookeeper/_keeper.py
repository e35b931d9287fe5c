"""What a greenlet keeps true until it is told to stop, whatever the connection does.

    IDLE ──start──► ON ──stop, kill──► ENDING ──all is taken back──► IDLE
                    ▲ ▲ │                │
                    │ └─┼──────start─────┘
              start │   ▼ the client is stopped
                    FAILED ──stop──► IDLE

A keeper takes steps, one after another: each reads what is true, and does one thing about it or
waits for a change. What a step fails with is logged once and tried again; only the end of the
client ends a keeper.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from logging import getLogger
from typing import TYPE_CHECKING, Any, ClassVar, Self

import gevent
import gevent.event
from gevent.monkey import get_original
from kazoo.exceptions import KazooException

from sepelib.util.deadline import detached
from sepelib.util.retry import Backoff
from sepelib.zookeeper._call import Call
from sepelib.zookeeper._contender import check_running
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._wait import TimeIsUp, Wait
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperMisused
from sepelib.zookeeper.session import SessionState

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Keeper", "Life"]

_log = getLogger("sepelib.zookeeper.keeper")
_get_ident: Callable[[], int] = get_original("_thread", "get_ident")

_BACKOFF = Backoff(base=0.05, cap=5.0)


class Life(enum.Enum):
    IDLE = "not started"
    ON = "on"
    ENDING = "ending"
    FAILED = "failed"


_MOVES: dict[Life, frozenset[Life]] = {
    Life.IDLE: frozenset({Life.ON}),
    Life.ON: frozenset({Life.ENDING, Life.FAILED}),
    Life.ENDING: frozenset({Life.IDLE, Life.ON}),
    Life.FAILED: frozenset({Life.ON, Life.IDLE}),
}


class Keeper(ABC):
    """The base of what lives on by itself. `_step()` is all that differs."""

    _WHAT: ClassVar[str]
    """The first words of what it says."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client_of(client)
        self._session = self._client.session
        self.path = normal_path(path, self._WHAT)
        self._life = Life.IDLE
        self._error: Exception | None = None
        self._done = gevent.event.Event()  # all is taken back, as far as one knows
        self._done.set()
        self._patience: Wait | None = None
        self._waiters: set[Wait] = set()
        self._hub: Any = None
        self._greenlet: Any = None
        self._said = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def error(self) -> Exception | None:
        """What it fails with at present, or has failed with for good; None when all is well."""
        return self._error

    def start(self) -> bool:
        """Begin, in a greenlet; returns at once: False when it had begun already.

        The client has to be started, and need not be connected.
        """
        self._client.check_thread(f"a {self._WHAT}")
        if self._life is Life.ON:
            return False
        ended = self._life is not Life.ENDING
        self._move(Life.ON)
        self._done.clear()
        if ended:
            self._error = None
            self._hub = gevent.get_hub()
            self._spawn()
        self._wake()
        return True

    def stop(self, timeout: float = 1.0) -> bool:
        """Take back what is there; whether that is done.

        Waits for *timeout* seconds at most, and not at all without a connection: what is not done
        then is done as soon as the servers can be reached. Any number of times, anywhere; from
        another thread it only asks.
        """
        if self._hub is not None and _get_ident() != self._hub.thread_ident:
            self._hub.loop.run_callback_threadsafe(self._ask)
            return False
        self._ask()
        here = gevent.getcurrent()
        connected = self._session.state is SessionState.CONNECTED
        if connected and here is not self._hub and here is not self._greenlet:
            self._done.wait(timeout)
        return self._done.is_set()

    @abstractmethod
    def _step(self, call: Call) -> bool:
        """Do one thing, or wait for a change; False when it is ENDING and all is taken back."""

    def _changed(self) -> None:
        """Let those who wait look again. Never waits."""
        for wait in self._waiters:
            wait.wake()

    def _ask(self) -> None:
        """Never waits: the hub may call it."""
        if self._life is Life.ON:
            self._move(Life.ENDING)
            self._wake()
        elif self._life is Life.FAILED:
            self._move(Life.IDLE)

    def _wake(self) -> None:
        if self._patience is not None:
            self._patience.wake()

    def _move(self, life: Life) -> None:
        assert life in _MOVES[self._life], f"{self._life} to {life}"
        self._life = life
        self._changed()

    def _until(self, call: Call, done: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait for *done()*, a lost connection, or *timeout*, which is False."""

        def settled() -> bool:
            check_running(self._client)
            return self._session.state is not SessionState.CONNECTED or bool(done())

        return call.wait.until(settled, timeout)

    def _await(self, timeout: float | None, done: Callable[[], object]) -> bool:
        """Wait until *done()*; False when *timeout* seconds are over."""
        self._client.check_thread(f"a {self._WHAT}")

        def settled() -> bool:
            if self._life is Life.FAILED and self._error is not None:
                raise self._error
            if self._life is not Life.ON:
                raise ZookeeperMisused(f"{self._WHAT} {self.path} is {self._life.value}")
            return bool(done())

        if settled():
            return True
        if timeout == 0:
            return False
        wait = Wait(self.path, timeout, what=self._WHAT)
        self._waiters.add(wait)
        try:
            return wait.until(settled)
        except TimeIsUp:
            return False
        finally:
            self._waiters.discard(wait)

    def _spawn(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = f"{self._WHAT} {self.path}"
        self._greenlet.rawlink(self._dead)

    def _dead(self, greenlet: object) -> None:
        if greenlet is self._greenlet and self._life in (Life.ON, Life.ENDING):
            # Killed, with all others perhaps: another one takes back what is there.
            self._ask()
            self._spawn()

    # In the greenlet.

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with detached(), Call(self._client, self.path, self._WHAT) as call:
                self._patience = call.wait
                self._go_on(call)
        except Exception as e:
            error = e
        finally:
            self._patience = None
        self._end(error)

    def _go_on(self, call: Call) -> None:
        delays = _BACKOFF.delays()
        while True:
            check_running(self._client)
            try:
                if not self._step(call):
                    return
                self._error = None
                self._said = ""
                delays = _BACKOFF.delays()
            except ZookeeperMisused:
                raise
            except Exception as error:
                check_running(self._client)
                self._error = self._named(error)
                self._say_trouble()
                self._pause(call, next(delays))
            call.wait.breathe()

    def _pause(self, call: Call, seconds: float) -> None:
        """Wait *seconds*, or until it is to end or to go on."""
        life = self._life
        call.wait.until(lambda: self._life is not life, seconds)

    def _named(self, error: Exception) -> Exception:
        if isinstance(error, ZookeeperError):
            return error
        words = f"{type(error).__name__} {error}".strip()
        named = ZookeeperError(f"{self._WHAT} {self.path}: {words}")
        named.__cause__ = error
        return named

    def _say_trouble(self) -> None:
        error = self._error
        if self._said != str(error):
            self._said = str(error)
            cause = None if error is None else error.__cause__
            of_servers = isinstance(cause, KazooException)
            trace = None if of_servers else cause
            _log.warning("%s, trying on", error, extra=self._fields(), exc_info=trace)

    def _end(self, error: Exception | None) -> None:
        ending = self._life is Life.ENDING  # the client may be stopped, then all has gone
        self._error = None if ending else error
        if ending:
            self._move(Life.IDLE)
        else:
            self._move(Life.FAILED)
            _log.warning("%s %s ends: %s", self._WHAT, self.path, error, extra=self._fields())
        self._done.set()

    def _fields(self) -> dict[str, object]:
        return {"path": self.path, "session": f"0x{self._session.session_id:x}"}
