"""A greenlet with the words of `threading.Thread`, which cannot die unnoticed.

    NEW ──start──► ALIVE ──returned, died, was killed──► ENDED
     └──────────── stop or kill: it never runs ────────────▲

Death: an exception out of `run()`, SystemExit included, is logged at ERROR exactly once, with the
name of the thread and at once; unless a greenlet is blocked in `result()`, which gets it instead.
GreenletExit is a clean end. A KeyboardInterrupt, which a signal may raise in any greenlet, is
passed on to the main greenlet.
Sharing: for the greenlets of the main thread. From other native threads, from the hub and so from
signal handlers only `request_stop()`, `is_alive()` and the attributes may be used.
Forking: as with `threading`, only the thread that forks exists in the child. One that waits there
on a bare gevent Event or lock wakes up if the child itself notifies it.
Metrics: `green_threads_alive`, `green_thread_deaths` (name).
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, copy_context
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original
from sepelib.gevent._traces import forget_locals, format_greenlet, without_frames_of
from sepelib.gevent.errors import GreenThreadMisused, LostInFork, NotFinished
from sepelib.util.deadline import clip, detached
from sepelib.util.instrument import AMBIENT, Recorder

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["GreenThread"]

log = logging.getLogger(__name__)

_numbers = itertools.count(1)
_alive: dict[object, GreenThread] = {}  # by greenlet
_native_ident: Callable[[], int] = get_original("_thread", "get_ident")
_knows_forks = False


class _State(IntEnum):
    """A thread moves from a lesser one to a greater one, and never back."""

    NEW = 0
    ALIVE = 1
    ENDED = 2


_ALIVE = ("green_threads_alive", "Green threads started and not ended.")
_DEATHS = ("green_thread_deaths", "Green threads that ended with an exception.", ("name",))
_ambient_alive = AMBIENT.gauge(*_ALIVE)  # kept: to look it up costs as much as a start


class GreenThread:
    """Runs *target*, or what a subclass says in `run()`, in a greenlet of the main thread's hub.

    *context*: in which it runs; None copies that of whoever calls `start()`. The deadline in it is
    cleared, since the thread outlives the request that started it, unless *inherit_deadline*.
    *daemon*: `run_service` does not wait for it. Deaths are counted by *name*, those of threads
    without one under "GreenThread".
    """

    def __init__(
        self,
        target: Callable[..., Any] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool = False,
        context: Context | None = None,
        inherit_deadline: bool = False,
        recorder: Recorder = AMBIENT,
    ) -> None:
        if target is not None and not callable(target):
            raise TypeError(f"the target of a GreenThread is callable, {target!r} is not")
        self.name = name or _new_name(target)
        self.daemon = daemon
        self._label = name or "GreenThread"
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or ())
        self._context = context
        self._inherit_deadline = inherit_deadline
        self._recorder = recorder
        self._gauge = _ambient_alive if recorder is AMBIENT else recorder.gauge(*_ALIVE)
        self._state = _State.NEW
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._hub: Any = None
        self._started: float | None = None
        self._stopping = False
        self._asked: Event | None = None
        self._result: Any = None
        self._exception: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiting = 0  # greenlets in result()
        self._told = False  # the exception has been logged, or raised by result()
        self._at_end: list[Callable[[GreenThread], None]] = []

    @staticmethod
    def current() -> GreenThread | None:
        """The one whose greenlet calls; None in the main greenlet, the hub and bare greenlets."""
        return _alive.get(gevent.getcurrent())

    @staticmethod
    def all_alive() -> list[GreenThread]:
        """Those started and not ended, the oldest first."""
        return [thread for thread in list(_alive.values()) if thread.is_alive()]

    def start(self) -> None:
        """Let it run from the next turn of the hub on. Does nothing when it was stopped before.

        GreenThreadMisused the second time, and in another native thread than the main one: the
        green thread would be gone without a word when that one ends.
        """
        if self._state is _State.ENDED and self._greenlet is None:
            return
        if self._state is not _State.NEW:
            raise GreenThreadMisused(self.name, "start() can be called only once")
        hub = gevent.get_hub()
        if not hub.main_hub:
            raise GreenThreadMisused(
                self.name, "start() is for the main thread; here it would end with this native one"
            )
        if not _knows_forks:
            _know_forks()
        self._hub = hub
        self._greenlet = greenlet = gevent.Greenlet(self._bootstrap)
        greenlet.name = self.name
        if self._context is None:
            self._context = copy_context()
        self._started = time.monotonic()
        self._move(_State.ALIVE)
        # For the one end that _bootstrap does not see: killed before it ran.
        greenlet.rawlink(self._ended)
        greenlet.start()

    def run(self) -> Any:
        """What the thread does; its value is the `result()`. Calls *target* unless overridden."""
        if self._target is not None:
            return self._target(*self._args, **self._kwargs)
        return None

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; False when it is still alive after *timeout* seconds (None: no limit).

        Never raises what the thread raised. Cut by the current deadline.
        """
        self._refuse_before_start("join()")
        if self.is_alive():
            self._refuse_where_it_cannot_wait("join()").join(clip(timeout))
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        if self._state is not _State.ALIVE:
            return False
        # Dead but not ENDED: killed before it ran, and the hub has not said so yet.
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def greenlet(self) -> gevent.Greenlet[..., None] | None:
        """The greenlet, None before the start. To look at: kill the thread, not the greenlet."""
        return self._greenlet

    @property
    def ident(self) -> int | None:
        """What `threading.get_ident()` gives inside of it once patched; None before the start."""
        return None if self._greenlet is None else id(self._greenlet)

    @property
    def age(self) -> float:
        """Seconds since its start, also after its end; 0 before."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def exception(self) -> BaseException | None:
        """What it died of; None before its end and after a clean one, to which a kill belongs.

        The locals in its traceback are gone once it was logged, so that they are freed.
        """
        return self._exception

    def result(self, timeout: float | None = None) -> Any:
        """The value of `run()`, None when it was killed, or raise what it raised.

        Who is blocked in here when the thread dies owns the exception: it is not logged.
        Raises NotFinished, a TimeoutError, after *timeout* seconds; cut by the current deadline.
        """
        self._refuse_before_start("result()")
        if self.is_alive():
            self._wait_for_result(clip(timeout))
        if self._exception is None:
            return self._result
        try:
            raise self._exception.with_traceback(self._traceback)
        finally:
            del self  # else exception, traceback, this frame and the thread are a circle

    @property
    def stopping(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stopping

    def wait(self, seconds: float) -> bool:
        """Sleep, for at most *seconds*; True as soon as the thread is asked to stop.

        For the thread itself, instead of `time.sleep()`: `while not self.wait(10): ...`.
        """
        # Before the flag is read: who asks sets the flag first and looks for the event then.
        if self._asked is None:
            self._asked = Event()
        if not self._stopping:
            self._asked.wait(max(0.0, seconds))
        return self._stopping

    def request_stop(self) -> None:
        """Ask it to stop, and return at once; may be called anywhere, any number of times."""
        self._stopping = True
        if (asked := self._asked) is None:
            return
        if self._hub is None or self._hub.thread_ident == _native_ident():
            asked.set()
        else:
            self._hub.loop.run_callback_threadsafe(asked.set)

    def stop(self, timeout: float = 10.0, kill_timeout: float = 1.0) -> bool:
        """Ask it to stop, and kill it when it has not ended *timeout* seconds later.

        False: it lives on *kill_timeout* seconds after that, which was logged with its stack. One
        that was never started never runs. Not cut by the current deadline: this is cleaning up.
        """
        if self._ended_before_start() or not self.is_alive():
            return True
        greenlet = self._refuse_where_it_cannot_wait("stop()")
        self.request_stop()
        greenlet.join(timeout)
        return not self.is_alive() or self.kill(kill_timeout)

    def kill(self, timeout: float = 1.0) -> bool:
        """Raise GreenletExit in it; False, logged with its stack, when it lives on after *timeout*.

        One that was not started, or has not run yet, never runs. Not cut by the current deadline.
        """
        if self._ended_before_start() or not self.is_alive():
            return True
        greenlet = self._refuse_where_it_cannot_wait("kill()")
        self.request_stop()
        greenlet.kill(block=False)
        greenlet.join(timeout)
        if not self.is_alive():
            return True
        log.error(
            "%s is still alive %.3g s after it was killed; it is at\n%s",
            self.name,
            timeout,
            format_greenlet(greenlet),
        )
        return False

    def _bootstrap(self) -> None:
        if self._state is not _State.ALIVE or self._context is None:
            return  # forked away before it ran
        error: BaseException | None = None
        try:
            self._result = self._context.run(self._run_in_context)
        except gevent.GreenletExit:
            pass
        except BaseException as e:
            error = e
            self._die(e)
        finally:
            self._move(_State.ENDED)
            # The frames of what was raised lead back to this one: without a self no circle.
            del self
        if isinstance(error, KeyboardInterrupt):
            gevent.get_hub().handle_system_error(type(error), error, error.__traceback__)

    def _run_in_context(self) -> Any:
        try:
            if self._inherit_deadline:
                return self.run()
            with detached():
                return self.run()
        finally:
            del self  # as in _bootstrap

    def _die(self, error: BaseException) -> None:
        self._traceback = without_frames_of(__file__, error.__traceback__)
        error.__traceback__ = self._traceback
        self._exception = error
        self._recorder.counter(*_DEATHS).labels(self._label).inc()
        if isinstance(error, KeyboardInterrupt):
            self._told = True  # by handle_system_error
        elif not self._waiting:
            self._log_death()

    def _log_death(self) -> None:
        from sepelib.util.exceptions import format_exception  # heavy, and only for the dead

        error, self._told = self._exception, True
        assert error is not None
        meant = " (which ends this thread alone)" if isinstance(error, SystemExit) else ""
        log.error("%s died: %s%s", self.name, format_exception(error), meant, exc_info=error)
        forget_locals(error)

    def _wait_for_result(self, timeout: float | None) -> None:
        greenlet = self._refuse_where_it_cannot_wait("result()")
        started = time.monotonic()
        self._waiting += 1
        got_it = False
        try:
            greenlet.join(timeout)
            if self.is_alive():
                raise NotFinished(self.name, time.monotonic() - started)
            got_it = True
        finally:
            self._waiting -= 1
            if got_it:
                self._told = True
            elif self._exception is not None and not self._told and not self._waiting:
                # It was left to us, and we were killed before we could take it.
                self._log_death()

    def _move(self, state: _State) -> None:
        """The one place where the state changes, and all that hangs on it."""
        assert state > self._state, f"{self.name}: {self._state.name} to {state.name}"
        self._state = state
        if state is _State.ALIVE:
            _alive[self._greenlet] = self
            self._gauge.inc()
            return
        if _alive.pop(self._greenlet, None) is not None:
            self._gauge.dec()
        self._target = self._context = None
        self._args, self._kwargs = (), {}
        at_end, self._at_end = self._at_end, []
        for told in at_end:
            told(self)

    def _ended(self, _: object) -> None:
        if self._state is _State.ALIVE:
            self._move(_State.ENDED)

    def _ended_before_start(self) -> bool:
        if self._state is _State.NEW:
            self._stopping = True
            self._move(_State.ENDED)
        return self._greenlet is None

    def _when_ended(self, told: Callable[[GreenThread], None]) -> None:
        """Call *told* once it has ended, in its greenlet or in the hub: it must not wait."""
        if self._state is _State.ENDED:
            told(self)
        else:
            self._at_end.append(told)

    def _lose(self) -> None:
        """Never run again: this process was forked, and the thread belongs to the parent."""
        greenlet = self._greenlet
        assert greenlet is not None
        self._exception, self._told = LostInFork(self.name), True
        self._at_end = []
        self._asked = None  # a request would wake it up
        self._move(_State.ENDED)
        # Timers and sockets find these when they want to wake it up.
        vars(greenlet).update(switch=_nothing, throw=_nothing)

    def _is_current(self) -> bool:
        return gevent.getcurrent() is self._greenlet

    def _refuse_before_start(self, call: str) -> None:
        if self._state is _State.NEW:
            raise GreenThreadMisused(self.name, f"{call} before start()")

    def _refuse_where_it_cannot_wait(self, call: str) -> gevent.Greenlet[..., None]:
        greenlet = self._greenlet
        assert greenlet is not None
        if self._hub.thread_ident != _native_ident():
            raise GreenThreadMisused(
                self.name,
                f"{call} is for the main thread, not for other native ones; "
                "request_stop() works here",
            )
        if gevent.getcurrent() is self._hub:
            raise GreenThreadMisused(
                self.name,
                f"{call} waits, which the hub and so a signal handler cannot; "
                "request_stop() works here",
            )
        if self._is_current():
            raise GreenThreadMisused(self.name, f"{call} from itself would wait for ever")
        return greenlet

    def __repr__(self) -> str:
        kind = " daemon" if self.daemon else ""
        return f"<{type(self).__name__} {self.name!r} {self._state.name.lower()}{kind}>"


def _new_name(target: Callable[..., Any] | None) -> str:
    name = f"GreenThread-{next(_numbers)}"
    called = getattr(target, "__name__", None)
    return f"{name} ({called})" if called else name


def _know_forks() -> None:
    # At the first start, not at import, which registers nothing.
    global _knows_forks
    _knows_forks = True
    os.register_at_fork(after_in_child=_lose_all_but_the_current)


def _lose_all_but_the_current() -> None:
    for thread in list(_alive.values()):
        if not thread._is_current():
            thread._lose()


def _nothing(*_: object) -> None: ...
