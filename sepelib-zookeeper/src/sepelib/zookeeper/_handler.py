"""How what happens in ZooKeeper reaches the callbacks of the user.

The callbacks of one path run in order, in a greenlet of that path which lives as long as there is
something to call; those of different paths run beside each other. So do the listeners of the
connection's state. Whatever a callback raises is logged and ends that call alone. The connection
waits for none of them, so each of them may make requests, and may stop the client.

Sharing: one handler for one client; all of it for the greenlets of the client's hub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from logging import getLogger
from typing import Any

import gevent
import gevent.socket
from gevent.hub import Hub
from kazoo.exceptions import ConfigurationError
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.handlers.threading import KazooTimeoutError

from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.zookeeper._result import Result

__all__ = ["EventWake", "Handler", "Lane", "ListenersMixin", "Wake", "name_of", "resolve"]

_log = getLogger(__name__)


class Wake:
    """A watch function that is called at once, by whoever reads the connection.

    For recipes: *wake* gets nothing and must not wait or raise, as `Event.set`. It is called when
    the watch fires, when the connection is gone and with it the watch, and when the client stops:
    what has happened is to be read again.
    """

    __slots__ = ("_wake",)

    def __init__(self, wake: Callable[..., object]) -> None:
        self._wake = wake

    def __call__(self, event: object) -> None:
        self._wake()


class EventWake(Wake):
    """A Wake whose function gets the event."""

    __slots__ = ()

    def __call__(self, event: object) -> None:
        self._wake(event)


class Lane:
    """Runs calls one after another, in a greenlet that is there while they are.

    Who kills that greenlet ends the call that it is in, no other.

    *done*(ok) is called after each, *idle*() when there are no more; both must not wait.
    """

    __slots__ = ("_calls", "_done", "_greenlet", "_idle")

    def __init__(
        self,
        done: Callable[[bool], object] = lambda ok: None,
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._calls: deque[tuple[Callable[[], object], str, str | None]] = deque()
        self._greenlet: Any = None
        self._done = done
        self._idle = idle

    @property
    def greenlet(self) -> Any:
        """The one that runs the calls; None or a dead one when there are none."""
        return self._greenlet

    def post(self, call: Callable[[], object], what: str, path: str | None = None) -> None:
        """Call *call*() after those posted before. Never waits. *what* names it in the log."""
        self._calls.append((call, what, path))
        # Dead: somebody else has killed it.
        if self._greenlet is None or self._greenlet.dead:
            self._begin()

    def clear(self) -> int:
        """Drop what has not begun; how many calls that were."""
        dropped = len(self._calls)
        self._calls.clear()
        return dropped

    def _begin(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.rawlink(self._look)

    def _look(self, greenlet: Any) -> None:
        if greenlet is not self._greenlet:
            return
        # It was killed before it has begun.
        self._greenlet = None
        if self._calls:
            self._begin()
        else:
            self._idle()

    def _run(self) -> None:
        while self._calls:
            call, what, path = self._calls.popleft()
            self._done(self._contain(call, what, path))
            del call  # what it refers to must not live for as long as the next call waits
        self._greenlet = None
        self._idle()

    def _contain(self, call: Callable[[], object], what: str, path: str | None) -> bool:
        try:
            call()
            return True
        except KeyboardInterrupt as error:
            # A signal strikes whichever greenlet runs; it is meant for the main one.
            gevent.get_hub().handle_system_error(type(error), error, error.__traceback__)
        except BaseException as error:
            _log.error(
                "%s has failed: %s: %s",
                what,
                type(error).__name__,
                error,
                exc_info=error,
                extra={"path": path},
            )
        return False


class Handler(SequentialGeventHandler):  # type: ignore[misc]
    """kazoo's gevent handler, with a lane for each path instead of one for all.

    *stop_timeout*: seconds that `stop()` waits for the callbacks which are running.
    """

    timeout_exception = KazooTimeoutError

    def __init__(self, recorder: Recorder = AMBIENT, *, stop_timeout: float = 1.0) -> None:
        super().__init__()
        self._stop_timeout = stop_timeout
        self._lanes: dict[object, Lane] = {}
        self._open = False
        callbacks = recorder.counter(
            "zk_watch_callbacks",
            "Calls of watch functions by end: ok, failed, dropped (the client was stopped).",
            labels=("result",),
        )
        self._results = {result: callbacks.labels(result) for result in ("ok", "failed", "dropped")}

    @property
    def running(self) -> bool:
        """Whether callbacks are called."""
        return self._open

    def start(self) -> None:
        """Call callbacks from now on."""
        self._open = True

    def stop(self) -> None:
        """Call no callback any more, and wait for those which run, within the stop timeout.

        Those later than that are told of in the log and run on: their requests fail. Legal
        everywhere: a callback which stops the client does not wait for itself, the hub for nobody.
        """
        self._open = False
        running = []
        for lane in self._lanes.values():
            dropped = lane.clear()
            if dropped:
                self._results["dropped"].inc(dropped)
            running.append(lane.greenlet)
        here = gevent.getcurrent()
        if isinstance(here, Hub):
            return
        late = _join([it for it in running if it is not here], self._stop_timeout)
        if late:
            _log.warning(
                "%d watch callbacks still run %.3g s after the stop", late, self._stop_timeout
            )

    def dispatch_callback(self, callback: Any) -> None:
        """Call a watch function: a `Wake` now, another one in its turn, none of them after a stop.

        Never waits, never raises.
        """
        func, args = callback.func, callback.args
        path = getattr(args[0], "path", None) if args else None
        if isinstance(func, Wake):
            try:
                func(*args)
            except Exception:
                _log.exception("a wake-up of %s has failed", path, extra={"path": path})
            return
        key = func if path is None else path
        what = f"the watch callback {name_of(func)} of {path}"
        self.post(key, lambda: func(*args), what, path)

    def post(
        self, key: object, call: Callable[[], object], what: str, path: str | None = None
    ) -> None:
        """Call *call*() after those of the same *key*; not after a stop. *what* is for the log.

        Never waits. It is one of the callbacks that are counted, and that a stop waits for.
        """
        if not self._open:
            self._results["dropped"].inc()
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = Lane(self._count, lambda: self._lanes.pop(key, None))
            self._lanes[key] = lane
        lane.post(call, what, path)

    def lane(self) -> Lane:
        """One whose calls are counted as callbacks, and go on after a stop."""
        return Lane(self._count)

    def async_result(self) -> Result:
        """Of which the first end counts."""
        return Result()

    def _count(self, ok: bool) -> None:
        self._results["ok" if ok else "failed"].inc()


class ListenersMixin:
    """kazoo's state listeners, each in a greenlet of its own: one that makes a request may wait.

    Goes before KazooClient among the bases.
    """

    state_listeners: set[Any]

    def add_listener(self, listener: Callable[[Any], object]) -> None:
        """Call *listener*(KazooState) at each change, in order; no more once it has given True.

        It may take its time, use the client and stop it. Whatever it raises is logged.
        """
        if not callable(listener):
            raise ConfigurationError("a listener must be callable")
        wanted = _Listener(self, listener)
        if wanted not in self.state_listeners:
            self.state_listeners.add(wanted)

    def remove_listener(self, listener: Callable[[Any], object]) -> None:
        """Do not call *listener* any more, for what has happened already neither."""
        self.state_listeners.discard(_Listener(self, listener))

    def join_listeners(self, timeout: float = 1.0) -> bool:
        """Wait until the listeners know of all that has happened; False after *timeout* seconds.

        One that calls this does not wait for itself.
        """
        here = gevent.getcurrent()
        running = [listener.lane.greenlet for listener in self.state_listeners]
        return not _join([greenlet for greenlet in running if greenlet is not here], timeout)


class _Listener:
    """What kazoo calls inside the connection's greenlet: passes the state on."""

    __slots__ = ("_client", "_function", "lane")

    def __init__(self, client: ListenersMixin, function: Callable[[Any], object]) -> None:
        self._client = client
        self._function = function
        self.lane = Lane()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Listener) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __call__(self, state: Any) -> None:
        self.lane.post(lambda: self._tell(state), f"the state listener {name_of(self._function)}")

    def _tell(self, state: Any) -> None:
        if self in self._client.state_listeners and self._function(state) is True:
            self._client.remove_listener(self._function)


def resolve(
    hosts: Iterable[tuple[str, int]], timeout: float, patience: float | None = None
) -> list[tuple[str, str, int]]:
    """(name, address, port) for each address of *hosts*, in their order.

    Asked side by side, by gevent's resolver: the hub runs on, also in a process that is not
    patched. Left out, with a line in the log, are names unknown or unanswered after *timeout*
    seconds; after *patience* seconds already, when there is an answer for another one.
    """
    hosts = [(host.strip(), int(port)) for host, port in hosts]
    lookups = [gevent.spawn(_look_up, host, port) for host, port in hosts]
    try:
        waited = timeout if patience is None else min(patience, timeout)
        gevent.joinall(lookups, timeout=waited)
        if not any(isinstance(lookup.value, list) for lookup in lookups):
            late = [lookup for lookup in lookups if not lookup.dead]
            for lookup in gevent.iwait(late, timeout=timeout - waited):
                if isinstance(lookup.value, list):
                    break
    finally:
        gevent.killall(lookups, block=False)
    found: list[tuple[str, str, int]] = []
    for (host, port), lookup in zip(hosts, lookups, strict=True):
        addresses = lookup.value
        if isinstance(addresses, Exception):
            _log.warning("%s cannot be resolved: %s", host, addresses)
        elif not isinstance(addresses, list):
            _log.warning("%s is not resolved in time", host)
        else:
            found += [(host, address, port) for address in addresses]
    return found


def _look_up(host: str, port: int) -> list[str] | Exception:
    try:
        infos = gevent.socket.getaddrinfo(host, port, 0, 0, gevent.socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a name
        return error
    return [str(info[4][0]) for info in infos]


def _join(greenlets: Iterable[Any], timeout: float) -> int:
    """How many are still alive after *timeout* seconds at most."""
    alive = [greenlet for greenlet in greenlets if greenlet is not None and not greenlet.dead]
    gevent.joinall(alive, timeout=timeout)
    return sum(not greenlet.dead for greenlet in alive)


def name_of(function: object) -> str:
    """What *function* is called in the log."""
    return getattr(function, "__qualname__", None) or repr(function)
