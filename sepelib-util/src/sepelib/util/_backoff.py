"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from sepelib.util._frozen import Frozen
from sepelib.util.deadline import checked_seconds

if TYPE_CHECKING:
    import random

__all__ = ["Backoff"]


class Backoff(Frozen):
    """Waits that grow by *factor* from *base* up to *cap* seconds.

    jitter: "full" draws each wait evenly from 0 up to that bound, so that clients which failed
    together do not come back together; "none" waits the bound itself.
    Source: M. Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
    Sharing: a value; any number of threads, greenlets and policies.
    """

    __slots__ = ("base", "cap", "factor", "jitter")
    base: float
    factor: float
    cap: float
    jitter: Literal["full", "none"]

    def __init__(
        self,
        base: float = 0.1,
        factor: float = 2.0,
        cap: float = 5.0,
        jitter: Literal["full", "none"] = "full",
    ) -> None:
        if not 1 <= factor < float("inf"):
            raise ValueError(f"the factor of a Backoff is at least 1, not {factor!r}")
        if jitter not in ("full", "none"):
            raise ValueError(f"the jitter of a Backoff is 'full' or 'none', not {jitter!r}")
        self._freeze(
            base=checked_seconds(base, "the base of a Backoff"),
            factor=float(factor),
            cap=checked_seconds(cap, "the cap of a Backoff"),
            jitter=jitter,
        )

    def delays(self, *, rng: random.Random | None = None) -> Iterator[float]:
        """The waits, in seconds, without end.

        Usable alone: `for delay in backoff.delays(): if stopping.wait(delay): break`.
        """
        bound = min(self.base, self.cap)
        while True:
            if self.jitter == "none" or not bound:
                yield bound
            else:
                yield bound * (rng.random() if rng is not None else _random())
            bound = min(bound * self.factor, self.cap)


def _random() -> float:
    import random  # hashlib and more come with it: only a process that waits pays for them

    return random.random()
