"""Values that are kept for a while, and loaded once however many ask.

    users = TTLCache[str, User](10_000, ttl=60.0, stale_on_error=300.0)

    def user(login: str) -> User:
        return users.get_or_load(login, lambda: ask_the_backend(login))

Units: all durations are seconds on a monotonic clock.
Errors: the loader's own go to all who wait for that load; nothing is wrapped.
"""

from __future__ import annotations

import _thread
import enum
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, overload

from sepelib.util.deadline import DeadlineExceeded, checked_seconds, clip, detached
from sepelib.util.deadline import deadline as under_deadline
from sepelib.util.text import human_duration

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CacheStats", "TTLCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class CacheStats(NamedTuple):
    """What a cache did since it was made.

    hits, misses: calls of `get()` and `get_or_load()` that found a fresh value, or none. loads:
    calls of a loader. stale: calls answered with an expired value, as the load failed. evictions:
    values that had to make room.
    """

    hits: int
    misses: int
    loads: int
    stale: int
    evictions: int


class TTLCache(Generic[K, V]):
    """At most *maxsize* values, each for *ttl* seconds; the least recently used makes room.

    stale_on_error: for so many seconds after a value expired it is given when its load fails, by an
    Exception; logged as one WARNING per outage. A failing loader is called again by each later
    call: let it fail fast.
    single_flight: simultaneous calls of `get_or_load()` for one key share one load. It runs in the
    first caller, but outside of that one's deadline, under *load_timeout*: what many wait for must
    not fail because the first was in a hurry. So that one may return later than its own deadline;
    the others wait as long as theirs and *load_timeout* allow, then get DeadlineExceeded. When the
    loading greenlet is killed one of them takes over; when it hangs beyond *load_timeout*, the next
    caller does. Without single flight each caller loads for itself, within its own deadline too.
    load_timeout: nothing is interrupted, the loader obeys by `deadline.clip()`. None is no limit;
    then a loader that hangs keeps its key for ever.
    An expired value stays until its key is asked for or it makes room: *maxsize* bounds them all.

    Sharing: any thread or greenlet. No lock is held while a loader runs, so it may use the cache,
    though not load its own key (RuntimeError). In a process patched by gevent, greenlets wait
    without blocking the hub and may share the cache with native threads (`gevent.threadpool`).
    """

    def __init__(
        self,
        maxsize: int,
        ttl: float,
        *,
        stale_on_error: float = 0.0,
        single_flight: bool = True,
        load_timeout: float | None = 30.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise ValueError(f"the maxsize of a cache is a number from 1 on, not {maxsize!r}")
        if load_timeout is not None and not checked_seconds(load_timeout, "a load_timeout"):
            raise ValueError("a load_timeout is more than 0 seconds")
        self._maxsize = maxsize
        self._ttl = checked_seconds(ttl, "the ttl of a cache")
        self._stale_on_error = checked_seconds(stale_on_error, "stale_on_error")
        self._single_flight = single_flight
        self._load_timeout = load_timeout
        self._clock = clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()  # the least recently used first
        # A flight is here while its value is wanted: whoever writes to its key takes it out, so a
        # load that began before a `delete()` cannot bring the old value back.
        self._flights: dict[K, _Flight[V]] = {}
        self._outage = False
        self._hits = self._misses = self._loads = self._stale = self._evictions = 0
        # Native under gevent too, and reentrant: a finalizer of a value may use the cache. Nothing
        # under it yields.
        self._lock = _thread.RLock()

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: object = None) -> object:
        """The value of *key* unless it has none or it expired. Loads nothing, waits for nothing."""
        with self._lock:
            entry = self._fresh(key)
            if entry is None:
                self._misses += 1
                return default
            self._hits += 1
            return entry.value

    def get_or_load(
        self,
        key: K,
        load: Callable[[], V],
        *,
        ttl: float | Callable[[V], float] | None = None,
    ) -> V:
        """The value of *key*, by `load()` when there is none or it expired.

        *ttl* is in place of the cache's for what is loaded: seconds, or a function that says them
        when it sees the value (`lambda token: token.lifetime`). A value with 0 or less is given to
        those who wait for it and not kept. Each caller's *load* and *ttl* are used only if it is
        this one that loads.
        """
        missed = False
        while True:
            with self._lock:
                entry = self._fresh(key)
                if entry is not None:
                    self._hits += not missed
                    return entry.value
                self._misses += not missed
                missed = True
                flight, is_mine = self._board(key)
            try:
                if is_mine:
                    self._fly(key, flight, load, ttl)
                else:
                    self._wait(flight)
                if flight.state is _State.LOADED:
                    return flight.value
                if flight.state is not _State.ABANDONED:
                    return self._stale_or_raise(key, flight, load)
            finally:
                del flight  # its error's traceback has this frame: a circle for the collector

    def set(self, key: K, value: V, *, ttl: float | None = None) -> None:
        """Keep *value* for *ttl* seconds, default the cache's; with 0 or less *key* is deleted.

        A load of *key* that is under way gives its value to those who wait, and is not kept.
        """
        seconds = _checked_ttl(self._ttl if ttl is None else ttl)
        with self._lock:
            self._flights.pop(key, None)
            self._store(key, value, seconds)

    def delete(self, key: K) -> bool:
        """Forget the value of *key*, fresh or stale, and say whether there was one.

        Whoever asks from now on gets what a load from now on gives, as after `invalidate()`.
        """
        with self._lock:
            self._flights.pop(key, None)
            return self._entries.pop(key, None) is not None

    def invalidate(self, key: K) -> None:
        """Let the value of *key* expire now; `stale_on_error` begins."""
        with self._lock:
            self._flights.pop(key, None)
            entry = self._entries.get(key)
            if entry is not None and (now := self._now()) < entry.expires:
                entry.expires = now
                entry.stale_until = now + self._stale_on_error

    def clear(self) -> None:
        """`delete()` all keys."""
        with self._lock:
            self._flights = {}
            # Freed as a whole afterwards: an OrderedDict that clears itself is broken for those
            # finalizers which use it meanwhile.
            entries, self._entries = self._entries, OrderedDict()
        del entries

    def stats(self) -> CacheStats:
        """Counts so far, of one moment."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._loads, self._stale, self._evictions)

    def __len__(self) -> int:
        """Values kept, expired ones included."""
        return len(self._entries)

    def _now(self) -> float:
        return (self._clock or time.monotonic)()

    def _fresh(self, key: K) -> _Entry[V] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = (self._clock or time.monotonic)()
        if now < entry.expires:
            self._entries.move_to_end(key)
            return entry
        if now >= entry.stale_until:
            self._entries.pop(key)
        return None

    def _store(self, key: K, value: V, seconds: float) -> None:
        self._entries.pop(key, None)  # not replaced: the new one is the most recently used
        if seconds <= 0:
            return
        expires = self._now() + seconds
        self._entries[key] = _Entry(value, expires, expires + self._stale_on_error)
        if len(self._entries) > self._maxsize:
            self._entries.popitem(last=False)
            self._evictions += 1

    def _board(self, key: K) -> tuple[_Flight[V], bool]:
        """The load to wait for, or a new one that is the caller's to do."""
        now = self._now()
        flight = self._flights.get(key) if self._single_flight else None
        if flight is not None and now < flight.due:
            if flight.owner == threading.get_ident():
                raise RuntimeError("the loader of a key asks the cache for the same key")
            return flight, False
        limit = math.inf if self._load_timeout is None else self._load_timeout
        flight = self._flights[key] = _Flight(due=now + limit)
        self._loads += 1
        return flight, True

    def _fly(
        self,
        key: K,
        flight: _Flight[V],
        load: Callable[[], V],
        ttl: float | Callable[[V], float] | None,
    ) -> None:
        try:
            try:
                value = self._load(load)
                if ttl is None:
                    ttl = self._ttl
                seconds = _checked_ttl(ttl(value) if callable(ttl) else ttl)
            except Exception as error:
                flight.error, flight.traceback = error, error.__traceback__
                self._land(key, flight, _State.FAILED)
            else:
                flight.value = value
                self._land(key, flight, _State.LOADED, seconds)
        except BaseException:
            self._land(key, flight, _State.ABANDONED)
            raise
        finally:
            del flight  # as in `get_or_load()`

    def _load(self, load: Callable[[], V]) -> V:
        if not self._single_flight:
            with under_deadline(self._load_timeout, clock=self._clock):
                return load()
        with detached(), under_deadline(self._load_timeout, clock=self._clock):
            return load()

    def _land(self, key: K, flight: _Flight[V], state: _State, seconds: float = 0.0) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
                if state is _State.LOADED:
                    self._store(key, flight.value, seconds)
            if state is _State.LOADED:
                self._outage = False
            flight.state = state
        flight.landed.set()

    def _wait(self, flight: _Flight[V]) -> None:
        """Until it landed or is overdue; DeadlineExceeded when the caller's own time is over."""
        while flight.state is _State.LOADING:
            left = flight.due - self._now()
            if left <= 0:
                return
            flight.landed.wait(clip(min(left, threading.TIMEOUT_MAX)))

    def _stale_or_raise(self, key: K, flight: _Flight[V], load: object) -> V:
        error = flight.error
        if error is None:
            error = DeadlineExceeded(
                f"the load of a cached value by another caller takes over {self._load_timeout} s"
            )
        with self._lock:
            now = self._now()
            entry = self._entries.get(key)
            if entry is not None and now >= entry.stale_until:
                entry = None
            if entry is not None:
                self._stale += 1
                is_news = not (self._outage or entry.is_told)
                self._outage = entry.is_told = True
        try:
            if entry is None:
                # As it was when it landed: each of those who waited would else add its frames.
                raise error.with_traceback(flight.traceback)
            if is_news:
                _report(load, now - entry.expires, error)
            return entry.value
        finally:
            del error, flight


class _State(enum.Enum):
    """Of a load: LOADING, then one of the others, for ever."""

    LOADING = enum.auto()
    LOADED = enum.auto()
    FAILED = enum.auto()
    ABANDONED = enum.auto()  # whoever loaded was killed: nothing is known


class _Flight(Generic[V]):
    """One load, and what comes of it, for those who wait."""

    __slots__ = ("due", "error", "landed", "owner", "state", "traceback", "value")
    value: V

    def __init__(self, due: float) -> None:
        self.due = due
        self.owner = threading.get_ident()  # of the greenlet, where gevent patched
        self.state = _State.LOADING
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None
        self.landed = threading.Event()


class _Entry(Generic[V]):
    __slots__ = ("expires", "is_told", "stale_until", "value")

    def __init__(self, value: V, expires: float, stale_until: float) -> None:
        self.value = value
        self.expires = expires
        self.stale_until = stale_until
        self.is_told = False  # that its load fails


def _checked_ttl(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a ttl is a number of seconds, not {type(seconds).__name__}")
    if math.isnan(seconds):
        raise ValueError("a ttl is a number of seconds, not nan")
    return seconds


def _report(load: object, since: float, error: Exception) -> None:
    import logging  # most of this module's import time, for something that may never fail

    from sepelib.util.exceptions import format_exception

    logging.getLogger(__name__).warning(
        "%s fails, values that expired are given instead (this one %s ago): %s",
        getattr(load, "__qualname__", type(load).__name__),
        human_duration(since),
        format_exception(error),
    )
