"""Which of several representations a client likes best.

Source: RFC 9110, 12.5.1. Parameters of media types other than `q` are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["best"]

_MOST = 50  # ranges read of one header


def best(accept: str | None, offers: Sequence[str]) -> str | None:
    """The one of *offers* that *accept*, a header, likes best; of equals the first.

    The first without a header; None when it likes none of them.
    """
    if not accept or not accept.strip():
        return offers[0]
    ranges = [_range(text) for text in accept.split(",", _MOST)[:_MOST]]
    likings = [(_liking(offer, ranges), offer) for offer in offers]
    most, offer = max(likings, key=lambda liking: liking[0])
    return offer if most > 0 else None


def _range(text: str) -> tuple[str, float]:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return kind, _quality(value.strip())
    return kind, 1.0


def _quality(text: str) -> float:
    # Digits first: float() takes "nan", "1e3" and "٣" too.
    if not text.isascii() or not text.replace(".", "", 1).isdigit():
        return 0.0
    return min(float(text), 1.0)


def _liking(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that *offer* is in."""
    for kind in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == kind]
        if found:
            return max(found)
    return 0.0
