"""A file on its way as a form of one part, RFC 7578, without being held in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO
from uuid import uuid4

__all__ = ["uploaded"]

_PIECE = 64 << 10  # bytes
_IN_A_NAME = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do


def uploaded(file: BinaryIO, name: str = "file") -> dict[str, Any]:
    """The keywords of `request()` that send *file*, from where it is, as the part "file".

    What is not seekable goes by requests, which holds it in memory.
    """
    if not file.seekable():
        return {"files": {"file": (name, file)}}
    form = FileForm(file, name)
    return {"data": form, "headers": {"Content-Type": form.content_type}}


class FileForm:
    """The body of an upload: what stands before *file*, the rest of it, what stands behind.

    Reads *file* from where it is; seekable to its own start, and so fit to be sent again.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        boundary = uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._file = file
        self._start = file.tell()
        size = file.seek(0, io.SEEK_END) - self._start
        file.seek(self._start)
        head = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="file"; '
            f'filename="{name.translate(_IN_A_NAME)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._size = len(self._head) + size + len(self._tail)
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """As of any file: *size* bytes or fewer, all that is left without it."""
        if size < 0:
            return b"".join(self)
        piece = self._piece(min(size, self._size - self._at))
        self._at += len(piece)
        return piece

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """To the start only."""
        if position or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a form is read from its start")
        self._file.seek(self._start)
        self._at = 0
        return 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def _piece(self, size: int) -> bytes:
        if not size:
            return b""
        if self._at < len(self._head):
            return self._head[self._at : self._at + size]
        behind = self._at - (self._size - len(self._tail))
        if behind >= 0:
            return self._tail[behind : behind + size]
        piece = self._file.read(min(size, -behind))
        if not piece:
            raise ValueError("the file has become shorter while it was sent")
        return piece
