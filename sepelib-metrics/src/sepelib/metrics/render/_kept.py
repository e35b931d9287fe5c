"""What the renderers keep with a series: texts that never change while it lives."""

from __future__ import annotations

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from typing import Any

    from sepelib.metrics._series import Series

__all__ = ["Kept", "kept_with"]


class Kept:
    """text: of the Prometheus formats, for a histogram with places for values. yasm: tags, name."""

    __slots__ = ("text", "yasm")

    def __init__(self) -> None:
        self.text: Any = None
        self.yasm: tuple[str, str] | None = None


def kept_with(series: Series) -> Kept:
    # Of two dumps at a time one may work in vain, which is no harm.
    if series.render_cache is None:
        series.render_cache = Kept()
    kept: Kept = series.render_cache
    return kept
