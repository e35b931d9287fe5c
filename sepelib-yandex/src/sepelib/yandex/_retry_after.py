"""The header Retry-After."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["retry_after"]


def retry_after(text: str | None, *, now: Callable[[], float] | None = None) -> float | None:
    """Seconds from now, of a number or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (now or time.time)())
