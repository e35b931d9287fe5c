"""Files that are never half written nor endlessly read, and a lock between their users.

    with atomic_write("state.json") as file:    # a reader sees the old text or the new one
        json.dump(state, file)

    with FileLock("state.json.lock"):           # a file of its own, never the data itself
        ...                                     # read, change, atomic_write

    read_file(path, max_bytes=1 << 20)          # no more than expected, and never waits for a FIFO
    tail("service.log", lines=20)               # of any size
    ensure_dir(path)                            # also while others make or remove it
    remove(path)                                # a file or a tree, and nothing outside of it

Blocking: the kernel has no cooperative file I/O, so reading, writing and fsync stop the whole
thread and, under gevent, every greenlet of its hub. Waiting for a FileLock does not.
Linux: stands on O_TMPFILE, /proc and flock(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Literal, overload

from sepelib.util._draft import Draft
from sepelib.util._file_lock import FileLock, FileLockTimeout
from sepelib.util._folders import ensure_dir, remove
from sepelib.util._reading import read_file, tail

if TYPE_CHECKING:
    from io import BufferedWriter, TextIOWrapper

__all__ = [
    "FileLock",
    "FileLockTimeout",
    "atomic_write",
    "ensure_dir",
    "read_file",
    "remove",
    "tail",
]


@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["w"] = "w",
    *,
    encoding: str = "utf-8",
    newline: str | None = None,
    perms: int | None = None,
    fsync: bool = True,
) -> AbstractContextManager[TextIOWrapper]: ...
@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["wb"],
    *,
    perms: int | None = None,
    fsync: bool = True,
) -> AbstractContextManager[BufferedWriter]: ...
def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "w",
    *,
    encoding: str = "utf-8",
    newline: str | None = None,
    perms: int | None = None,
    fsync: bool = True,
) -> AbstractContextManager[IO[Any]]:
    """Replace the file *path* by what the block writes, all at once when the block ends well.

    Whatever happens (an exception, a full disk, kill -9, with *fsync* also a power cut) *path* is
    the complete old file or the complete new one. An exception in the block, gevent.Timeout and
    its kind included, leaves the old file as it was. Of two writers the later to finish wins.

    A new file gets 0o666 less the umask; an old one hands down its mode and, where the system
    permits, owner and group (else the set-id bits are dropped); *perms* overrides the mode. Access
    control lists, extended attributes and other hard links are not carried over. A symbolic link
    is written through, a dangling one too. `fsync=False` saves the wait for the disk; processes
    still see old or new, a power cut may then leave an empty file.

    Raises OSError that names *path*; ValueError for a mode other than "w" and "wb". If only the
    last step, the fsync of the directory, fails, the error is raised with the new file in place.

    Left behind: nothing. The new file has no name while it is written (O_TMPFILE). It gets one,
    `.NAME.N.sepelib-tmp` in the same directory, only for the rename; on file systems without
    O_TMPFILE (NFS, FUSE, old overlayfs) from the start. The writer keeps it flock'ed, so one that
    nobody has locked belongs to a killed writer: the next atomic_write of *path* removes it.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write makes a whole new file: mode is 'w' or 'wb', not {mode!r}")
    if perms is not None and not 0 <= perms <= 0o7777:
        raise ValueError(f"perms is a mode from 0 to 0o7777, not {perms!r}")
    text = {"encoding": encoding, "newline": newline} if mode == "w" else {}
    return _replacing(os.fsdecode(path), mode, text, perms, fsync)


@contextmanager
def _replacing(
    path: str, mode: str, text: dict[str, Any], perms: int | None, fsync: bool
) -> Iterator[IO[Any]]:
    draft = Draft(path, perms)
    try:
        with _naming(path, "cannot open a new file in its directory"):
            draft.open()
        # A descriptor of its own: should the file object outlive us, what it still buffers goes
        # nowhere and not into whatever got our number.
        file = os.fdopen(os.dup(draft.fd), mode, **text)
        try:
            yield file
        except BaseException:
            with suppress(OSError, ValueError):  # a full disk; a file detached by the caller
                file.close()
            raise
        with _naming(path, "cannot write it"):
            file.close()
        with _naming(path, "cannot replace it"):
            draft.commit(fsync)
    finally:
        draft.discard()


@contextmanager
def _naming(path: str, what: str) -> Iterator[None]:
    """Let an OSError name *path*, not the temporary file or nothing at all."""
    try:
        yield
    except OSError as e:
        raise OSError(e.errno, f"{what}: {e.strerror}", path) from e
