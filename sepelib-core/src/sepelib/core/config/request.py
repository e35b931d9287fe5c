"""What was asked for when a configuration was loaded."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["Ambiguous", "Request"]

Ambiguous = Literal["warn", "error", "yaml11"]


class Request(NamedTuple):
    """The arguments of `Config.load`, with which a reload reads again."""

    names: tuple[str, ...]  # of the file and its overlays, as they were given
    cwd: str  # where they start; a daemon may have moved to / since
    context: Mapping[str, Any]
    env_prefix: str | None
    overrides: Mapping[Any, Any]
    validate: Callable[[Mapping[str, Any]], object] | None
    ambiguous: Ambiguous

    @property
    def path(self) -> str:
        """Of the file, absolute."""
        return os.path.abspath(os.path.join(self.cwd, self.names[0]))

    def same_as(self, other: "Request") -> bool:
        """Whether both mean the same, however the paths are spelt."""
        return self._normal() == other._normal()

    def _normal(self) -> "Request":
        paths = [os.path.abspath(os.path.join(self.cwd, name)) for name in self.names]
        return self._replace(names=tuple(paths), cwd="")
