"""A watch that wakes, and is taken back when nobody waits any more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from sepelib.zookeeper._handler import Wake

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Ask", "Watch"]

Ask = Literal["get", "exists", "children", "listing"]
"""What is read: (data, stat), a stat or None, names, (names, stat)."""


class Watch:
    """Reads and watches one node; fires once or is removed.

    *wake* is called, from then on with `fired`, when the node has changed, when the connection is
    gone and with it the watch, and when the client stops: what is true then is to be read again.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        wake: Callable[[], object],
        ask: Ask = "get",
    ) -> None:
        self.path = path
        self.fired = False
        self._wake = wake
        self._client = client
        self._kind: Literal["data", "children"]
        self._kind = "data" if ask in ("get", "exists") else "children"
        self._watch = Wake(self._fire)
        request = {
            "get": client.get_async,
            "exists": client.exists_async,
            "children": client.get_children_async,
            "listing": partial(client.get_children_async, include_data=True),
        }[ask]
        self.answer: Any = request(path, self._watch)
        """A result. What fails with NoNodeError has no watch; of "exists" the value is None then,
        and the watch waits for the node."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def value(self) -> Any:
        """What was read; raises what the answer has failed with."""
        return self.answer.get_nowait()

    def _fire(self) -> None:
        self.fired = True
        self._wake()

    def remove(self) -> None:
        """Leave no watch behind, here or on the server. Never yields."""
        if not self.fired:
            self.fired = True
            self._client.remove_watches_async(self.path, self._watch, kind=self._kind)
