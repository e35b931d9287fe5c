"""The loss of exactly one answer: the server has done the work, its client never hears of it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

__all__ = ["LostAnswer"]


class _State(enum.Enum):
    ARMED = "no request matched yet"
    CLAIMED = "a request matched, its answer has not come yet"
    LOST = "lost"
    CANCELLED = "cancelled"


class LostAnswer:
    """One answer that will be, or was, lost; made by `FlakyProxy.lose_answer`.

    In a `with` it insists: a block that ends well without a matching request is an
    AssertionError, since its test has tested nothing.
    """

    WINDOW = 1 << 20
    """How many bytes of a connection's requests the predicate sees at most: the last ones."""

    def __init__(
        self,
        is_request: Callable[[bytes], object],
        is_answer: Callable[[bytes], object] | None,
        then: Literal["cut", "reset", "hold"],
        disarm: Callable[[LostAnswer], None],
    ) -> None:
        self.is_request = is_request
        self.then = then
        self.lost = threading.Event()
        """Set when the answer is swallowed."""
        self.request = b""
        """The bytes that matched."""
        self.answer = b""
        """The bytes that the client did not get."""
        self._is_answer = is_answer
        self._disarm = disarm
        self._state = _State.ARMED

    def wait(self, *, timeout: float = 10.0) -> None:
        """Return when the answer is lost; TimeoutError after *timeout* seconds."""
        if not self.lost.wait(timeout):
            raise TimeoutError(f"no answer lost within {timeout:g} s: {self._state.value}")

    def cancel(self) -> None:
        """Lose nothing any more; an answer whose request has matched will be lost all the same."""
        self._disarm(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        if error is None and self._state is _State.CANCELLED:
            raise AssertionError("no answer was lost: no request matched")

    # For the proxy, under its lock but for swallow().

    def claim(self, request: bytes) -> None:
        self._state = _State.CLAIMED
        self.request = request

    def swallow(self, data: bytes) -> bool:
        """True when the answer is complete."""
        self.answer += data
        return self._is_answer is None or bool(self._is_answer(self.answer))

    def done(self) -> None:
        self._state = _State.LOST
        self.lost.set()

    def cancelled(self) -> None:
        if self._state is _State.ARMED:
            self._state = _State.CANCELLED
