"""A file that is written without a name and then takes the place of another: see `fs`."""

from __future__ import annotations

import errno
import fcntl
import os
import posix
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import cast

__all__ = ["Draft"]

_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
_MAX_WRITERS = 100
_SWEPT = 8  # names looked at on each write; higher ones only when so many writers meet again
_STEM = 200  # bytes of the name that go into the temporary one, which may not exceed 255


class Draft:
    """The new file until it replaces the old one.

    All steps are relative to the open directory, which may be renamed meanwhile, as the working
    directory may change.
    """

    def __init__(self, path: str, perms: int | None) -> None:
        self.fd = -1
        self._path = path
        self._perms = perms
        self._old: os.stat_result | None = None
        self._dir = -1
        self._name = ""
        self._temp: str | None = None

    def open(self) -> None:
        directory, self._name = os.path.split(_behind_links(self._path))
        if not self._name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._dir = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._old = self._look()
        # With a mode of its own to come, nobody else may open the file before it has it.
        mode = 0o666 if self._old is None and self._perms is None else 0o600
        try:
            if not os.access("/proc/self/fd", os.X_OK):
                raise OSError(errno.EOPNOTSUPP, "a nameless file gets its name through /proc")
            self.fd = os.open(
                ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=self._dir
            )
        except OSError as e:
            if e.errno not in _NO_TMPFILE:
                raise
            self._take_name(lambda temp: self._create(temp, mode))
        else:
            _mark_alive(self.fd)

    def commit(self, fsync: bool) -> None:
        self._dress()  # not earlier: a write by a plain user clears the set-id bits
        if fsync:
            os.fsync(self.fd)
        if self._temp is None:
            self._take_name(self._link)
        os.replace(cast(str, self._temp), self._name, src_dir_fd=self._dir, dst_dir_fd=self._dir)
        self._temp = None
        if fsync:
            os.fsync(self._dir)

    def discard(self) -> None:
        if self._temp is not None:
            self._remove(self._temp, self.fd)
        for fd in (self.fd, self._dir):
            if fd >= 0:
                with suppress(OSError):
                    # gevent's os.close leaves all but regular files open until its loop runs: a
                    # thousand writes in a row would run out of descriptors.
                    posix.close(fd)

    def _look(self) -> os.stat_result | None:
        try:
            old = os.stat(self._name, dir_fd=self._dir, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(old.st_mode):  # root would turn /dev/null into a file
            raise OSError(errno.EINVAL, "Not a regular file")
        return old

    def _dress(self) -> None:
        """Give the file the owner and mode of the old one, or the mode asked for."""
        old = self._look() or self._old
        perms = self._perms
        if old is not None:
            if not self._owned_like(old):
                for uid in (old.st_uid, -1):  # a plain user may still choose a group of theirs
                    with suppress(OSError):
                        os.fchown(self.fd, uid, old.st_gid)
                        break
            if perms is None:
                perms = stat.S_IMODE(old.st_mode)
                if not self._owned_like(old):  # the set-id bits would lend out our own rights
                    perms &= ~(stat.S_ISUID | stat.S_ISGID)
        if perms is not None and perms != stat.S_IMODE(os.fstat(self.fd).st_mode):
            os.fchmod(self.fd, perms)

    def _owned_like(self, old: os.stat_result) -> bool:
        mine = os.fstat(self.fd)
        return (mine.st_uid, mine.st_gid) == (old.st_uid, old.st_gid)

    def _take_name(self, make: Callable[[str], bool]) -> None:
        """Give the file the first free temporary name; remove those of dead writers."""
        for number in range(_SWEPT):
            self._sweep(self._temp_name(number))
        for number in range(_MAX_WRITERS):
            # Set beforehand: whatever interrupts us, discard() removes it only if it is ours.
            self._temp = self._temp_name(number)
            try:
                if make(self._temp):
                    return
            except FileExistsError:
                self._sweep(self._temp)
        self._temp = None
        raise FileExistsError(errno.EEXIST, f"{_MAX_WRITERS} temporary files beside it")

    def _temp_name(self, number: int) -> str:
        stem = os.fsdecode(os.fsencode(self._name)[:_STEM])
        return f".{stem}.{number}.sepelib-tmp"

    def _link(self, temp: str) -> bool:
        # A directory descriptor makes Python call linkat(2) with AT_SYMLINK_FOLLOW, the way which
        # open(2) gives for O_TMPFILE; without it the link in /proc itself would be linked.
        source = f"/proc/self/fd/{self.fd}"
        os.link(source, temp, src_dir_fd=self._dir, dst_dir_fd=self._dir)
        return True

    def _create(self, temp: str, mode: int) -> bool:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        self.fd = os.open(temp, flags, mode, dir_fd=self._dir)
        if _mark_alive(self.fd) and os.fstat(self.fd).st_nlink:
            return True
        os.close(self.fd)  # swept by another writer before we could lock it
        self.fd = -1
        return False

    def _sweep(self, temp: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(temp, flags, dir_fd=self._dir)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its writer lives, or this file system has no locks to tell by
            pass
        else:
            self._remove(temp, fd)
        finally:
            os.close(fd)

    def _remove(self, temp: str, fd: int) -> None:
        """Remove the name if it is that of the locked *fd*; who holds the lock decides on it."""
        with suppress(OSError):
            named = os.stat(temp, dir_fd=self._dir, follow_symlinks=False)
            if os.path.samestat(named, os.fstat(fd)):
                os.unlink(temp, dir_fd=self._dir)


def _mark_alive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks here: then nobody can lock it to call it dead either
    return True


def _behind_links(path: str) -> str:
    for _ in range(40):  # the kernel's own limit
        try:
            link = os.readlink(path)
        except OSError as e:
            if e.errno in (errno.EINVAL, errno.ENOENT):  # not a link, not there
                return path
            raise
        path = os.path.join(os.path.dirname(path), link)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
