"""A value found in a cache with a time to live: one key of a full cache, asked again and again."""

import threading

import cachetools

from benchmarks.runner import Comparison, Goal
from sepelib.util.cache import TTLCache

SIZE = 10_000


def comparisons() -> list[Comparison]:
    held = {5000: 5000}
    ours: TTLCache[int, int] = TTLCache(SIZE, ttl=3600.0)
    theirs: cachetools.TTLCache[int, int] = cachetools.TTLCache(SIZE, ttl=3600.0)
    for number in range(SIZE):
        ours.set(number, number)
        theirs[number] = number
    load = cachetools.cached(theirs, key=int, lock=threading.RLock())(int)
    return [
        Comparison(
            "cache: a hit",
            lambda: ours.get(5000),
            {
                "a dict": lambda: held.get(5000),
                "cachetools": lambda: theirs.get(5000),
            },
            goals=[Goal("cachetools", 1.0)],
        ),
        Comparison(
            "cache: a hit of a cached function, safe for threads",
            lambda: ours.get_or_load(5000, int),
            {"cachetools": lambda: load(5000)},
            goals=[Goal("cachetools", 1.0)],
        ),
    ]
