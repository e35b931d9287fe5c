"""Measure how long a block or a function takes."""

from __future__ import annotations

from sepelib.metrics._buckets import FULL

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from sepelib.metrics._histogram import Histogram

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["Timing"]

# CO_GENERATOR | CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR. (`inspect` names them
# too, for 10 ms of import.)
_LAZY = 0x20 | 0x80 | 0x100 | 0x200


class Timing:
    """Of blocks, one after another or nested, or of all calls of the functions it decorates."""

    # No `__init__`, whose call would be a tenth of what timing a block costs: `Histogram.time()`
    # fills these.
    __slots__ = ("histogram", "outer", "start")
    histogram: Histogram
    start: float | None  # of the innermost block
    outer: tuple[float, Any] | None  # `start` and `outer` of the block around it

    def __enter__(self) -> None:
        if self.start is not None:
            self.outer = self.start, self.outer
        self.start = self.histogram._clock()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        histogram = self.histogram
        now = histogram._clock()
        # As in `observe_at()`, whose call would be felt here.
        buffer = histogram._buffer
        if now >= histogram._slice_end or len(buffer) >= FULL:
            histogram._settle(now)
        buffer.append(now - self.start)  # type: ignore[operator]
        if self.outer is None:
            self.start = None
        else:
            self.start, self.outer = self.outer

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        import functools  # 2 ms

        _refuse_lazy(fn)
        clock = self.histogram._clock
        observe_at = self.histogram.observe_at

        @functools.wraps(fn)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = clock()
            try:
                return fn(*args, **kwargs)
            finally:
                now = clock()
                observe_at(now, now - start)

        return timed


def _refuse_lazy(fn: object) -> None:
    import functools

    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError(f"put time() below @{type(fn).__name__}, next to the function")
    if not callable(fn):
        raise TypeError(f"time() decorates a function, and {fn!r} is none")
    while isinstance(fn, functools.partial):
        fn = fn.func
    # Of a function or method, else of an object's `__call__`; builtins and classes have none.
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    if getattr(code, "co_flags", 0) & _LAZY:
        raise TypeError(
            f"{fn!r} is a generator or coroutine function: calling it takes no time; "
            "use `with ...time():` inside of it"
        )
