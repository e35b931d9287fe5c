"""A call as XML, or why it cannot be one.

Written are nil, boolean, int (i8 above 32 bits), double, string, base64, dateTime.iso8601, array
and struct. An aware datetime goes in UTC and without an offset, which many servers cannot read; a
naive one as it is. Fractions of a second are dropped: the type has none.
Source: xmlrpc.com/spec.md; XML 1.0, section 2.2, for the characters.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sepelib.util.text import truncate

__all__ = ["MAX_DEPTH", "Unsendable", "write_call"]

MAX_DEPTH = 64
"""Of arrays and structs within each other, in what is sent and in what is read."""

_METHOD = re.compile(r"[A-Za-z0-9_.:/@$-]+")
_UNSENDABLE = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_SPECIAL = re.compile(f"[&<>\r{_UNSENDABLE}]").search
_ILLEGAL = re.compile(f"[{_UNSENDABLE}]").search
_PATH_SHOWN = 200


class Unsendable(Exception):
    """*reason* why the value at `path` cannot be sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._steps: list[str] = []

    def within(self, step: str) -> None:
        self._steps.append(step)

    @property
    def path(self) -> str:
        return truncate("".join(reversed(self._steps)), _PATH_SHOWN)


def write_call(
    method: str, params: Sequence[object], *, allow_none: bool, big_ints: Literal["i8", "error"]
) -> bytes:
    """The body of the request. Raises Unsendable."""
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        error = Unsendable("is no name of letters, digits and _.:/@$-")
        error.within("the method")
        raise error
    pieces: list[str] = []
    writer = _Writer(pieces.append, allow_none=allow_none, wide=big_ints == "i8")
    for index, value in enumerate(params):
        pieces.append("<param>")
        try:
            writer.write(value, 0)
        except Unsendable as error:
            error.within(f"params[{index}]")
            raise
        pieces.append("</param>")
    return (
        f"<?xml version='1.0' encoding='utf-8'?>\n<methodCall><methodName>{method}</methodName>"
        f"<params>{''.join(pieces)}</params></methodCall>"
    ).encode()


class _Writer:
    __slots__ = ("_add", "_allow_none", "_wide")

    def __init__(self, add: Callable[[str], None], *, allow_none: bool, wide: bool) -> None:
        self._add = add
        self._allow_none = allow_none
        self._wide = wide

    def write(self, value: Any, depth: int) -> None:
        write = _WRITERS.get(type(value)) or self._inherited(type(value))
        write(self, value, depth)

    def _inherited(self, kind: type) -> Callable[[_Writer, Any, int], None]:
        for base in kind.__mro__:
            if base in _WRITERS:
                return _WRITERS[base]
        raise Unsendable(f"is of type {kind.__qualname__}, which XML-RPC does not have")

    def _none(self, value: None, depth: int) -> None:
        if not self._allow_none:
            raise Unsendable("is None, and allow_none=False")
        self._add("<value><nil/></value>")

    def _bool(self, value: bool, depth: int) -> None:
        self._add(f"<value><boolean>{'1' if value else '0'}</boolean></value>")

    def _int(self, value: int, depth: int) -> None:
        if -0x80000000 <= value <= 0x7FFFFFFF:
            self._add(f"<value><int>{int.__repr__(value)}</int></value>")
        elif not self._wide:
            raise Unsendable("is an int beyond 32 bits, and big_ints='error'")
        elif -0x80000000_00000000 <= value <= 0x7FFFFFFF_FFFFFFFF:
            self._add(f"<value><i8>{int.__repr__(value)}</i8></value>")
        else:
            raise Unsendable("is an int beyond 64 bits")

    def _float(self, value: float, depth: int) -> None:
        if not math.isfinite(value):
            raise Unsendable("is not a finite number")
        self._add(f"<value><double>{float.__repr__(value)}</double></value>")

    def _str(self, value: str, depth: int) -> None:
        self._add(f"<value><string>{_escaped(value)}</string></value>")

    def _bytes(self, value: bytes | bytearray | memoryview, depth: int) -> None:
        encoded = binascii.b2a_base64(bytes(value), newline=False).decode("ascii")
        self._add(f"<value><base64>{encoded}</base64></value>")

    def _datetime(self, value: datetime, depth: int) -> None:
        if value.utcoffset() is not None:
            try:
                value = value.astimezone(UTC)
            except OverflowError:
                raise Unsendable("is a datetime outside of the years 1 to 9999 in UTC") from None
        text = value.replace(tzinfo=None).isoformat(timespec="seconds").replace("-", "")
        self._add(f"<value><dateTime.iso8601>{text}</dateTime.iso8601></value>")

    def _array(self, value: Sequence[object], depth: int) -> None:
        self._check(depth)
        self._add("<value><array><data>")
        for index, item in enumerate(value):
            try:
                self.write(item, depth + 1)
            except Unsendable as error:
                error.within(f"[{index}]")
                raise
        self._add("</data></array></value>")

    def _struct(self, value: dict[object, object], depth: int) -> None:
        self._check(depth)
        self._add("<value><struct>")
        for name, item in value.items():
            if not isinstance(name, str):
                raise Unsendable(f"has a key of type {type(name).__qualname__}, not str")
            try:
                self._add(f"<member><name>{_escaped(name)}</name>")
                self.write(item, depth + 1)
            except Unsendable as error:
                error.within(f".{name}" if name.isidentifier() else f"[{name!a}]")
                raise
            self._add("</member>")
        self._add("</struct></value>")

    def _check(self, depth: int) -> None:
        # Also what ends a list that contains itself.
        if depth >= MAX_DEPTH:
            raise Unsendable(f"is nested deeper than {MAX_DEPTH}")


_WRITERS: dict[type, Callable[[_Writer, Any, int], None]] = {
    type(None): _Writer._none,
    bool: _Writer._bool,
    int: _Writer._int,
    float: _Writer._float,
    str: _Writer._str,
    bytes: _Writer._bytes,
    bytearray: _Writer._bytes,
    memoryview: _Writer._bytes,
    datetime: _Writer._datetime,
    list: _Writer._array,
    tuple: _Writer._array,
    dict: _Writer._struct,
}


def _escaped(text: str) -> str:
    if _SPECIAL(text) is None:
        return text if type(text) is str else str.__str__(text)
    if illegal := _ILLEGAL(text):
        raise Unsendable(f"has U+{ord(illegal[0]):04X}, a character that XML cannot hold")
    # A bare carriage return is read as a newline.
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    )
