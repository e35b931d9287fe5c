"""Files of a configuration, and the way back from rendered text to the lines in them."""

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from sepelib.core.config.errors import ConfigError, Place
from sepelib.core.config.secrecy import MASK, SECRET_WORDS

__all__ = ["Mark", "Rendered", "read_text", "snippet", "whole_file"]

_SNIPPET_LENGTH = 120
_SECRET = re.compile(rf"""(?:{SECRET_WORDS})[\w.-]*["']?\s*[:=]\s*|!secret\b\s*""", re.IGNORECASE)


def read_text(path: str, cwd: str = "", *, limit: int = -1) -> str:
    """Read *path* as UTF-8, with or without a BOM; all kinds of line ends become ``\\n``.

    *cwd* is where *path* starts when it is relative. More than *limit* bytes are refused.
    A template is code. When we run as root, a file that everybody may write is refused.
    """
    try:
        with open(os.path.join(cwd, path), "rb") as file:
            # Of the open file, not of the path: the path may be replaced in between.
            status = os.fstat(file.fileno())
            raw = file.read(limit if limit < 0 else limit + 1)
    except FileNotFoundError as error:
        where = "" if os.path.isabs(path) else f"; the working directory is {cwd or os.getcwd()}"
        raise ConfigError(f"no such file{where}", Place(path)) from error
    except IsADirectoryError as error:
        raise ConfigError("is a directory; name a file in it", Place(path)) from error
    except PermissionError as error:
        what = f"permission denied; make it readable for uid {os.geteuid()}"
        raise ConfigError(what, Place(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", Place(path)) from error
    if os.geteuid() == 0 and stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
        what = "everybody may write this file and we run as root; chmod o-w"
        raise ConfigError(what, Place(path))
    if 0 <= limit < len(raw):
        raise ConfigError(f"is larger than {limit} bytes", Place(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8-sig")) + 1
        what = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError(what, Place(path, line, column)) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Mark(NamedTuple):
    """From *offset* of the rendered text on, the text comes from *place*.

    *literal* text was copied, so each line end in it is one in the template too; otherwise it is
    the value of an expression, all of which stands where the expression stands.
    """

    offset: int
    place: Callable[[], Place]  # lazy: columns cost a second lexing and are for errors only
    literal: bool


class Rendered:
    """Rendered text with the marks that lead back to the files it was made from."""

    def __init__(
        self, path: str, text: str, marks: Sequence[Mark], sources: Mapping[str, str]
    ) -> None:
        self.path = path
        self.text = text
        self.sources = sources  # the text of each file, by its path
        self._marks = marks  # by offset; the first one at 0

    def place(self, offset: int) -> Place:
        """Where in the files the character at *offset* of the text was written."""
        mark = self._mark(offset)
        start = mark.place()
        if not mark.literal or start.line is None:
            return start
        lines = self.text.count("\n", mark.offset, offset)
        if lines:
            column: int | None = offset - self.text.rfind("\n", 0, offset)
        else:
            column = start.column and start.column + offset - mark.offset
        return Place(start.file, start.line + lines, column)

    def is_literal(self, offset: int) -> bool:
        """Whether the text at *offset* was copied, and not the value of an expression."""
        return self._mark(offset).literal

    def _mark(self, offset: int) -> Mark:
        return self._marks[bisect_right(self._marks, offset, key=itemgetter(0)) - 1]

    def snippet(self, place: Place) -> str:
        return snippet(self.sources.get(place.file, ""), place.line)


def whole_file(path: str, text: str) -> Rendered:
    """The file *path*, as it is: without a template there is nothing to render."""
    return Rendered(path, text, [Mark(0, lambda: Place(path, 1, 1), True)], {path: text})


def snippet(source: str, line: int | None) -> str:
    """Line *line* of *source*, without what could be a secret."""
    lines = source.split("\n")
    if line is None or line > len(lines):
        return ""
    text = lines[line - 1].rstrip()
    indent, _ = _indents(text)
    for above in reversed(lines[: line - 1]):
        own, content = _indents(above)
        if above.strip() and content < indent:
            if _SECRET.search(above):
                return MASK  # part of a block scalar, or a secret spelt out in parts
            indent = own
    if secret := _SECRET.search(text):
        text = text[: secret.end()] + MASK
    from sepelib.util.url import redact_text  # not at the top: only errors show snippets

    return redact_text(text)[:_SNIPPET_LENGTH]


def _indents(line: str) -> tuple[int, int]:
    """Of a line as a part of what is above it, and of the keys in it."""
    own, content = (len(line) - len(line.lstrip(blank)) for blank in (" \t", " \t-"))
    # An item of a list may stand in the column of the key that the list belongs to.
    return own + (content > own), content
