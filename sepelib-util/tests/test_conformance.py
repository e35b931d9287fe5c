"""The checks of the seams, against what keeps the contract and against what breaks it."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import gevent
import gevent.event
import pytest

from sepelib.util import deadline as deadline_module
from sepelib.util.deadline import DeadlineExceeded, clip
from sepelib.util.instrument import AMBIENT, install
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing._check_deadline import check_obeys_deadline
from sepelib.util.testing._check_errors import check_error, check_errors
from sepelib.util.testing._check_recorder import check_recorder
from sepelib.util.testing._check_retry import check_transport_nesting


class Series:
    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.value = 0.0
        self.asked: list[Callable[[], float]] = []
        self.declared = labels
        self.children: dict[tuple[str, ...], Any] = {}

    def inc(self, n: float = 1, /) -> None:
        self.value += n

    def dec(self, n: float = 1, /) -> None:
        self.value -= n

    def set(self, value: float, /) -> None:
        self.value = value

    observe = set

    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        self.asked.append(fn)

        def detach() -> None:
            with contextlib.suppress(ValueError):
                self.asked.remove(fn)

        return detach

    def labels(self, *values: str) -> Any:
        if len(values) != len(self.declared):
            raise ValueError("wrong number of values")
        return self.children.setdefault(values, type(self)())

    def read(self) -> float:
        return self.value + sum(fn() for fn in self.asked)


class Memory:
    series: type[Series] = Series

    def __init__(self) -> None:
        self.families: dict[str, Series] = {}
        self.kinds: dict[str, object] = {}

    def make(self, kind: str, name: str, labels: Sequence[str]) -> Any:
        if self.kinds.setdefault(name, (kind, tuple(labels))) != (kind, tuple(labels)):
            raise ValueError("another instrument has this name")
        if name not in self.families:
            self.families[name] = self.series(tuple(labels))
        return self.families[name]

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Any:
        return self.make("counter", name, labels)

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = ()) -> Any:
        return self.make("gauge", name, labels)

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), *, unit: str = "seconds"
    ) -> Any:
        return self.make("histogram", name, labels)

    def read(self, name: str, values: tuple[str, ...]) -> float:
        family = self.families[name]
        return (family.labels(*values) if values else family).read()


# -- recorders -------------------------------------------------------------------------------------


def test_a_good_recorder_passes() -> None:
    memory = Memory()
    check_recorder(memory, memory.read)
    check_recorder(memory, memory.read)  # a second check of a shared one
    check_recorder(memory)


def test_the_ambient_recorder_passes_with_and_without_one_installed() -> None:
    check_recorder(AMBIENT)
    memory = Memory()
    former = install(memory)
    try:
        check_recorder(AMBIENT, memory.read)
    finally:
        install(former)


class AlwaysNew(Memory):
    def make(self, kind: str, name: str, labels: Sequence[str]) -> Any:
        return self.series(tuple(labels))


class AnyKind(Memory):
    def make(self, kind: str, name: str, labels: Sequence[str]) -> Any:
        return self.families.setdefault(f"{name}{tuple(labels)}", self.series(tuple(labels)))


class NewChildren(Series):
    def labels(self, *values: str) -> Any:
        super().labels(*values)
        return Series()


class AnyCount(Series):
    def labels(self, *values: str) -> Any:
        return self.children.setdefault(values, AnyCount())


class SortedValues(Series):
    def labels(self, *values: str) -> Any:
        return super().labels(*sorted(values))


class CountsByOne(Series):
    def inc(self, n: float = 1, /) -> None:
        self.value += 1


class LastCallbackOnly(Series):
    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        self.asked.clear()
        return super().bind(fn)


class AsksAtBind(Series):
    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        value = fn()
        return super().bind(lambda: value)


class NeverDetaches(Series):
    def bind(self, fn: Callable[[], float]) -> Callable[[], None]:
        super().bind(fn)
        return lambda: None


def of(series: type[Series]) -> Memory:
    memory = Memory()
    memory.series = series
    return memory


@pytest.mark.parametrize(
    ("memory", "complaint"),
    [
        (AlwaysNew(), "made twice, it is two instruments"),
        (AnyKind(), "other labels: not refused"),
        (of(NewChildren), r"labels\(\) twice gave two series"),
        (of(AnyCount), "0 of 2 values: not refused"),
        (of(SortedValues), "the order of label values is ignored"),
        (of(CountsByOne), r"shows 2\.0, not 3\.5"),
        (of(LastCallbackOnly), r"shows 4\.0, not 7"),
        (of(AsksAtBind), r"shows 7\.0, not 9"),
        (of(NeverDetaches), r"shows 9\.0, not 4"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_recorder_that_breaks_the_contract_fails(memory: Memory, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_recorder(memory, memory.read)


# -- deadlines -------------------------------------------------------------------------------------


def test_a_call_that_clips_its_wait_obeys() -> None:
    def call() -> None:
        threading.Event().wait(clip(60.0))
        clip(60.0)

    check_obeys_deadline(call)


def raises(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def ignores_a_deadline_that_is_over() -> None:
    left = clip(60.0) if (current := deadline_module.Deadline.current()) is None else current
    assert isinstance(left, deadline_module.Deadline)
    time.sleep(max(0.5, left.remaining()))
    left.check()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: 5, r"returned 5 under a deadline of 0\.1 s"),
        (raises(TimeoutError("t")), r"ended with TimeoutError\('t'\), not with DeadlineExceeded"),
        (raises(DeadlineExceeded("at once")), "it never blocked"),
        (ignores_a_deadline_that_is_over, r"ended 0\.\d s after its deadline|took 0\.5 s to see"),
    ],
)
def test_a_call_that_does_not_obey_fails(call: Callable[[], object], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_obeys_deadline(call, seconds=0.1, grace=0.2)


def test_a_cancellation_passes_the_check_untouched() -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        check_obeys_deadline(lambda: gevent.sleep(60))


# -- retries ---------------------------------------------------------------------------------------


class Transport:
    def __init__(self, *, attempts: int = 3, layer: Any = "transport") -> None:
        self.tries = 0
        self.policy = RetryPolicy(OSError, attempts=attempts, backoff=Backoff(0), layer=layer)

    def call(self) -> None:
        self.policy(self._send)

    def _send(self) -> None:
        self.tries += 1
        raise ConnectionError("down")


def test_a_transport_that_gives_way_passes() -> None:
    transport = Transport()
    check_transport_nesting(transport.call, lambda: transport.tries, on=ConnectionError)


@pytest.mark.parametrize(
    ("transport", "complaint"),
    [
        (Transport(layer=None), "inside 2 attempts of a transport: 6 tries, not 2"),
        (Transport(attempts=1), "made 1 attempt: there is no retry"),
    ],
    ids=["not a transport", "no retries"],
)
def test_a_transport_that_does_not_give_way_fails(transport: Transport, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_transport_nesting(transport.call, lambda: transport.tries, on=ConnectionError)


def test_a_transport_that_swallows_its_error_fails() -> None:
    with pytest.raises(AssertionError, match="returned instead of raising ConnectionError"):
        check_transport_nesting(lambda: None, lambda: 0, on=ConnectionError)


# -- errors ----------------------------------------------------------------------------------------


class LeaseLost(Exception):
    def __init__(self, path: str, waited: float) -> None:
        super().__init__(path, waited)
        self.path = path
        self.waited = waited

    def __str__(self) -> str:
        return f"{self.path}: lost after {self.waited:.1f} s"


class PeerGone(OSError):
    def __init__(self, peer: str, sent: int = 0) -> None:
        super().__init__(f"{peer} is gone, {sent} bytes were sent")
        self.peer = peer
        self.sent = sent

    def __reduce__(self) -> tuple[type["PeerGone"], tuple[str, int]]:
        return type(self), (self.peer, self.sent)


class Unpicklable(Exception):
    def __init__(self, path: str, *, code: int) -> None:
        super().__init__(path)
        self.code = code


class LosesField(OSError):
    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> tuple[type["LosesField"], tuple[str]]:
        return type(self), (str(self),)


class TwoLines(Exception):
    def __str__(self) -> str:
        return "first\nsecond"


class ServiceException(Exception):
    pass


def test_good_errors_pass() -> None:
    check_error(LeaseLost("/lock", 3.0))
    check_error(PeerGone("host:80", 5))
    check_error(DeadlineExceeded("host:80: over"))
    check_errors(deadline_module)


def test_an_error_with_notes_passes() -> None:
    error = LeaseLost("/lock", 3.0)
    error.add_note("while leading")
    check_error(error)


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (LosesField("text", 5), "changes the fields"),
        (TwoLines(), "is not one line"),
        (ServiceException("x"), "a name ends in a condition"),
        (ValueError(""), "is not one line"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_bad_error_fails(error: BaseException, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_error(error)


def test_an_error_that_does_not_pickle_fails() -> None:
    with pytest.raises(AssertionError, match=r"Unpicklable: pickle 2 fails: .*'code'"):
        check_error(Unpicklable("/x", code=5))


def module(**names: object) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(names, __all__=list(names))
    return made


def test_each_public_error_of_a_module_needs_an_example() -> None:
    made = module(LeaseLost=LeaseLost, helper=len, Number=int)
    with pytest.raises(AssertionError, match=r"no example of LeaseLost: .*'waited'"):
        check_errors(made)
    check_errors(made, examples=[LeaseLost("/lock", 3.0)])


def test_a_bad_error_of_a_module_is_found() -> None:
    with pytest.raises(AssertionError, match="ServiceException: a name ends in a condition"):
        check_errors(deadline_module, module(ServiceException=ServiceException))
