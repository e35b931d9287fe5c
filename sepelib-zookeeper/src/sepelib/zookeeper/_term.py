"""One term of a leader: its target runs, and is dead before the lease ends.

    LEADING ──stop asked──► ASKED ──stop_timeout later──► KILLING ──► dead
       └── lost, or the lease ends in less than stop_timeout ──▲

Whoever watches here waits on events only, never for a log handler: a full pipe or a slow syslog
must not keep a deposed leader alive.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Literal, Protocol

import gevent
from gevent.event import Event

from sepelib.util.deadline import detached
from sepelib.zookeeper._lease import SessionState
from sepelib.zookeeper.errors import LockLost

__all__ = ["Fence", "Held", "Leadership", "OnSuspend", "Term", "Watched", "say"]

Fence = Literal["kill", "exit"]
OnSuspend = Literal["wait", "stop"]

EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h
# The timers of the loop stand still while the machine sleeps, and the lease does not.
_BEAT = 0.5
# For a target whose lease has ended without a warning: one that obeys needs a turn of the hub.
_LAST_CHANCE = 0.1

log = logging.getLogger("sepelib.zookeeper.singleton")


class Held(Protocol):
    """What a term needs of the lock that was granted."""

    @property
    def is_acquired(self) -> bool: ...
    @property
    def fencing_token(self) -> int: ...
    @property
    def lost(self) -> Any: ...
    @property
    def lost_reason(self) -> str | None: ...
    def lease_remaining(self) -> float: ...
    def transaction(self) -> Any: ...


class Watched(Protocol):
    """What a term needs of the session."""

    @property
    def state(self) -> SessionState: ...
    def subscribe(self, wake: Callable[[], object], /) -> Callable[[], None]: ...


def say(
    level: int, fields: Mapping[str, object], text: str, *args: object, **options: Any
) -> gevent.Greenlet[..., None]:
    """Log in a greenlet of its own."""
    return gevent.spawn(log.log, level, text, *args, extra=dict(fields), **options)


class Leadership:
    """What a target is given: until when it leads, and by which token others can tell.

    *token* grows from leader to leader, whichever host it is: to be stored with each write, so that
    a write with a smaller one can be refused.
    *lost* is set when the leadership ends by a loss, and when its term is over.
    *stopping* is set when the service was asked to stop: the target has `stop_timeout` seconds to
    return before it is killed.
    Sharing: `is_leader`, `check()`, `token` and the questions to the events are for any thread; all
    else for the greenlets of the client's hub. Greenlets that the target has started are not ended
    with it: they ask, too.
    """

    def __init__(
        self, lock: Held, session: Watched, path: str, stop_timeout: float, on_suspend: OnSuspend
    ) -> None:
        self.path = path
        self.token = lock.fencing_token
        self.lost = Event()
        self.stopping = Event()
        self._lock = lock
        self._session = session
        self._stop_timeout = stop_timeout
        self._on_suspend = on_suspend
        self._ending = Event()  # one of the two
        self._reason: str | None = None
        self._greenlet: object = None  # of the target

    def __repr__(self) -> str:
        return f"<Leadership of {self.path}, token 0x{self.token:x}, {self._lack() or 'held'}>"

    @property
    def is_leader(self) -> bool:
        """Local, without a request: no other can lead, and enough of the lease is left to stop."""
        return self._lack() is None

    def check(self) -> None:
        """Raise LockLost unless `is_leader`; then others run before, in the target's greenlet."""
        if (reason := self._lack()) is not None:
            if gevent.getcurrent() is self._greenlet:
                gevent.sleep(0)  # one that swallows it and goes on can be killed here
            raise LockLost(self.path, reason)

    def sleep(self, seconds: float) -> None:
        """Sleep; raise LockLost as soon as the leadership is lost.

        When the service is to stop, GreenletExit, which ends the target: `finally` cleans up.
        """
        self.check()
        self._ending.wait(seconds)
        if self.stopping.is_set():
            raise gevent.GreenletExit
        if (reason := self._lack()) is not None:
            raise LockLost(self.path, reason)

    def transaction(self) -> Any:
        """One of the client that fails unless this leader's node is there. Raises LockLost."""
        self.check()
        return self._lock.transaction()

    def _lack(self) -> str | None:
        """Why it must not go on; None when it may."""
        if self._reason is not None:
            return self._reason
        if not self._lock.is_acquired:
            return self._lock.lost_reason or "session"
        if self._lock.lease_remaining() <= self._stop_timeout:
            return "the lease is running out"
        if self._on_suspend == "stop" and self._session.state is not SessionState.CONNECTED:
            return "the session is suspended"
        return None

    def _stop(self) -> None:
        self.stopping.set()
        self._ending.set()

    def _lose(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        self.lost.set()
        self._ending.set()


class Term:
    """Runs *target*(leadership) once, in a greenlet, while *lock* is held."""

    def __init__(
        self,
        lock: Held,
        session: Watched,
        target: Callable[[Leadership], object],
        *,
        path: str,
        name: str,
        stop_timeout: float,
        on_suspend: OnSuspend = "wait",
        fence: Fence = "kill",
        context: Context | None = None,
        ending: Callable[[], object] = lambda: None,
    ) -> None:
        self.leadership = Leadership(lock, session, path, stop_timeout, on_suspend)
        self.lost: str | None = None
        """Why the target was ended before its time; None when it ended by itself or was asked."""
        self.error: BaseException | None = None
        """What the target has raised, of which it was not told to die."""
        self._lock = lock
        self._session = session
        self._target = target
        self._name = name
        self._stop_timeout = stop_timeout
        self._fence = fence
        self._context = context or Context()
        self._told_ending = ending
        self._asked = False
        self._killed_at: float | None = None
        self._fenced = False
        self._news = Event()
        self._greenlet: gevent.Greenlet[..., None] = gevent.Greenlet(self._call)
        self._greenlet.name = name
        self.leadership._greenlet = self._greenlet

    @property
    def fields(self) -> dict[str, object]:
        """For log records."""
        return {"path": self.leadership.path, "service": self._name, "token": self.leadership.token}

    @property
    def is_over(self) -> bool:
        """Whether the target is dead; the lock must not be released before."""
        return self._greenlet.ready()

    def is_current(self) -> bool:
        """Whether the caller is the target."""
        return gevent.getcurrent() is self._greenlet

    def ask(self) -> None:
        """Let the target end; from any greenlet and from the hub."""
        self._asked = True
        self._news.set()

    def run(self) -> None:
        """Return when the target is dead, one way or another."""
        wake = self._wake
        remove = self._session.subscribe(self._news.set)
        self._lock.lost.rawlink(wake)
        self._greenlet.rawlink(wake)
        try:
            self._greenlet.start()
            self._lead()
        except BaseException:
            if not self.is_over:
                self._kill()
            raise
        finally:
            remove()
            self._lock.lost.unlink(wake)
            self.leadership._lose("its term is over")

    def _wake(self, _: object) -> None:
        self._news.set()

    def _lead(self) -> None:
        while not (self.is_over or self._asked or self._lack() is not None):
            # The lease grows while we wait, and does not say so.
            self._wait(self._lock.lease_remaining() - self._stop_timeout)
        if self.is_over:
            return
        if self._lack() is None:
            self.leadership._stop()
            self._told_ending()
            until = time.monotonic() + self._stop_timeout
            while not (self.is_over or self._lack() is not None):
                if (left := until - time.monotonic()) <= 0:
                    break
                self._wait(left)
        if not self.is_over:
            self._kill()

    def _kill(self) -> None:
        """Throw until the target is dead: what it is told first is why."""
        began = self._killed_at = time.monotonic()
        if (reason := self._lack()) is not None:
            self._lose(reason)
        if reason is not None and self._lock.is_acquired:
            self._throw(LockLost(self.leadership.path, reason))
            step = self._stop_timeout / 2  # to clean up, before it is hurried
        else:
            # Lost: another may lead already, so none who takes LockLost for one error of many.
            self._throw(gevent.GreenletExit())
            step = self._hurry
        self._told_ending()
        thrown = began
        while True:
            self._wait(min(step, self._until_the_fence(began)))
            if self.is_over:
                return
            if self.lost is None and (reason := self._lack()) is not None:
                self._lose(reason)
            if self._until_the_fence(began) <= 0 and not self._fenced:
                self._fall()
            if time.monotonic() - thrown >= step:
                self._throw(gevent.GreenletExit())
                thrown, step = time.monotonic(), self._hurry

    @property
    def _hurry(self) -> float:
        return min(max(self._stop_timeout / 10, 0.02), _BEAT)

    def _throw(self, error: BaseException) -> None:
        if self._greenlet.gr_frame is None:  # it has not begun: nobody to tell, gevent would print
            error = gevent.GreenletExit()
        self._greenlet.kill(error, block=False)

    def _until_the_fence(self, began: float) -> float:
        if self._fenced:
            return _BEAT
        if (left := self._lock.lease_remaining()) > 0:
            return left
        return began + _LAST_CHANCE - time.monotonic()

    def _fall(self) -> None:
        self._fenced = True
        frame = self._greenlet.gr_frame
        at = "".join(traceback.format_stack(frame)) if frame is not None else "  not started\n"
        ends = self._fence == "exit"
        told = say(
            logging.CRITICAL,
            self.fields,
            "%s: the lease is over and the target is not dead; %s; it is at\n%s",
            self._name,
            "ending this process" if ends else "another host may lead now; killing on",
            at,
        )
        if ends:
            told.join(_LAST_CHANCE)
            os._exit(EXIT_STATUS)

    def _lack(self) -> str | None:
        return self.leadership._lack()

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self.leadership._lose(reason)

    def _wait(self, seconds: float) -> None:
        self._news.wait(min(max(seconds, 0.0), _BEAT))
        self._news.clear()

    def _call(self) -> None:
        try:
            self._context.run(self._call_in_context)
        except gevent.GreenletExit:
            pass
        except LockLost as error:
            # By check() or sleep(), before we looked.
            if self.lost is None and self._lack() is not None:
                self._lose(error.reason)
            if self.lost is None:
                self.error = error
        except BaseException as error:
            self.error = error

    def _call_in_context(self) -> None:
        with detached():
            self._target(self.leadership)
