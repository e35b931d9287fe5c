"""Answers that are kept, asked for once however many want them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from sepelib.util.cache import TTLCache
from sepelib.util.deadline import DeadlineExceeded as NothingLeft

from .errors import DeadlineExceeded, Where, YandexError

__all__ = ["kept"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def kept(
    cache: TTLCache[K, V], key: K, load: Callable[[], V], where: Where, *, ttl: float | None = None
) -> V:
    """As `cache.get_or_load()`; who waits too long for another one's load gets an error of ours."""
    try:
        return cache.get_or_load(key, load, ttl=ttl)
    except YandexError:
        raise
    except NothingLeft as late:
        raise DeadlineExceeded("another caller asks, for too long", where=where) from late
