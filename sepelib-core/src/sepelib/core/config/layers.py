"""The texts that a configuration is made of, one over the other."""

from bisect import bisect_right
from typing import NamedTuple

from sepelib.core.config.errors import Place
from sepelib.core.config.frozen import NOWHERE
from sepelib.core.config.source import Mark, Rendered

__all__ = ["Layers", "Origin"]


class Origin(NamedTuple):
    """Where a value comes from.

    *layer* is ``"default"``, ``"overlay"``, ``"env"`` or ``"override"``. *file* is that of a
    `Place`, and None for a value of `Config.override`. *replaced* are the origins of the values
    that stood there in the layers below, the latest first.
    """

    file: str | None
    line: int | None
    column: int | None
    layer: str
    replaced: "tuple[Origin, ...]" = ()

    def __str__(self) -> str:
        return ":".join(str(part) for part in self[:3] if part is not None)


class Layers:
    """Texts, lowest first, each with a range of numbers of its own for the places in it.

    One number so says all of a value's place: the layer, the file, the line, the column.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._texts: list[tuple[str, Rendered]] = []
        self._end = 0
        self.secrets: set[int] = set()  # where values stand that have a tag !secret
        self.doubts: dict[Place, str] = {}  # values that YAML may read as none expects
        self.strangers: list[str] = []  # about variables that are perhaps not meant for us

    def add(self, layer: str, rendered: Rendered) -> int:
        """The number of the first character of *rendered*, which comes to lie on top."""
        start = self._end
        self._starts.append(start)
        self._texts.append((layer, rendered))
        self._end = start + len(rendered.text) + 1
        return start

    def add_value(self, layer: str, origin: str) -> int:
        """The number of a value that comes from no file but, as words say, from *origin*."""
        mark = Mark(0, lambda: Place(origin), False)
        return self.add(layer, Rendered(origin, "", [mark], {}))

    def place(self, offset: int) -> Place | None:
        if offset == NOWHERE:
            return None
        _, rendered, start = self._at(offset)
        return rendered.place(offset - start)

    def origin(self, offset: int) -> Origin:
        if offset == NOWHERE:
            return Origin(None, None, None, "override")
        layer, rendered, start = self._at(offset)
        return Origin(*rendered.place(offset - start), layer)

    def top(self) -> Place:
        """Where the lowest file begins, for what is about all of it."""
        return Place(self._texts[0][1].path, 1, 1)

    def snippet(self, place: Place | None) -> str:
        for _, rendered in self._texts:
            if place and place.file in rendered.sources:
                return rendered.snippet(place)
        return ""

    def _at(self, offset: int) -> tuple[str, Rendered, int]:
        index = bisect_right(self._starts, offset) - 1
        return *self._texts[index], self._starts[index]
