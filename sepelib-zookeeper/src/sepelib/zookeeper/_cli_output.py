"""What the command line prints: for eyes, or as one JSON document."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Failure", "Output", "Status", "duration", "escaped", "moderate"]

_LONGEST = 4096


class Status(enum.IntEnum):
    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command; the sentence is all there is to say."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


class Output:
    """Where a command says what it has found; *as_json*: `document()` is printed, else the rest."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, document: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(document, indent=2))

    def line(self, text: str) -> None:
        if not self.as_json:
            print(text)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns as wide as their widest cell; one without a cell is left out."""
        if self.as_json:
            return
        lines = [tuple(heads), *map(tuple, rows)]
        shown = [n for n in range(len(heads)) if any(line[n] for line in lines[1:])]
        widths = {n: max(len(line[n]) for line in lines) for n in shown}
        for line in lines:
            print("  ".join(line[n].ljust(widths[n]) for n in shown).rstrip())

    def aside(self, text: str) -> None:
        """To stderr, in either form."""
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def escaped(text: str, longest: int = 48) -> str:
    r"""*text* in one line that does nothing to a terminal: control characters as \x1b."""
    cut = text[:longest]
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in cut
    )
    return shown if len(shown) <= longest and cut == text else f"{shown[: longest - 3]}..."


def moderate(text: str) -> str:
    """As it is, but for what nobody would read; for JSON, which escapes by itself."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02}{smaller_unit}"
    return f"{whole}s"
