"""Green threads that stand and fall together: the parts of one service.

NEW ──start──► RUNNING ──stop──► STOPPED
 └──────────────stop───────────────▲
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import IntEnum

import gevent
from gevent.event import Event
from sepelib.gevent.errors import GreenThreadMisused
from sepelib.gevent.greenthread import GreenThread
from sepelib.util.deadline import clip

__all__ = ["GreenThreads"]


class _State(IntEnum):
    """A group moves from a lesser one to a greater one, and never back."""

    NEW = 0
    RUNNING = 1
    STOPPED = 2


class GreenThreads:
    """Starts threads in order, says when one of them fails, stops them in the reverse order.

        threads = GreenThreads("web")
        threads.add(writer)                     # tier 0: started first, stopped last
        threads.add(reader, tier=1)
        threads.start()
        failed = threads.wait()                 # the first that died; stop the others
        threads.stop()

    *on_death* is called with each thread that died of an exception, in a green thread of its own:
    it may wait, and may stop the group. Threads that end cleanly leave the group.
    As a context manager it starts at entry and stops at exit, which raises nothing when a thread
    lives on: that was logged.
    Sharing: for the greenlets of the main thread.
    """

    def __init__(
        self, name: str = "threads", *, on_death: Callable[[GreenThread], object] | None = None
    ) -> None:
        self.name = name
        self._on_death = on_death
        self._state = _State.NEW
        self._tiers: dict[GreenThread, int] = {}  # those that have not ended
        self._failed: GreenThread | None = None
        self._changed = Event()

    @property
    def failed(self) -> GreenThread | None:
        """The first that died of an exception; its `exception` says of which."""
        return self._failed

    def __iter__(self) -> Iterator[GreenThread]:
        """Those that have not ended, as they were added; a copy."""
        return iter(list(self._tiers))

    def __len__(self) -> int:
        return len(self._tiers)

    def add(self, thread: GreenThread, *, tier: int = 0) -> GreenThread:
        """Let *thread*, started already or not, belong to the group; a running one starts it.

        Higher tiers are started later and stopped earlier. Returns *thread*.
        """
        if self._state is _State.STOPPED:
            raise GreenThreadMisused(self.name, f"stopped; {thread.name} comes too late")
        if thread in self._tiers:
            raise GreenThreadMisused(self.name, f"{thread.name} belongs to it already")
        self._tiers[thread] = tier
        thread._when_ended(self._note_end)
        if self._state is _State.RUNNING:
            self._start(thread)
        return thread

    def start(self) -> None:
        """Start the threads, tier by tier, within a tier as they were added."""
        if self._state is not _State.NEW:
            raise GreenThreadMisused(self.name, "start() can be called only once")
        self._state = _State.RUNNING
        for thread in sorted(self._tiers, key=self._tiers.__getitem__):
            self._start(thread)

    def wait(self, timeout: float | None = None) -> GreenThread | None:
        """Wait until one has failed, and return it: the first one.

        None once all but the daemons have ended cleanly, or after *timeout* seconds (None: no
        limit), which the current deadline cuts.
        """
        if self._state is _State.NEW:
            raise GreenThreadMisused(self.name, "wait() before start()")
        limit = clip(timeout)
        until = None if limit is None else time.monotonic() + limit
        while self._failed is None and any(not thread.daemon for thread in self._tiers):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self._changed.wait(left)
        return self._failed

    def stop(self, timeout: float = 10.0, kill_timeout: float = 1.0) -> bool:
        """Stop the highest tier, its threads in parallel, then the next; daemons as well.

        Each tier has its share of what is left of *timeout* seconds, and *kill_timeout* on top.
        False when a thread lives on, which was logged with its stack; the tiers below are stopped
        nevertheless. Idempotent. Not cut by the current deadline: this is cleaning up.
        """
        if GreenThread.current() in self._tiers:
            raise GreenThreadMisused(self.name, "stop() from one of its threads waits for itself")
        self._state = _State.STOPPED
        until = time.monotonic() + timeout
        tiers = sorted(set(self._tiers.values()), reverse=True)
        for done, tier in enumerate(tiers):
            share = max(0.0, until - time.monotonic()) / (len(tiers) - done)
            threads = [thread for thread, its in self._tiers.items() if its == tier]
            gevent.joinall([gevent.spawn(t.stop, share, kill_timeout) for t in threads])
        return not self._tiers

    def __enter__(self) -> GreenThreads:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, thread: GreenThread) -> None:
        if thread.ident is None:
            thread.start()

    def _note_end(self, thread: GreenThread) -> None:
        """Runs in the thread that ends, or in the hub: does not wait."""
        self._tiers.pop(thread, None)
        if thread.exception is not None:
            self._failed = self._failed or thread
            if self._on_death is not None:
                name = f"{self.name}: on_death"
                GreenThread(self._on_death, name, args=(thread,)).start()
        changed, self._changed = self._changed, Event()
        changed.set()

    def __repr__(self) -> str:
        return f"<GreenThreads {self.name!r} {self._state.name.lower()}, {len(self)} threads>"
