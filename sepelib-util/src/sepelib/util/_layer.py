"""Whether this context is inside a transport's retry policy already.

A module of its own: `retry` sets the mark, `deadline.detached()` clears it, and `retry` stands
on `deadline`.
"""

from contextvars import ContextVar

__all__ = ["in_transport"]

in_transport: ContextVar[bool] = ContextVar("sepelib.util.retry.in_transport", default=False)
