"""Functions whose call does not run their body."""

from __future__ import annotations

import functools

__all__ = ["refuse_lazy"]

# CO_GENERATOR | CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR. (`inspect` names them
# too, for 10 ms of import.)
_LAZY = 0x20 | 0x80 | 0x100 | 0x200


def refuse_lazy(fn: object, who: str, reason: str) -> None:
    """TypeError unless *fn* is callable and its call runs it: no generator, no coroutine.

    *who* is the decorator, *reason* what it would do in vain.
    """
    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError(f"put {who} below @{type(fn).__name__}, next to the function")
    if not callable(fn):
        raise TypeError(f"{who} calls a function, and {fn!r} is none")
    while isinstance(fn, functools.partial):
        fn = fn.func
    # Of a function or method, else of an object's `__call__`; builtins and classes have none.
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    if getattr(code, "co_flags", 0) & _LAZY:
        raise TypeError(
            f"{fn!r} is a generator or coroutine function: calling it runs nothing to {reason}; "
            f"put the {who} inside of it"
        )
