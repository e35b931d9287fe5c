"""What can go wrong with a server, and what ends a request that does not end by itself.

Error
└── CannotListen          the address is taken, not ours, or no address
gevent.Timeout            (a BaseException)
└── RequestTimedOut       the application did not end a request in time
"""

from __future__ import annotations

import gevent

from sepelib.core.exceptions import Error

__all__ = ["CannotListen", "RequestTimedOut"]


class CannotListen(Error):
    """Nothing can be served at *address*: *reason* says why, and what to do."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot listen at {self.address}: {self.reason}"


class RequestTimedOut(gevent.Timeout):
    """Strikes, wherever it waits, an application that goes on after its deadline.

    A BaseException: `except Exception` does not stop it, `finally` and `with` run. Whoever catches
    it has to raise it again. What computes without a wait, or blocks the process since gevent has
    not patched it, is not struck.
    """

    def __reduce__(self) -> tuple[type[RequestTimedOut], tuple[float | None]]:
        return type(self), (self.seconds,)  # without the timer, which is this process's

    def __str__(self) -> str:
        return f"the request did not end within {self.seconds:.3g} s"
