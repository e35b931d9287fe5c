import functools
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest
from gevent.monkey import get_original

from sepelib.util import instrument
from sepelib.util.instrument import AMBIENT, NULL, Recorder, install

_numbers = itertools.count(1)


class Series:
    """Counter, gauge and histogram in one, of a recorder in memory."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.value = 0.0
        self.observed: list[float] = []
        self.asked: dict[object, Callable[[], float]] = {}
        self.on_detach: Callable[[], object] = int
        self.declared = labels
        self.children: dict[tuple[str, ...], Series] = {}

    def inc(self, n: float = 1, /) -> None:
        self.value += n

    def dec(self, n: float = 1, /) -> None:
        self.value -= n

    def set(self, value: float, /) -> None:
        self.value = value

    def observe(self, value: float, /) -> None:
        self.observed.append(value)

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        key = object()
        self.asked[key] = fn

        def detach() -> None:
            self.asked.pop(key, None)
            self.on_detach()

        return detach

    def labels(self, *values: str) -> "Series":
        if len(values) != len(self.declared):
            raise ValueError(f"{len(values)} values for {self.declared}")
        return self.children.setdefault(values, Series(()))

    def read(self) -> float:
        return self.value + sum(fn() for fn in self.asked.values())


class Memory:
    """A recorder that a test reads."""

    def __init__(self) -> None:
        self.families: dict[str, tuple[object, Series]] = {}

    def _make(self, kind: str, name: str, labels: Sequence[str], unit: str = "") -> Series:
        declared = kind, tuple(labels), unit
        made = self.families.setdefault(name, (declared, Series(tuple(labels))))
        if made[0] != declared:
            raise ValueError(f"{name} is {made[0]}")
        return made[1]

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Series:
        return self._make("counter", name, labels)

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Series:
        return self._make("gauge", name, labels)

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> Series:
        return self._make("histogram", name, labels, unit)

    def read(self, name: str, values: tuple[str, ...] = ()) -> float:
        family = self.families[name][1]
        return (family.labels(*values) if values else family).read()

    def observed(self, name: str, values: tuple[str, ...] = ()) -> list[float]:
        family = self.families[name][1]
        return (family.labels(*values) if values else family).observed


@pytest.fixture
def name() -> str:
    return f"test_{next(_numbers)}"  # AMBIENT keeps every name for the life of the process


@pytest.fixture(autouse=True)
def nothing_installed() -> Iterator[None]:
    former = install(NULL)
    yield
    install(former)


def test_null_does_nothing() -> None:
    NULL.counter("a", "Help.", ("b",)).labels("c").inc()
    gauge = NULL.gauge("a")
    gauge.set(1)
    gauge.inc(2)
    gauge.dec(3)
    gauge.bind(pytest.fail)()
    NULL.histogram("a", unit="bytes").observe(1.0)


def test_install_gives_the_former_recorder() -> None:
    one, other = Memory(), Memory()
    assert install(one) is NULL
    assert install(other) is one
    assert install(other) is other
    assert install(NULL) is other


def test_ambient_cannot_report_to_itself() -> None:
    with pytest.raises(ValueError, match="cannot be that itself"):
        install(AMBIENT)
    AMBIENT.counter("test_itself").inc()


def test_what_is_counted_before_an_install_is_nowhere(name: str) -> None:
    counter = AMBIENT.counter(name)
    counter.inc()
    memory = Memory()
    install(memory)
    counter.inc(2)
    counter.inc()
    assert memory.read(name) == 3


def test_counters_and_histograms_go_on_in_the_recorder_installed_last(name: str) -> None:
    counter = AMBIENT.counter(f"{name}_c", "Help.", ("a",)).labels("x")
    histogram = AMBIENT.histogram(f"{name}_h", "Help.", ("a",), unit="bytes").labels("x")
    inc, observe = counter.inc, histogram.observe  # a kept method follows too
    one, other = Memory(), Memory()
    for recorder, count in (one, 1), (other, 2), (NULL, 4), (one, 8):
        install(recorder)
        inc(count)
        observe(count)
    assert one.read(f"{name}_c", ("x",)) == 9
    assert other.read(f"{name}_c", ("x",)) == 2
    assert one.observed(f"{name}_h", ("x",)) == [1, 8]
    assert other.observed(f"{name}_h", ("x",)) == [2]
    assert one.families[f"{name}_h"][0] == ("histogram", ("a",), "bytes")


def test_a_gauge_raised_before_an_install_and_lowered_after_it_is_zero(name: str) -> None:
    plain = AMBIENT.gauge(f"{name}_p")
    labelled = AMBIENT.gauge(f"{name}_l", labels=("a",)).labels("x")
    memory = Memory()
    for gauge in plain, labelled:
        gauge.inc()
        gauge.inc()
    install(memory)
    assert memory.read(f"{name}_p") == memory.read(f"{name}_l", ("x",)) == 2
    for gauge in plain, labelled:
        gauge.dec(2)
    assert memory.read(f"{name}_p") == memory.read(f"{name}_l", ("x",)) == 0


def test_a_gauge_keeps_its_value_from_recorder_to_recorder(name: str) -> None:
    gauge, one, other = AMBIENT.gauge(name), Memory(), Memory()
    install(one)
    gauge.set(5)
    assert one.read(name) == 5
    install(other)
    gauge.inc(2)
    assert other.read(name) == 7
    assert one.read(name) == 0  # it reports there no longer
    install(one)
    assert (one.read(name), other.read(name)) == (7, 0)


def test_a_gauge_made_after_the_install_reports_too(name: str) -> None:
    memory = Memory()
    install(memory)
    AMBIENT.gauge(name, labels=("a",)).labels("x").set(3)
    assert memory.read(name, ("x",)) == 3


def test_callbacks_are_bound_by_the_install_and_asked_at_each_dump(name: str) -> None:
    gauge, one, other = AMBIENT.gauge(name), Memory(), Memory()
    size = [1.0]
    detach = gauge.bind(lambda: size[0])
    install(one)
    assert one.read(name) == 1
    size[0] = 4.0
    assert one.read(name) == 4
    install(other)
    assert (one.read(name), other.read(name)) == (0, 4)
    detach()
    assert other.read(name) == 0


def test_callbacks_of_one_series_are_summed_and_detached_one_by_one(name: str) -> None:
    memory = Memory()
    install(memory)
    gauge = AMBIENT.gauge(name, labels=("pool",)).labels("x")
    detach_one = gauge.bind(lambda: 3)
    detach_other = gauge.bind(lambda: 4)
    gauge.inc()
    assert memory.read(name, ("x",)) == 8
    detach_one()
    detach_one()
    assert memory.read(name, ("x",)) == 5
    detach_other()
    assert memory.read(name, ("x",)) == 1


def test_the_same_name_kind_and_labels_give_the_same_instrument(name: str) -> None:
    for kind in "counter", "gauge", "histogram":
        make = getattr(AMBIENT, kind)
        family = make(f"{name}_{kind}", "Help.", ["a", "b"])
        assert make(f"{name}_{kind}", "Other help.", ("a", "b")) is family
        assert family.labels("x", "y") is family.labels("x", "y")
        assert family.labels("x", "y") is not family.labels("y", "x")
        plain = make(f"{name}_{kind}_plain")
        assert make(f"{name}_{kind}_plain") is plain
        assert plain.labels() is plain


def test_another_kind_other_labels_or_another_unit_are_refused(name: str) -> None:
    AMBIENT.histogram(name, labels=("a", "b"))
    with pytest.raises(ValueError, match=rf"histogram '{name}' has the labels \(a, b\).*cannot be"):
        AMBIENT.counter(name, labels=("a", "b"))
    with pytest.raises(ValueError, match="cannot be a gauge"):
        AMBIENT.gauge(name, labels=("a", "b"))
    with pytest.raises(ValueError, match=r"labels \(b, a\) too"):
        AMBIENT.histogram(name, labels=("b", "a"))
    with pytest.raises(ValueError, match="unit 'seconds' already"):
        AMBIENT.histogram(name, labels=("a", "b"), unit="bytes")


@pytest.mark.parametrize("values", [(), ("x",), ("x", "y", "z")])
def test_a_wrong_number_of_label_values_is_refused(name: str, values: tuple[str, ...]) -> None:
    for family in (
        AMBIENT.counter(f"{name}_c", labels=("a", "b")),
        AMBIENT.gauge(f"{name}_g", labels=("a", "b")),
        AMBIENT.histogram(f"{name}_h", labels=("a", "b")),
    ):
        with pytest.raises(ValueError, match=rf"labels \(a, b\): {len(values)} values were given"):
            family.labels(*values)
    with pytest.raises(ValueError, match="has no labels: 1 values"):
        AMBIENT.counter(f"{name}_plain").labels("x")


def test_a_label_value_that_is_no_str_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"values are str, not \(200,\)"):
        AMBIENT.counter(name, labels=("status",)).labels(200)  # type: ignore[arg-type]


def test_a_family_with_labels_is_used_through_them(name: str) -> None:
    counter = AMBIENT.counter(f"{name}_c", labels=("a",))
    gauge = AMBIENT.gauge(f"{name}_g", labels=("a",))
    histogram = AMBIENT.histogram(f"{name}_h", labels=("a",))
    for use in (
        counter.inc,
        gauge.inc,
        gauge.dec,
        lambda: gauge.set(1),
        lambda: gauge.bind(lambda: 1.0),
        lambda: histogram.observe(1),
    ):
        with pytest.raises(ValueError, match=r"has the labels \(a\): use labels\(\.\.\.\)"):
            use()


def test_labels_given_as_one_str_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="a sequence of names, not a str"):
        AMBIENT.counter(name, labels="method")


def test_a_counter_named_total_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="goes without '_total'"):
        AMBIENT.counter(f"{name}_total")


def test_a_recorder_that_refuses_a_gauge_is_not_installed(name: str) -> None:
    gauges = [AMBIENT.gauge(f"{name}_{n}") for n in range(3)]
    good, clashing = Memory(), Memory()
    clashing.counter(f"{name}_1")
    install(good)
    with pytest.raises(ValueError, match=f"{name}_1 is"):
        install(clashing)
    for gauge in gauges:
        gauge.inc()
    assert [good.read(f"{name}_{n}") for n in range(3)] == [1, 1, 1]
    assert clashing.read(f"{name}_0") == 0
    assert install(NULL) is good


def test_a_recorder_that_refuses_a_counter_says_so_at_its_use(name: str) -> None:
    counter, clashing, good = AMBIENT.counter(name), Memory(), Memory()
    clashing.gauge(name)
    install(clashing)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{name} is"):
            counter.inc()
    install(good)
    counter.inc()
    assert good.read(name) == 1


def test_endless_label_values_take_no_memory(name: str) -> None:
    memory = Memory()
    install(memory)
    family = AMBIENT.counter(name, labels=("path",))
    first = family.labels("0")
    gc.collect()
    for n in range(1000):
        family.labels(str(n)).inc()
    before = len(gc.get_objects())
    install(NULL)
    for n in range(1000, 21_000):
        family.labels(str(n)).inc()
    assert len(gc.get_objects()) < before + 2000
    assert family.labels("0") is first
    install(memory)
    family.labels("9999").inc()  # not kept, and counted all the same
    family.labels("9999").inc()
    assert memory.read(name, ("9999",)) == 2


def run_in_native_threads(works: Sequence[Callable[[], object]]) -> None:
    """Real threads in both worlds, switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    pool = gevent.get_hub().threadpool
    sys.setswitchinterval(1e-6)
    try:
        for task in [pool.spawn(work) for work in works]:
            task.get()
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("gauge_class", [instrument._Gauge, instrument._LockedGauge])
def test_native_threads_lose_nothing_of_a_gauge(
    gauge_class: type[instrument._Gauge], name: str
) -> None:
    gauge = gauge_class(instrument._Family("gauge", name, "", (), None), ())

    def up() -> None:
        for _ in range(20_000):
            gauge.inc(2)

    def down() -> None:
        for _ in range(20_000):
            gauge.dec()

    run_in_native_threads([up, up, down, down])
    assert gauge.read() == 40_000


def test_a_gauge_takes_amounts_of_foreign_types(name: str) -> None:
    # Their `+` is Python code, during which another thread may run: they are converted before.
    class Amount(float):
        def __radd__(self, other: float) -> float:
            raise AssertionError

        def __rsub__(self, other: float) -> float:
            raise AssertionError

    memory = Memory()
    install(memory)
    gauge = AMBIENT.gauge(name)
    gauge.inc(Amount(2))
    gauge.dec(Amount(0.5))
    assert memory.read(name) == 1.5


def test_threads_that_install_and_count_lose_nothing(name: str) -> None:
    counters = [AMBIENT.counter(f"{name}_c{n}") for n in range(4)]
    gauge = AMBIENT.gauge(f"{name}_g")
    gauge.set(0)
    memories = [Memory(), Memory()]
    install(memories[0])

    def count(n: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(5_000):
                gauge.inc()
                counters[n].inc()
                gauge.dec()

        return work

    def switch() -> None:
        for n in range(1000):
            install(memories[n % 2])

    run_in_native_threads([*[count(n) for n in range(4)], switch])
    for n in range(4):
        told = sum(m.read(f"{name}_c{n}") for m in memories if f"{name}_c{n}" in m.families)
        assert told == 5_000
    assert memories[1].read(f"{name}_g") == memories[0].read(f"{name}_g") == 0
    assert sum(len(m.families[f"{name}_g"][1].asked) for m in memories) == 1


class Switching(Memory):
    """Lets other native threads run while it makes something."""

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Series:
        get_original("time", "sleep")(0.001)
        return super().gauge(name, help, labels)


def test_threads_that_ask_for_one_series_get_one(name: str) -> None:
    memory = Switching()
    install(memory)
    made: list[object] = []
    family = AMBIENT.gauge(name, labels=("a",))

    def work() -> None:
        for n in range(5):
            made.append(AMBIENT.gauge(f"{name}_{n}"))
            made.append(family.labels(str(n)))

    run_in_native_threads([work] * 4)
    assert len(made) == 40
    assert len(set(map(id, made))) == 10
    for n in range(5):
        assert len(memory.gauge(f"{name}_{n}").asked) == 1
        assert len(memory.gauge(name, "", ("a",)).labels(str(n)).asked) == 1


def test_threads_that_install_at_once_leave_the_gauges_with_the_installed_one(name: str) -> None:
    AMBIENT.gauge(name)
    memories = [Memory(), Memory(), Memory()]
    install(memories[0])
    # Whoever comes first is held up when it has moved the gauge.
    memories[0].gauge(name).on_detach = lambda: get_original("time", "sleep")(0.05)
    run_in_native_threads([functools.partial(install, memory) for memory in memories[1:]])
    asked = [len(memory.gauge(name).asked) for memory in memories]
    installed = install(NULL)
    assert asked == [int(memory is installed) for memory in memories]


def test_a_finalizer_that_counts_in_the_midst_of_a_creation_does_not_deadlock(name: str) -> None:
    class Closing:
        def __del__(self) -> None:
            AMBIENT.counter(f"{name}_closed", labels=("n",)).labels("x").inc()

    class Collecting(Memory):
        garbage: list[Closing] = [Closing()]

        def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Series:
            self.garbage.clear()  # as the garbage collector may at any time
            return super().counter(name, help, labels)

    memory = Collecting()
    install(memory)
    thread = threading.Thread(target=AMBIENT.counter(f"{name}_other").inc, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert memory.read(f"{name}_other") == memory.read(f"{name}_closed", ("x",)) == 1


def test_nothing_installed_costs_nearly_nothing(name: str) -> None:
    class Empty:
        __slots__ = ()

        def inc(self, n: float = 1, /) -> None:
            pass

    def cost(call: Callable[[], None]) -> float:
        best = 1e9
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(2000):
                call()
            best = min(best, time.perf_counter() - started)
        return best

    counter = AMBIENT.counter(name, labels=("a",)).labels("x")
    assert cost(counter.inc) < 4 * cost(Empty().inc)  # about 1.3


def test_the_shapes_are_kept_by_ambient_and_null() -> None:
    recorders: list[Recorder] = [AMBIENT, NULL, Memory()]  # checked by mypy
    assert len(recorders) == 3
