"""A lock between the processes of one host, held on a file: see `fs`.

Units: seconds on `time.monotonic()`.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, NamedTuple

from sepelib.util.deadline import checked_seconds, clip

if TYPE_CHECKING:
    import random

__all__ = ["FileLock", "FileLockTimeout"]

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1
_PID = re.compile(rb"[0-9\s\0]*")

# Descriptors of locks in this process, for a forked child to close.
_descriptors: set[int] = set()
_watching_forks = False


class FileLockTimeout(TimeoutError):
    """Not locked within *waited* seconds; *holder* is the pid written in the file, if any."""

    def __init__(self, path: str, waited: float, holder: int | None = None) -> None:
        by = ""
        if holder is not None:
            by = f", held by {'this process, ' if holder == os.getpid() else ''}pid {holder}"
        super().__init__(f"{path}: not locked within {waited:.1f} s{by}")
        self.path = path
        self.waited = waited
        self.holder = holder

    def __reduce__(self) -> tuple[type[FileLockTimeout], tuple[str, float, int | None]]:
        return type(self), (self.path, self.waited, self.holder)


class _Grip(NamedTuple):
    fd: int
    pid: int
    thread: int


class FileLock:
    """Exclude all others that lock the same file: processes, threads, greenlets, other FileLocks.

    *path* is a file of its own, made when missing and left behind; its text is the holder's pid.
    The lock is flock(2)'s: it ends with its holder, kill -9 included, and with no lease to run
    out; on NFS it is as good as the server. No queue: who asks at the right moment gets it.

    One FileLock may be shared by threads and greenlets; the one that holds it gets a RuntimeError
    for asking again. Waiting sleeps from 1 to 100 ms between tries and so lets greenlets run. A
    program started meanwhile does not inherit the lock (O_CLOEXEC). A forked child does not hold
    it either: it neither keeps it alive after the parent's death nor lets it go, and its copy of
    this object starts anew.

    A lock file that is deleted or replaced is noticed by those who wait, but its present holder
    cannot be warned that the next one locks a new file: do not delete it.

    *timeout* is in seconds; None waits without limit, 0 tries once. The current Deadline clips it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        timeout: float | None = 10.0,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.path = os.fsdecode(path)
        self.timeout = None if timeout is None else checked_seconds(timeout, "a timeout")
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._grip: _Grip | None = None

    @property
    def held(self) -> bool:
        """Whether this object, in this process, holds the lock."""
        return self._grip is not None and self._grip.pid == os.getpid()

    def acquire(self, timeout: float | EllipsisType | None = ...) -> None:
        """Wait for the lock; *timeout* stands in for the object's own.

        Raises FileLockTimeout, DeadlineExceeded if the current deadline was over beforehand,
        OSError if the file cannot be opened, ValueError if it holds anything but a pid: it is
        then somebody's data and is left alone.
        """
        limit = clip(self.timeout if isinstance(timeout, EllipsisType) else timeout)
        thread = _thread.get_ident()
        if self._grip is not None and self._grip[1:] == (os.getpid(), thread):
            raise RuntimeError(f"{self.path}: this thread or greenlet has locked it already")
        clock = self._clock or time.monotonic
        start = clock()
        pause = _FIRST_PAUSE
        while (fd := self._try()) is None:
            waited = clock() - start
            if limit is not None and waited >= limit:
                raise FileLockTimeout(self.path, waited, self._holder())
            left = pause if limit is None else min(pause, limit - waited)
            (self._sleep or time.sleep)(min(left, self._jitter(pause)))
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._grip = _Grip(fd, os.getpid(), thread)

    def release(self) -> None:
        """Let it go; any thread may. RuntimeError when it is not held, except in a forked child."""
        grip, self._grip = self._grip, None
        if grip is None:
            raise RuntimeError(f"{self.path}: not locked, so there is nothing to release")
        if grip.pid != os.getpid():
            return
        with suppress(OSError):
            os.ftruncate(grip.fd, 0)
        # Closing alone would not do: a child forked past our handler shares the description.
        fcntl.flock(grip.fd, fcntl.LOCK_UN)
        _close(grip.fd)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<FileLock {self.path!r}{' held' if self.held else ''}>"

    def _try(self) -> int | None:
        """The locked descriptor, or None while somebody else has it."""
        _watch_forks()
        # No symbolic links: in a folder that others may write to, one would let us write our pid
        # into a file of their choice.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o666)
        _descriptors.add(fd)
        try:
            if self._lock(fd):
                return fd
        except BaseException:
            _close(fd)
            raise
        _close(fd)
        return None

    def _lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            named = os.stat(self.path)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as e:
            raise OSError(e.errno, f"cannot be locked: {e.strerror}", self.path) from e
        if not os.path.samestat(os.fstat(fd), named):
            return False  # the name has gone to another file since we opened this one
        self._sign(fd)
        return True

    def _sign(self, fd: int) -> None:
        if not _PID.fullmatch(os.pread(fd, 64, 0)):
            raise ValueError(
                f"{self.path}: holds data; a lock needs a file of its own, say {self.path}.lock"
            )
        with suppress(OSError):  # the pid is a courtesy; a full disk is no reason to fail
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def _holder(self) -> int | None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return int(os.read(fd, 64))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def _jitter(self, pause: float) -> float:
        if self._rng is None:
            import random

            return random.uniform(pause / 2, pause)
        return self._rng.uniform(pause / 2, pause)


def _close(fd: int) -> None:
    _descriptors.discard(fd)  # first: a child forked in between must not close a reused number
    os.close(fd)


def _watch_forks() -> None:
    global _watching_forks
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(after_in_child=_close_in_child)


def _close_in_child() -> None:
    while _descriptors:
        with suppress(OSError):
            os.close(_descriptors.pop())
