"""Reading no more than what was expected: see `fs`."""

from __future__ import annotations

import codecs
import errno
import os
import posix
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import overload

__all__ = ["read_file", "tail"]

_BLOCK = 64 << 10
_MAX_CHARACTER = 4  # bytes of UTF-8


@overload
def read_file(
    path: str | os.PathLike[str], *, max_bytes: int | None = 64 << 20, encoding: str = "utf-8"
) -> str: ...
@overload
def read_file(
    path: str | os.PathLike[str], *, max_bytes: int | None = 64 << 20, encoding: None
) -> bytes: ...
def read_file(
    path: str | os.PathLike[str],
    *,
    max_bytes: int | None = 64 << 20,
    encoding: str | None = "utf-8",
) -> str | bytes:
    """All of the file *path*; `encoding=None` gives bytes, else line ends stay as they are.

    Raises OSError that names *path*: EFBIG when it holds more than *max_bytes* (None: no limit),
    which is never cut short, even if it grows meanwhile; EINVAL for a FIFO, socket or device,
    which is not waited for. ValueError when the text is not in *encoding*.
    """
    name = os.fsdecode(path)
    with _opened(name) as fd:
        data = _read(name, fd, max_bytes)
    if encoding is None:
        return data
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        # Not chained: that error holds all of the data, and gets into logs.
        reason, start = e.reason, e.start
    raise ValueError(f"{name}: not {encoding}: {reason} at byte {start}")


def tail(
    path: str | os.PathLike[str], *, lines: int | None = None, max_bytes: int = 1 << 20
) -> str:
    """The last *lines* of a text in UTF-8, or all that is in its last *max_bytes*.

    Never more than *max_bytes* are looked at, so of a longer line only its end comes back. Read
    backwards from where the file ended at the call; what is written later is not in it. A
    character cut in two at either end is left out, bytes that are no UTF-8 become U+FFFD. A last
    line without its newline counts. Files of /proc, which have no size, give "".

    Raises OSError that names *path*, EINVAL for a FIFO, socket or device.
    """
    if max_bytes < 0 or (lines is not None and lines < 0):
        raise ValueError(f"tail takes no negative numbers: {lines=}, {max_bytes=}")
    name = os.fsdecode(path)
    with _opened(name) as fd:
        data, whole = _read_back(fd, lines, max_bytes)
    if not whole:
        data = _from_first_character(data)
    # Not the end of a stream to it: half a character at the end is kept back.
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


@contextmanager
def _opened(name: str) -> Iterator[int]:
    """A descriptor of the regular file; errors inside the block name the file too."""
    # Not blocking: open(2) of a FIFO would wait for its writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(name, flags)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        yield fd
    except OSError as e:
        if e.filename is not None:
            raise
        raise OSError(e.errno, f"cannot read it: {e.strerror}", name) from e
    finally:
        posix.close(fd)  # gevent's os.close() would keep what is no file until its loop runs


def _read(name: str, fd: int, max_bytes: int | None) -> bytes:
    limit = float("inf") if max_bytes is None else max_bytes
    data = bytearray()
    # Not by its size alone: files of /proc have none, and a log may grow meanwhile.
    block = max(_BLOCK, min(os.fstat(fd).st_size + 1, 16 << 20))
    while more := os.read(fd, int(min(block, limit + 1 - len(data)))):
        data += more
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than max_bytes={max_bytes}", name)
    return bytes(data)


def _read_back(fd: int, lines: int | None, max_bytes: int) -> tuple[bytes, bool]:
    """The last lines, and whether they begin where a line or the file does."""
    end = os.fstat(fd).st_size
    start = max(0, end - max_bytes)
    blocks: list[bytes] = []
    newlines = 0
    position = end
    while position > start and (lines is None or newlines <= lines):
        position, until = max(start, position - _BLOCK), position
        block = os.pread(fd, until - position, position)
        if len(block) < until - position:
            blocks.clear()  # truncated meanwhile: what lay behind is gone
            newlines = 0
        blocks.append(block)
        newlines += block.count(b"\n")
    data = b"".join(reversed(blocks))
    if lines is None:
        return data, position == 0
    cut = len(data) - (1 if data.endswith(b"\n") else 0)
    for _ in range(lines):
        cut = data.rfind(b"\n", 0, cut)
        if cut < 0:
            return data, position == 0
    return data[cut + 1 :] if lines else b"", True


def _from_first_character(data: bytes) -> bytes:
    cut = 0
    while cut < min(len(data), _MAX_CHARACTER - 1) and data[cut] & 0xC0 == 0x80:
        cut += 1
    return data[cut:]
