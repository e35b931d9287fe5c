"""What this process uses: processor, memory, descriptors, threads, garbage collection.

    from sepelib.metrics import process
    process.register(registry)

| metric | kind |
|---|---|
| `process_cpu_seconds` | counter: user and system time |
| `process_resident_memory_bytes`, `process_virtual_memory_bytes` | gauges |
| `process_open_fds`, `process_max_fds` | gauges |
| `process_start_time_seconds` | gauge: Unix time |
| `process_threads` | gauge: threads of the operating system, not greenlets |
| `python_gc_collections` (generation) | counter |
| `python_gc_objects_collected`, `python_gc_objects_uncollectable` (generation) | counters |
| `python_gc_pause_seconds` (generation) | histogram |

The names are those of Prometheus' own clients, where these have one. All is read at the dump, most
of it from /proc (Linux), within a tenth of a millisecond, and longer for thousands of descriptors;
the pauses are measured at each collection, for a microsecond. A forked child reports itself, with
counters that go on from its parent's, like all others.
"""

from __future__ import annotations

import gc
import os
import time

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable

    from sepelib.metrics.counters import Counter
    from sepelib.metrics.registry import Registry

__all__ = ["register"]

_PAUSES = (0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

# Places in /proc/self/stat, counted behind the name of the command: see proc(5).
_THREADS, _START, _VIRTUAL, _RESIDENT = 17, 19, 20, 21


_registered: dict[Registry, Callable[[], None]] = {}


def register(registry: Registry) -> Callable[[], None]:
    """Let *registry* tell about this process; the result ends that. Twice is the same as once.

    What cannot be read is left out of the dump, and counted in `metrics_faults`.
    """
    if registry in _registered:
        return _registered[registry]
    gauges: list[tuple[str, str, Callable[[], float]]] = [
        ("process_max_fds", "Descriptors that may be open.", _max_fds),
        ("process_open_fds", "Descriptors that are open.", _open_fds),
        ("process_resident_memory_bytes", "Memory in use.", _resident_memory),
        ("process_start_time_seconds", "When the process started, Unix time.", _StartTime()),
        ("process_threads", "Threads of the operating system.", lambda: _stat(_THREADS)),
        ("process_virtual_memory_bytes", "Memory mapped.", lambda: _stat(_VIRTUAL)),
    ]
    undo = [registry.gauge(name, help).bind(fn) for name, help, fn in gauges]
    undo += [registry.collect_hook(_Counters(registry).update), _Pauses(registry).close]

    def unregister() -> None:
        _registered.pop(registry, None)
        for each in undo:
            each()

    _registered[registry] = unregister
    return unregister


class _Counters:
    """What the system and the interpreter count themselves."""

    def __init__(self, registry: Registry) -> None:
        self._cpu = _Follower(registry.counter("process_cpu_seconds", "User and system time."))
        self._gc = {
            key: [_Follower(family.labels(str(generation))) for generation in range(3)]
            for key, family in [
                (key, registry.counter(f"python_gc_{name}", help, ("generation",)))
                for key, name, help in [
                    ("collections", "collections", "Garbage collections."),
                    ("collected", "objects_collected", "Objects that they freed."),
                    ("uncollectable", "objects_uncollectable", "Objects that they could not."),
                ]
            ]
        }

    def update(self) -> None:
        self._cpu.follow(time.process_time())
        stats = gc.get_stats()
        for key, followers in self._gc.items():
            for follower, generation in zip(followers, stats, strict=False):
                follower.follow(generation[key])


class _Follower:
    """A counter that grows as something else does, which begins anew in a forked child."""

    __slots__ = ("_counter", "_seen")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: float = 0

    def follow(self, value: float) -> None:
        seen, self._seen = self._seen, value
        self._counter.inc(value - seen if value >= seen else value)


class _Pauses:
    """Measures each garbage collection, which stops all that the process does."""

    def __init__(self, registry: Registry) -> None:
        family = registry.histogram(
            "python_gc_pause_seconds",
            "How long garbage collections took.",
            ("generation",),
            buckets=_PAUSES,
        )
        self._pauses = [family.labels(str(generation)) for generation in range(3)]
        self._start = 0.0
        gc.callbacks.append(self._collecting)

    def close(self) -> None:
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        # One collection runs at a time, in one thread.
        if phase == "start":
            self._start = time.perf_counter()
        else:
            self._pauses[info["generation"]].observe(time.perf_counter() - self._start)


class _StartTime:
    """Asked once for each process: it is worked out from a clock that may be set."""

    def __init__(self) -> None:
        self._known: tuple[int, float] | None = None

    def __call__(self) -> float:
        pid = os.getpid()
        if self._known is None or self._known[0] != pid:
            since_boot = _stat(_START) / os.sysconf("SC_CLK_TCK")
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
            self._known = pid, round(time.time() - age, 2)
        return self._known[1]


def _stat(place: int) -> int:
    with open("/proc/self/stat", "rb") as file:
        # The name of the command may hold spaces and parentheses.
        return int(file.read().rpartition(b")")[2].split()[place])


def _resident_memory() -> int:
    return _stat(_RESIDENT) * os.sysconf("SC_PAGE_SIZE")


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them


def _max_fds() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
