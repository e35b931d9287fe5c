"""How gevent's hub is: how late it is, how many greenlets there are, what the threadpool has to do.

    metrics.gevent_hub.register(registry)       # in the thread whose hub it is

| metric | kind |
|---|---|
| `gevent_hub_latency_seconds` | histogram: how late the hub served a timer, ten times a second |
| `gevent_greenlets` | gauge: greenlets started and not ended, in all threads |
| `gevent_loop_watchers` | gauge: what keeps the loop waiting: sleepers, sockets, child processes |
| `gevent_threadpool_size`, `gevent_threadpool_max_size` | gauges: threads of the hub's pool |
| `gevent_threadpool_tasks` | gauge: tasks that run or wait there |
| `gevent_threadpool_queued` | gauge: those that wait for a thread |

A hub that stood for a second shows as one latency of a second, less up to the time between two
timers. Each costs some microseconds; a spawned greenlet costs a weak reference more. Only greenlets
of `gevent.Greenlet` and its subclasses are counted, not raw ones.
"""

from __future__ import annotations

try:
    from gevent import Greenlet, get_hub
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.metrics.gevent_hub needs gevent: pip install 'sepelib-metrics[gevent]'"
    ) from e

import gc
import math
import time
import weakref

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gevent.hub import Hub

    from sepelib.metrics.registry import Registry

    AnyGreenlet = Greenlet[..., Any]

__all__ = ["register"]

_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


_registered: dict[Registry, Callable[[], None]] = {}


def register(registry: Registry, *, interval: float = 0.1) -> Callable[[], None]:
    """Let *registry* tell about the hub of the calling thread; the result, called there, ends that.

    Twice is the same as once: a registry tells about one hub.
    *interval*: seconds between two timers. They keep no loop alive.
    """
    if not 0 < interval < math.inf:
        raise ValueError(f"the time between two timers is positive and finite, not {interval!r}")

    if registry in _registered:
        return _registered[registry]
    hub = get_hub()
    pool = hub.threadpool  # the first look makes it: here, in the thread of its hub
    timer = _Timer(hub, interval, registry)
    greenlets = _Greenlets()
    gauges: list[tuple[str, str, Callable[[], float]]] = [
        ("gevent_greenlets", "Greenlets started and not ended.", greenlets.alive),
        ("gevent_loop_watchers", "What keeps the loop waiting.", lambda: hub.loop.activecnt),
        ("gevent_threadpool_size", "Threads of the pool.", lambda: pool.size),
        ("gevent_threadpool_max_size", "How many they may be.", lambda: pool.maxsize),
        ("gevent_threadpool_tasks", "Tasks that run or wait in the pool.", lambda: len(pool)),
        ("gevent_threadpool_queued", "Tasks that wait for a thread.", pool.task_queue.qsize),
    ]
    undo = [registry.gauge(name, help).bind(fn) for name, help, fn in gauges]

    undo += [timer.close, greenlets.close]

    def unregister() -> None:
        _registered.pop(registry, None)
        for each in undo:
            each()

    _registered[registry] = unregister
    return unregister


class _Timer:
    """Observes by how much each timer comes too late."""

    def __init__(self, hub: Hub, interval: float, registry: Registry) -> None:
        self._interval = interval
        self._latency = registry.histogram(
            "gevent_hub_latency_seconds", "How late the hub served a timer.", buckets=_LATENCIES
        )
        self._watcher = hub.loop.timer(0.0, repeat=interval, ref=False)
        self._start()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()

    def _start(self) -> None:
        self._due = time.monotonic() + self._interval
        self._watcher.again(self._late)

    def _late(self) -> None:
        self._latency.observe(max(0.0, time.monotonic() - self._due))
        self._start()


class _Greenlets:
    """Those that were alive when this was made, and all that are spawned from then on."""

    def __init__(self) -> None:
        self._references: set[weakref.ref[AnyGreenlet]] = set()
        Greenlet.add_spawn_callback(self._spawned)
        for thing in gc.get_objects():
            # Not isinstance(): it would ask objects that pretend to be others.
            if issubclass(type(thing), Greenlet):
                self._spawned(thing)

    def alive(self) -> int:
        greenlets = [reference() for reference in list(self._references)]
        return sum(bool(greenlet) for greenlet in greenlets)

    def close(self) -> None:
        Greenlet.remove_spawn_callback(self._spawned)
        self._references.clear()

    def _spawned(self, greenlet: AnyGreenlet) -> None:
        self._references.add(weakref.ref(greenlet, self._references.discard))
