"""Run a service on one host of many.     Status: production.

    IDLE ──start──► WAITING ──granted──► RUNNING ──┐ returned, failed, asked to stop,
     ▲ ▲             │ │ ▲                         │ lost, or the lease is running out
     │ └────stop─────┘ │ │                         ▼
     │                 │ └────the next term──── STOPPING
     │                 ▼                         │  │
     │               FAILED ◄──cannot go on──────┘  │
     └──────────────────stop────────────────────────┘

The target is dead before ZooKeeper can give the lead to another: with T the session's timeout, it
is told to die 0.7 T after the last answer at the latest, has `stop_timeout` for it, and the lease
ends at 0.9 T. No lease keeps a process that stands still (SIGSTOP, a hub that is blocked) from
finishing later what it had begun: what must never happen twice needs `Leadership.token`.

Metrics: `zk_service_state` (service): 0 idle, 1 waiting, 2 running, 3 stopping, 4 failed;
`zk_service_restarts` (service): targets started again.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Self

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from sepelib.util.retry import Backoff
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._lease import Timings
from sepelib.zookeeper._term import Fence, Leadership, OnSuspend, Term, say
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import (
    ConfigurationError,
    Interrupted,
    ZookeeperError,
    ZookeeperMisused,
)
from sepelib.zookeeper.lock import InterruptableLock

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Leadership", "ServiceState", "SingletonService"]

log = logging.getLogger(__name__)

_POLL = 0.5
_AT_LEAST = 1.0  # seconds that stop() waits, beside what a target may take
_native_ident: Callable[[], int] = get_original("_thread", "get_ident")

# Not "service": that is what a process calls all of its own series.
_STATE = ("zk_service_state", "What a singleton service does here.", ("singleton",))
_RESTARTS = ("zk_service_restarts", "Targets of it that were started again.", ("singleton",))


class ServiceState(enum.Enum):
    """What a service does on this host. WAITING is for the lock, or to get into its queue again."""

    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


_MOVES = {
    ServiceState.IDLE: {ServiceState.WAITING},
    ServiceState.WAITING: {ServiceState.RUNNING, ServiceState.IDLE, ServiceState.FAILED},
    ServiceState.RUNNING: {ServiceState.STOPPING},
    ServiceState.STOPPING: {ServiceState.WAITING, ServiceState.IDLE, ServiceState.FAILED},
    ServiceState.FAILED: {ServiceState.WAITING},
}
_NUMBERS = {state: number for number, state in enumerate(ServiceState)}


class SingletonService:
    """Runs *target*(leadership) on the one host that holds the lock *path*, again and again.

        def judge(leadership: Leadership) -> None:
            while True:
                store.write(verdicts(), epoch=leadership.token)
                leadership.sleep(1.0)

        with SingletonService(client, "/app/judge", judge):
            ...

    *target* runs in a greenlet, in a copy of the context of `start()`, without its deadline. When
    it returns, the lead is given up, and asked for again `requeue_delay[0]` seconds later. When it
    raises, that is logged and the delay grows up to `requeue_delay[1]`, until a term has lasted
    longer than that. Each time another host that waits comes first.

    *on_suspend*: out of contact with ZooKeeper, "wait" as long as the lease allows, or "stop" at
    once. *stop_timeout*: seconds that the target has to die, min(T / 5, 5) unless given; at most
    T / 2. As long as the lease lasts it is told by LockLost out of whatever it waits for, then by
    GreenletExit, again and again; when the lock is gone already, by GreenletExit from the start,
    since another may lead (`Leadership.check()` tells why). One that lives on when
    the lease is over: *fence* "kill" says so at CRITICAL and goes on, "exit" ends the process at
    once (`os._exit`, status 70). Greenlets that the target has started are not ended: they have to
    ask `Leadership.check()`.
    *name* is for logs, metrics and `path_class` of the lock; the last part of *path* unless given.

    Stop the service before its client: a client stopped under it gives the lead away at once, and
    the target learns of it at the same time as the others do.
    Sharing: for the greenlets of the client's hub; `stop()` and the properties for any thread.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        target: Callable[[Leadership], object],
        *,
        identifier: str | None = None,
        on_suspend: OnSuspend = "wait",
        stop_timeout: float | None = None,
        requeue_delay: tuple[float, float] = (0.5, 30.0),
        fence: Fence = "kill",
        name: str | None = None,
    ) -> None:
        if not callable(target):
            raise TypeError(f"the target of a SingletonService is callable, {target!r} is not")
        if on_suspend not in ("wait", "stop"):
            raise ValueError(f"on_suspend is 'wait' or 'stop', not {on_suspend!r}")
        if fence not in ("kill", "exit"):
            raise ValueError(f"fence is 'kill' or 'exit', not {fence!r}")
        if stop_timeout is not None and not 0 < stop_timeout < float("inf"):
            raise ValueError(f"stop_timeout is positive and finite, not {stop_timeout!r}")
        if not 0 < requeue_delay[0] <= requeue_delay[1] < float("inf"):
            raise ValueError(f"requeue_delay is (shortest, longest), not {requeue_delay!r}")
        self.path = normal_path(path, "singleton")
        self.name = name or self.path.rpartition("/")[2]
        self._client = client_of(client)
        self._target = target
        self._identifier = identifier
        self._on_suspend: OnSuspend = on_suspend
        self._stop_timeout = stop_timeout
        self._shortest, self._longest = requeue_delay
        self._fence: Fence = fence
        self._state = ServiceState.IDLE
        self._asked = Event()
        self._ended = Event()
        self._ended.set()
        self._error: BaseException | None = None
        self._context = Context()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._hub: Any = None
        self._lock: InterruptableLock | None = None
        self._term: Term | None = None
        self._terms = 0
        self._backoff = self._delays()
        recorder = self._client.recorder
        self._gauge = recorder.gauge(*_STATE).labels(self.name)
        self._restarts = recorder.counter(*_RESTARTS).labels(self.name)

    def __repr__(self) -> str:
        return f"<SingletonService {self.name!r} at {self.path}, {self._state.value}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def state(self) -> ServiceState:
        return self._state

    @property
    def is_leader(self) -> bool:
        """Whether this is the one, now: local, without a request."""
        return self.token is not None

    @property
    def token(self) -> int | None:
        """The `Leadership.token` of the running target; None when this is not the leader."""
        term = self._term
        return term.leadership.token if term and term.leadership.is_leader else None

    @property
    def error(self) -> BaseException | None:
        """Why the state is FAILED; None else."""
        return self._error

    def start(self) -> None:
        """Get into the queue, in a greenlet; returns at once.

        The client has to be started, and need not be connected. ZookeeperMisused when the service
        was started and has not ended; then it may be started again.
        """
        self._client.check_thread("SingletonService.start()")
        if not self._ended.is_set():
            raise ZookeeperMisused(f"service {self.name} is {self._state.value}: stop it first")
        self._ended.clear()
        self._asked.clear()
        self._error = None
        self._backoff = self._delays()
        self._context = copy_context()
        self._hub = gevent.get_hub()
        self._move(ServiceState.WAITING)
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = f"singleton {self.name}"
        self._greenlet.rawlink(self._killed_before_it_ran)

    def stop(self, timeout: float | None = None) -> bool:
        """End the target, give up the lead, leave the queue. Whether that is done.

        Waits *timeout* seconds; None: twice the `stop_timeout`, and a second. The target first has
        `stop_timeout` to return by itself, as `Leadership.stopping` asks it to. False: it lives on,
        so this host keeps the lead and goes on killing. In the target itself, and where nothing can
        wait (a signal handler in the hub), it only asks, and gives False.
        May be called at any time, anywhere. Not cut by the current deadline: this is cleaning up.
        """
        if timeout is None:
            timeout = 2 * self._time_to_stop() + _AT_LEAST
        if self._hub is None or self._ended.is_set():
            return True
        if _native_ident() != self._hub.thread_ident:
            self._hub.loop.run_callback_threadsafe(self._ask)
            return self._ended_natively(timeout)
        self._ask()
        if not self._can_wait():
            return False
        return bool(self._ended.wait(timeout))

    def run_forever(self, *, wait: Callable[[float], bool] | None = None) -> None:
        """Start, and return when `stop()` was called; raise the `error` when it has failed.

        For a greenlet that does nothing else. Whatever strikes it there (GreenletExit,
        KeyboardInterrupt) stops the service, and is passed on. *wait* sleeps at most so many
        seconds and says whether to stop, as the `wait` of a GreenThread.
        """
        self.start()
        try:
            while not self._ended.is_set():
                if wait is None:
                    self._ended.wait()
                elif wait(_POLL):
                    break
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    # In the greenlet of the service.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not self._asked.is_set():
                pause = self._round()
                if self._asked.is_set():
                    break
                if self._state is ServiceState.STOPPING:
                    self._move(ServiceState.WAITING)
                self._asked.wait(pause)
        except gevent.GreenletExit:
            pass  # killed with all others, at the end of a test or a program
        except BaseException as e:
            error = e
        self._end(error)

    def _round(self) -> float:
        """Contend, and lead once; how long to wait before the next time."""
        lock = self._lock = InterruptableLock(
            self._client, self.path, self._identifier, path_class=self.name
        )
        try:
            lock.acquire()
        except Interrupted:
            return 0.0
        except ConfigurationError:
            raise
        except ZookeeperError as error:
            log.warning("%s: cannot contend, trying on: %s", self.name, error, extra=self._fields)
            return next(self._backoff)
        try:
            # Asked to stop in the moment of the grant.
            return 0.0 if self._asked.is_set() else self._lead(lock)
        finally:
            # A target that has survived the kill of this greenlet keeps the lead: with the node
            # gone another host could run one at the same time.
            if self._term is None or self._term.is_over:
                self._term = None
                lock.release()

    def _lead(self, lock: InterruptableLock) -> float:
        session = self._client.session
        stop_timeout = self._time_to_stop()
        if stop_timeout > session.timeout / 2 > 0:
            raise ConfigurationError(
                f"service {self.name}: a stop_timeout of {stop_timeout:.3g} s is more than half of "
                f"the session's timeout, {session.timeout:.3g} s"
            )
        term = self._term = Term(
            lock,
            session,
            self._target,
            path=self.path,
            name=self.name,
            stop_timeout=stop_timeout,
            on_suspend=self._on_suspend,
            fence=self._fence,
            context=self._context.copy(),
            ending=self._ending,
        )
        self._terms += 1
        if self._terms > 1:
            self._restarts.inc()
        self._move(ServiceState.RUNNING)
        began = time.monotonic()
        try:
            term.run()
        finally:
            self._ending()
        if term.error is None or time.monotonic() - began > self._longest:
            self._backoff = self._delays()
        return self._judged(term)

    def _delays(self) -> Iterator[float]:
        return Backoff(self._shortest, cap=self._longest).delays()

    def _judged(self, term: Term) -> float:
        if term.error is None:
            return self._shortest if term.lost is None else 0.0
        if isinstance(term.error, KeyboardInterrupt | SystemExit):
            raise term.error
        from sepelib.util.exceptions import format_exception  # heavy, and only for the dead

        say(
            logging.ERROR,
            term.fields,
            "%s: the target failed: %s",
            self.name,
            format_exception(term.error),
            exc_info=term.error,
        )
        return next(self._backoff)

    def _ending(self) -> None:
        if self._state is ServiceState.RUNNING:
            self._move(ServiceState.STOPPING)
            term = self._term
            if term is not None and term.lost is not None:
                say(logging.WARNING, term.fields, "%s: ending the target: %s", self.name, term.lost)

    def _killed_before_it_ran(self, greenlet: object) -> None:
        if greenlet is self._greenlet and not self._ended.is_set():
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._term is not None:
            return  # a target that lives on, see _round: this service never gets to an end
        self._lock = None
        self._error = error
        if error is None:
            self._move(ServiceState.IDLE)
        else:
            self._move(ServiceState.FAILED)
            text = "%s: cannot go on: %s"
            say(logging.ERROR, self._fields, text, self.name, error, exc_info=error)
        self._ended.set()
        if isinstance(error, KeyboardInterrupt | SystemExit):
            # What a greenlet does with them that nobody watches.
            self._hub.handle_system_error(type(error), error, error.__traceback__)

    def _move(self, state: ServiceState) -> None:
        """The one place where the state changes, and all that hangs on it."""
        before = self._state
        assert state in _MOVES[before], f"{self.name}: {before.value} to {state.value}"
        self._state = state
        self._gauge.set(_NUMBERS[state])
        fields = self._fields if self._term is None else self._term.fields
        say(logging.INFO, fields, "%s: %s, was %s", self.name, state.value, before.value)

    # For those who call from outside.

    @property
    def _fields(self) -> dict[str, object]:
        return {"path": self.path, "service": self.name}

    def _time_to_stop(self) -> float:
        if self._stop_timeout is not None:
            return self._stop_timeout
        return Timings.of(self._client.session.timeout).stop_timeout

    def _ask(self) -> None:
        """Never blocks: the hub may call it."""
        self._asked.set()
        if self._lock is not None:
            self._lock.interrupt()
        if self._term is not None:
            self._term.ask()

    def _can_wait(self) -> bool:
        if gevent.getcurrent() in (self._hub, self._greenlet):
            return False
        return self._term is None or not self._term.is_current()

    def _ended_natively(self, timeout: float) -> bool:
        sleep, until = get_original("time", "sleep"), time.monotonic() + timeout
        while not self._ended.is_set() and time.monotonic() < until:
            sleep(0.01)
        return self._ended.is_set()
