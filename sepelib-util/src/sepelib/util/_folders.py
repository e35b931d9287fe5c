"""Making and removing directories: see `fs`."""

from __future__ import annotations

import errno
import os
import posix
import stat
from contextlib import suppress
from typing import NamedTuple

__all__ = ["ensure_dir", "remove"]

# posix.close throughout: gevent's os.close puts directories off until its loop runs, which it does
# not while we walk, so a tree of a thousand directories would use up the descriptors.
_TRIES = 100  # against somebody who removes what we make, or fills what we empty
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_AS_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def ensure_dir(path: str | os.PathLike[str], mode: int = 0o755) -> None:
    """Make the directory *path* and those above it, unless it is there; several may at once.

    A new one gets exactly *mode*, whatever the umask; new ones above it get 0o777 less the umask,
    as by `mkdir -p`. One that exists, or a symbolic link to one, is left as it is.

    Raises OSError that names what is in the way.
    """
    name = os.fsdecode(path)
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"mode is from 0 to 0o7777, not {mode!r}")
    if not name:
        raise FileNotFoundError(errno.ENOENT, "a directory needs a name", name)
    _make(name.rstrip("/") or "/", mode)


def remove(path: str | os.PathLike[str], missing_ok: bool = True) -> None:
    """Remove a file, a symbolic link (never what it points to) or a directory with all in it.

    Works by descriptors, so nobody who exchanges a directory for a link while it runs leads it out
    of the tree; directories that their owner, us, may not write to are made writable first. What
    others remove meanwhile is removed. An error leaves what has not been removed by then.

    Refused: "", "/", names that end in "." or "..", the working directory and those above it; and
    with EXDEV what is a mount point, or, once it is met, a tree with one inside.

    Raises OSError that names what could not be removed; FileNotFoundError when *path* was not there
    and not *missing_ok*.
    """
    name = os.fsdecode(path)
    folder, base = os.path.split(name.rstrip("/"))
    if base in ("", ".", ".."):
        raise ValueError(f"{name!r} is not to be removed: it must end in a name")
    try:
        top = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing_ok:
            return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
    try:
        there = _remove_at(top, base, name)
    finally:
        posix.close(top)
    if not there and not missing_ok:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


# Making.


def _make(name: str, mode: int | None) -> None:
    for _ in range(_TRIES):
        try:
            os.mkdir(name, 0o777 if mode is None else mode)
        except FileNotFoundError as e:
            above = os.path.dirname(name).rstrip("/")
            if not above:
                raise OSError(e.errno, f"cannot make it: {e.strerror}", name) from e
            _make(above, None)
        except OSError as e:  # also EROFS or EACCES, which some systems say of one that is there
            if _is_made(name, e):
                return
        else:
            if mode is not None:
                _set_mode(name, mode)
            return
    raise FileNotFoundError(errno.ENOENT, "cannot make it, or somebody keeps removing it", name)


def _is_made(name: str, error: OSError) -> bool:
    """Whether it is there. False: not any more, try again. Raises *error* when it cannot be."""
    what, culprit = error.strerror, name
    if error.errno == errno.ENOTDIR:
        while "/" in culprit.strip("/") and not os.path.lexists(culprit):
            culprit = os.path.dirname(culprit)
        what = "a file is in the way"
    else:
        try:
            if stat.S_ISDIR(os.stat(name).st_mode):
                return True
            what = "a file is in the way"
        except OSError:
            if os.path.islink(name):
                what = "a dangling link is in the way"
            elif error.errno == errno.EEXIST:
                return False
    raise OSError(error.errno, f"cannot make it: {what}", culprit) from error


def _set_mode(name: str, mode: int) -> None:
    with suppress(FileNotFoundError):  # somebody removed it again: they will not miss its mode
        fd = os.open(name, _AS_PATH)
        try:
            _chmod(fd, mode)
        finally:
            posix.close(fd)


def _chmod(fd: int, mode: int) -> None:
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        # fchmod(2) takes no O_PATH descriptor, and any other asks for the right to read first.
        os.chmod(f"/proc/self/fd/{fd}", mode)


# Removing.


def _remove_at(top: int, base: str, name: str) -> bool:
    """Remove *base* in the directory *top*; False when it was not there."""
    try:
        found = os.stat(base, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            if name.endswith("/"):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.unlink(base, dir_fd=top)
            return True
        _refuse_ancestors(found)
    except FileNotFoundError:
        return False
    except OSError as e:
        raise _cannot(e, name) from e
    for _ in range(_TRIES):
        walk = _Walk(top, name)
        try:
            if walk.remove(base):
                return True
        except OSError as e:
            raise _cannot(e, walk.place) from e
        finally:
            walk.leave()
    raise OSError(errno.ENOTEMPTY, "cannot remove it: somebody keeps filling it", name)


class _Level(NamedTuple):
    """A directory on the way down: how to know it again, and the ones in it still to go."""

    name: str
    identity: os.stat_result
    folders: list[str]


class _Walk:
    """Goes down a tree and comes back by "..", with one descriptor whatever its depth."""

    def __init__(self, top: int, name: str) -> None:
        self._top = top
        self._mount = _mount(top)
        self._here = top
        self._levels: list[_Level] = []
        self._above = os.path.dirname(name.rstrip("/"))
        self._entry = ""

    @property
    def place(self) -> str:
        """What it is busy with."""
        return os.path.join(self._above, *(level.name for level in self._levels), self._entry)

    def remove(self, base: str) -> bool:
        """False when others were at work in there: begin again."""
        try:
            self._descend(base)
            while self._levels:
                if folders := self._levels[-1].folders:
                    self._descend(folders.pop())
                else:
                    self._ascend()
        except FileNotFoundError:
            return False  # somebody removed the directory that we were reading
        return _rmdir(base, self._top)

    def leave(self) -> None:
        self._go(self._top)

    def _descend(self, name: str) -> None:
        self._entry = name
        try:
            fd = self._open(name)
        except FileNotFoundError:
            return
        except NotADirectoryError:  # exchanged since we looked
            self._unlink(name)
            return
        self._go(fd)
        level = _Level(name, os.fstat(fd), [])
        self._levels.append(level)
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entry = entry.name
                if entry.is_dir(follow_symlinks=False):
                    level.folders.append(entry.name)
                else:
                    self._unlink(entry.name)

    def _ascend(self) -> None:
        level = self._levels.pop()
        self._entry = level.name
        if not self._levels:
            self._go(self._top)
            return
        up = os.open("..", _OPEN, dir_fd=self._here)
        self._go(up)
        if not os.path.samestat(os.fstat(up), self._levels[-1].identity):
            raise OSError(errno.EBUSY, "it was moved meanwhile")
        _rmdir(level.name, up)  # one that was filled again stops those above it

    def _go(self, fd: int) -> None:
        left, self._here = self._here, fd
        if left not in (self._top, fd):
            posix.close(left)

    def _open(self, name: str) -> int:
        fd = os.open(name, _AS_PATH, dir_fd=self._here)
        try:
            if _mount(fd) != self._mount:
                raise OSError(errno.EXDEV, "a file system is mounted there")
            found = os.fstat(fd)
            if found.st_uid == os.geteuid():
                _chmod(fd, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
            return os.open(".", _OPEN, dir_fd=fd)
        finally:
            posix.close(fd)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=self._here)


def _rmdir(name: str, folder: int) -> bool:
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False
    return True


def _refuse_ancestors(found: os.stat_result) -> None:
    place, below = ".", None
    while True:
        try:
            here = os.stat(place)
        except OSError:  # closed to us
            return
        if os.path.samestat(here, found):
            raise OSError(errno.EBUSY, "it is, or holds, the working directory")
        if below is not None and os.path.samestat(here, below):
            return  # the root is its own parent
        place, below = f"{place}/..", here


def _mount(fd: int) -> bytes:
    """Which mount it is in: a bind mount has a number of its own, but no device of its own."""
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b"device %d" % os.fstat(fd).st_dev
    try:
        lines = os.read(info, 4096).splitlines()
    finally:
        posix.close(info)
    return next(line for line in lines if line.startswith(b"mnt_id:"))


def _cannot(error: OSError, name: str) -> OSError:
    return OSError(error.errno, f"cannot remove it: {error.strerror}", name)
