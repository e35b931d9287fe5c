"""Nothing is lost and nothing freezes, whoever comes in the middle of an update.

Each test runs in a process of its own, under a watchdog in C: what freezes there has no other way
to say so. The bodies are functions of this file; the process imports it as a module.
"""

import _thread
import faulthandler
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sepelib.metrics import Registry
from sepelib.metrics._histogram import Histogram, LockedHistogram
from sepelib.metrics._meter import LockedMeter, Meter
from sepelib.metrics._series import Family, Series
from sepelib.metrics.counters import Counter, Gauge, LockedCounter, LockedGauge

LIMIT = 60  # seconds; far more than anything here takes

LOCKED = {
    "counter": LockedCounter,
    "gauge": LockedGauge,
    "meter": LockedMeter,
    "histogram": LockedHistogram,
}


def run(body: Callable[..., None], *arguments: str, patched: bool = False) -> None:
    """`body(*arguments)` in a process of its own, which gevent has patched first or not."""
    main = ["-m", "gevent.monkey", "--no-ssl"] if patched else []
    done = subprocess.run(
        [sys.executable, *main, __file__, body.__name__, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        cwd=Path(__file__).parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]


class Instruments:
    """One of each kind, in the variant of this interpreter or in the one with locks."""

    def __init__(self, variant: str) -> None:
        self.registry = Registry()
        counter = self.registry.counter("jobs")
        gauge = self.registry.gauge("running")
        meter = self.registry.meter("requests")
        histogram = self.registry.histogram("seconds", window=3600.0)
        if variant == "locked":
            counter = self._locked(counter)
            gauge = self._locked(gauge)
            meter = self._locked(meter)
            histogram = self._locked(histogram)
        self.counter: Counter = counter
        self.gauge: Gauge = gauge
        self.meter: Meter = meter
        self.histogram: Histogram = histogram
        self.kinds: Any = self.registry.counter("kinds", "", ("kind",), max_series=10**6)

    def _locked(self, series: Series) -> Any:
        """Put the variant with locks in the place of *series*, so that dumps read it."""
        family: Family = series._family
        family._children[()] = LOCKED[family.kind](family, ())
        return family.labels()

    def use(self, n: int) -> None:
        self.counter.inc()
        self.counter.inc(2)
        self.gauge.inc()
        self.meter.mark()
        self.histogram.observe(n % 7 + 0.5)
        with self.histogram.time():
            pass
        self.kinds.labels(str(n % 100)).inc()
        self.gauge.dec(1)

    def check(self, uses: int) -> None:
        assert self.counter.read() == 3 * uses
        assert self.gauge.read() == 0
        assert self.meter.read().count == uses
        reading = self.histogram.read()
        assert reading.count == reading.window.count == 2 * uses
        counts, count, _ = self.histogram.scrape((0.1, 1e9))
        assert (counts[-1], count) == (2 * uses, 2 * uses)
        kinds = [series.read() for series in self.kinds.series()]
        assert (len(kinds), sum(kinds)) == (min(100, uses), uses)

    def read(self, last: tuple[float, int] = (0, 0)) -> tuple[float, int]:
        """All that a dump reads; what only grows has not shrunk since *last*."""
        self.registry.snapshot()
        counts, count, _ = self.histogram.scrape((0.1, 1, 2, 4, 1e9))
        assert counts == sorted(counts)
        assert counts[-1] == count
        now = self.counter.read(), count
        assert now[0] >= last[0] and now[1] >= last[1]
        return now


def start_thread(body: Callable[[], None]) -> Callable[[float], bool]:
    """Run *body* in a native thread even when patched; the result waits for its end."""
    from gevent.monkey import get_original

    start = get_original("_thread", "start_new_thread")
    done = get_original("_thread", "allocate_lock")()
    done.acquire()

    def run() -> None:
        try:
            body()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        done.release()

    start(run, ())
    return lambda timeout: bool(done.acquire(timeout=timeout))


# What runs in a process of its own.


def threads(variant: str) -> None:
    """Four native threads and a reader; when patched, greenlets and gevent's threadpool too."""
    import gevent
    from gevent.monkey import is_module_patched

    sys.setswitchinterval(1e-6)
    patched = is_module_patched("threading")
    instruments = Instruments(variant)
    each, running = 4_000, [True]

    def write() -> None:
        for n in range(each):
            instruments.use(n)

    def write_and_yield() -> None:
        for n in range(each):
            instruments.use(n)
            if n % 10 == 0:
                gevent.sleep(0)

    def read() -> None:
        last: tuple[float, int] = (0, 0)
        while running[0]:
            last = instruments.read(last)

    writers = [start_thread(write) for _ in range(4)]
    reader = start_thread(read)
    uses = 4 * each
    if patched:
        pool = gevent.get_hub().threadpool
        tasks = [pool.spawn(write) for _ in range(2)]
        greenlets = [gevent.spawn(write_and_yield) for _ in range(3)]
        gevent.joinall(greenlets, raise_error=True)
        for task in tasks:
            task.get()
        uses += 5 * each
    assert all(wait(LIMIT) for wait in writers)
    running[0] = False
    assert reader(LIMIT)
    instruments.check(uses)


def first_use(variant: str) -> None:
    """Threads that make the same metrics and series at the same time."""
    sys.setswitchinterval(1e-6)
    registry = Registry()
    del variant

    def write() -> None:
        for n in range(3_000):
            registry.counter(f"jobs_{n % 50}").inc()
            registry.counter("kinds", "", ("kind",), max_series=500).labels(str(n)).inc()

    waits = [start_thread(write) for _ in range(4)]
    assert all(wait(LIMIT) for wait in waits)
    values = {f.name: [s.read() for s in f.series()] for f in registry.families()}
    assert len(values) == 52
    assert all(values[f"jobs_{n}"] == [4 * 60] for n in range(50))
    assert (len(values["kinds"]), sum(values["kinds"])) == (501, 4 * 3000)
    [overflows] = values["metrics_faults"]
    assert overflows == 4 * 2500


def dropping(variant: str) -> None:
    """Threads that write to series while others drop them as idle."""
    sys.setswitchinterval(1e-6)
    del variant
    ticks = iter(range(10**9))
    registry = Registry(clock=lambda: float(next(ticks)))
    family = registry.counter("users", "", ("name",), ttl=1e-3, max_series=10**6)
    running, sweeps, written = [True], [0], []

    def write() -> None:
        n = 0
        while n < 5_000 or sweeps[0] < 300:
            family.labels(str(n % 3)).inc()
            n += 1
        written.append(n)

    # Each series is held, so that what comes back is all that was ever counted.
    held = [family.labels(str(n)) for n in range(3)]

    def sweep() -> None:
        while running[0]:
            registry.families()
            sweeps[0] += 1

    waits = [start_thread(write) for _ in range(3)]
    sweeper = start_thread(sweep)
    assert all(wait(LIMIT) for wait in waits)
    running[0] = False
    assert sweeper(LIMIT)
    assert sum(series.read() for series in held) == sum(written)
    assert [family.labels(str(n)) for n in range(3)] == held


def forked(variant: str) -> None:
    """A fork while another thread has the lock and drains."""
    instruments = Instruments(variant)
    registry = instruments.registry
    registry.reset_in_children()
    inside, go = _thread.allocate_lock(), _thread.allocate_lock()
    inside.acquire()
    go.acquire()

    def wait(*_: object) -> Series:
        inside.release()
        go.acquire()
        raise ValueError

    def stuck() -> None:
        instruments.histogram._draining = True
        waiting: Any = registry.counter("stuck", "", ("kind",))
        waiting._make = wait
        try:
            waiting.labels("x")
        except ValueError:
            instruments.histogram._draining = False

    ended = start_thread(stuck)
    inside.acquire()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT // 2)  # the watchdog of the parent is not here
        for n in range(1000):
            instruments.use(n)
        registry.counter("new").inc()
        instruments.check(1000)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    go.release()
    assert ended(LIMIT)
    instruments.use(1)
    instruments.check(1)


def interrupted_by_signals(variant: str) -> None:
    """A signal handler that writes and dumps, in the middle of everything."""
    instruments = Instruments(variant)
    handled, amid_a_drain = [0], [0]

    def handle(*_: object) -> None:
        handled[0] += 1
        amid_a_drain[0] += instruments.histogram._draining
        instruments.use(handled[0])
        if handled[0] % 4 == 0:
            instruments.read()

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
    uses = 0
    while handled[0] < 1000 or amid_a_drain[0] < 5:
        for _ in range(50):
            instruments.use(uses)
            uses += 1
        instruments.read()
    signal.setitimer(signal.ITIMER_REAL, 0)
    instruments.check(uses + handled[0])


def ended_by_signals(variant: str) -> None:
    """A handler that raises, as gevent.Timeout and Ctrl-C do, in the middle of an observation."""

    class Cancelled(BaseException):
        pass

    def handle(*_: object) -> None:
        raise Cancelled

    histogram = Instruments(variant).histogram
    done = begun = cancelled = 0
    signal.signal(signal.SIGALRM, handle)
    while cancelled < 500:
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-4 + cancelled * 1e-7)
            while True:
                begun += 1
                histogram.observe(1.0)
                done += 1
                if begun % 100 == 0:
                    histogram.scrape((0.1, 1.0))
        except Cancelled:
            cancelled += 1
    count = histogram.read().count
    assert begun - cancelled <= done <= begun
    assert done <= count <= begun, (done, count, begun)
    assert histogram.scrape((0.1, 1.0)) == ([0, count], count, float(count))
    for _ in range(1000):
        histogram.observe(1.0)
        assert len(histogram._buffer) <= 300  # it is drained again


def interrupted_by_the_collector(variant: str) -> None:
    """A callback of the garbage collector and finalizers, which run where anything is allocated."""
    instruments = Instruments(variant)
    calls, amid_a_drain, inside = [0], [0], [False]

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            instruments.registry.counter("finalized").inc()
            instruments.registry.counter(f"finalized_{calls[0] % 9}").inc()

    def collected(phase: str, _: dict[str, int]) -> None:
        if phase == "start" and not inside[0]:
            inside[0] = True
            calls[0] += 1
            amid_a_drain[0] += instruments.histogram._draining
            instruments.use(calls[0])
            if calls[0] % 20 == 0:
                instruments.read()
            if calls[0] % 100 == 0:
                Cycle()
            inside[0] = False

    gc.callbacks.append(collected)
    uses = 0
    while calls[0] < 3000 or amid_a_drain[0] < 20:
        gc.set_threshold(1 + uses % 13, 1000, 1000)  # else it might always run elsewhere
        instruments.use(uses)
        uses += 1
        if uses % 50 == 0:
            instruments.read()
    gc.callbacks.remove(collected)
    gc.set_threshold(700)
    gc.collect()
    assert instruments.registry.counter("finalized").read() > 5
    instruments.check(uses + calls[0])


def switched_by_the_collector(variant: str) -> None:
    """A callback of the collector that lets other greenlets run while this one drains."""
    import gevent

    instruments = Instruments(variant)
    running, switches, amid_a_drain, others = [True], [0], [0], [0]

    def collected(phase: str, _: dict[str, int]) -> None:
        if phase == "start" and instruments.histogram._draining:
            amid_a_drain[0] += 1
            gevent.sleep(0)

    def other() -> None:
        while running[0]:
            switches[0] += 1
            instruments.use(switches[0])
            others[0] += 1
            instruments.read()
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    gevent.sleep(0)
    gc.callbacks.append(collected)
    uses = 0
    while amid_a_drain[0] < 50 or switches[0] < 50:
        gc.set_threshold(1 + uses % 13, 1000, 1000)  # else it might always run elsewhere
        instruments.use(uses)
        uses += 1
    gc.callbacks.remove(collected)
    gc.set_threshold(700)
    running[0] = False
    greenlet.join()
    instruments.check(uses + others[0])


# The tests.


@pytest.fixture(params=["as it is", "locked"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_threads_and_greenlets_lose_nothing_beside_a_reader(variant: str, patched: bool) -> None:
    run(threads, variant, patched=patched)


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_metrics_and_series_are_made_once_by_many_threads(patched: bool) -> None:
    run(first_use, "as it is", patched=patched)


def test_series_that_are_dropped_as_idle_lose_nothing() -> None:
    run(dropping, "as it is")


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_a_signal_handler_may_write_and_dump(variant: str, patched: bool) -> None:
    run(interrupted_by_signals, variant, patched=patched)


def test_a_signal_handler_may_raise() -> None:
    run(ended_by_signals, "as it is")


def test_a_child_forked_beside_a_thread_is_not_stuck_where_that_was(variant: str) -> None:
    run(forked, variant)


def test_a_callback_of_the_collector_may_write_and_dump(variant: str) -> None:
    run(interrupted_by_the_collector, variant)


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_greenlets_may_be_switched_in_the_middle_of_a_drain(variant: str, patched: bool) -> None:
    run(switched_by_the_collector, variant, patched=patched)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    globals()[sys.argv[1]](*sys.argv[2:])
