"""A reply read into Python values, by expat, without trust.

    nil -> None   boolean -> bool   int, i1, i2, i4, i8, biginteger -> int   double, float -> float
    string, or no type at all -> str   base64 -> bytes   array -> list   struct -> dict
    dateTime.iso8601 -> datetime, with dashes and colons or without, with a fraction, Z or an offset

Refused are a DTD, and so all entities beside XML's own five, elements where they do not belong,
more than one value, and nesting deeper than `MAX_DEPTH`. Nothing of the process is patched.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, NoReturn
from xml.parsers import expat

from sepelib.rpc._xml_write import MAX_DEPTH

__all__ = ["Reply", "Unparsable", "parse_reply"]

_BLANK = " \t\r\n"
_UNSET: Final = object()
_DATE = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?"
    r" ?(?:(Z)|([+-])(\d\d):?(\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)


class Unparsable(Exception):
    """*reason* why it is no reply of XML-RPC; the place counts from 1, or is 0, 0."""

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason, line, column)
        self.reason = reason
        self.line = line
        self.column = column


class Reply(NamedTuple):
    """The *value* of the procedure or, when *is_fault*, the struct that tells of its failure."""

    value: Any
    is_fault: bool


def parse_reply(data: bytes, *, aware: bool) -> Reply:
    """Raises Unparsable. *aware*: datetimes in UTC, and UTC where no offset is said; else naive."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    reader = _Reader(aware)
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = f"not XML ({expat.ErrorString(error.code)})"
        raise Unparsable(reason, error.lineno, error.offset + 1) from None
    except _Refused as error:
        line, column = parser.CurrentLineNumber, parser.CurrentColumnNumber + 1
        raise Unparsable(str(error), line, column) from None
    except (LookupError, ValueError):
        # Of an encoding that it does not know expat asks Python, which may not know it either.
        raise Unparsable("in an encoding that cannot be read", 1, 1) from None
    return Reply(reader.result, reader.is_fault)


class _Refused(Exception):
    """Well-formed, but no reply."""


def _refuse_doctype(*_: object) -> NoReturn:
    raise _Refused("a DTD, which is refused")


class _Reader:
    """Built from the events of expat. `slots` has the value of each <value> that is open."""

    __slots__ = (
        "_arrays_and_structs",
        "_aware",
        "_members",
        "_open",
        "_slots",
        "is_fault",
        "result",
        "text",
    )

    def __init__(self, aware: bool) -> None:
        self.text: list[str] = []
        self.result: Any = _UNSET
        self.is_fault = False
        self._aware = aware
        self._open = [""]
        self._slots: list[Any] = []
        self._arrays_and_structs: list[Any] = []
        self._members: list[list[Any]] = []

    def start(self, tag: str, attributes: object) -> None:
        parent = self._open[-1]
        if tag not in _CHILDREN[parent]:
            tag = tag.rpartition(":")[2]  # Apache's extensions have a namespace
            if tag not in _CHILDREN[parent]:
                raise _Refused(f"an unexpected <{tag[:40]}>{f' in <{parent}>' if parent else ''}")
        if self.text:
            self._drop_blanks()
        self._open.append(tag)
        if tag == "value":
            if len(self._slots) > MAX_DEPTH:
                raise _Refused(f"nested deeper than {MAX_DEPTH}")
            self._slots.append(_UNSET)
        elif tag == "member":
            self._members.append([_UNSET, _UNSET])
        elif parent == "value":
            if self._slots[-1] is not _UNSET:
                raise _Refused(f"a second value, <{tag}>, in one <value>")
            if tag == "struct":
                self._arrays_and_structs.append({})
            elif tag == "array":
                self._arrays_and_structs.append([])

    def end(self, _: str) -> None:
        tag = self._open.pop()
        if tag == "value":
            value = self._slots.pop()
            if value is _UNSET:
                value = "".join(self.text)
                self.text.clear()
            elif self.text:
                self._drop_blanks()
            self._deliver(value)
        elif tag == "name":
            self._fill(0, "".join(self.text))
            self.text.clear()
        elif (scalar := _SCALARS.get(tag)) is not None:
            try:
                value = scalar("".join(self.text))
                self._slots[-1] = self._localized(value) if tag == _DATETIME else value
            except (ValueError, OverflowError):
                raise _Refused(f"an unreadable <{tag}>") from None
            self.text.clear()
        else:
            if self.text:
                self._drop_blanks()
            if tag == "member":
                name, value = self._members.pop()
                if name is _UNSET or value is _UNSET:
                    raise _Refused("a <member> without a name or a value")
                self._arrays_and_structs[-1][name] = value
            elif tag == "struct" or tag == "array":
                self._slots[-1] = self._arrays_and_structs.pop()
            elif tag == "methodResponse" and self.result is _UNSET:
                raise _Refused("no value")

    def _deliver(self, value: Any) -> None:
        parent = self._open[-1]
        if parent == "member":
            self._fill(1, value)
        elif parent == "data":
            self._arrays_and_structs[-1].append(value)
        elif self.result is _UNSET:
            self.result = value
            self.is_fault = parent == "fault"
        else:
            raise _Refused("more than one value")

    def _fill(self, index: int, value: Any) -> None:
        member = self._members[-1]
        if member[index] is not _UNSET:
            raise _Refused("a <member> with two names or two values")
        member[index] = value

    def _drop_blanks(self) -> None:
        if not "".join(self.text).isspace():
            raise _Refused(f"text where none belongs, in <{self._open[-1]}>")
        self.text.clear()

    def _localized(self, value: datetime) -> datetime:
        if self._aware:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _boolean(text: str) -> bool:
    try:
        return {"1": True, "0": False, "true": True, "false": False}[text.strip(_BLANK).lower()]
    except KeyError:
        raise ValueError from None


def _integer(text: str) -> int:
    return int(_number(text))


def _double(text: str) -> float:
    return float(_number(text))


def _number(text: str) -> str:
    if "_" in text or not text.isascii():  # Python takes both
        raise ValueError
    return text


def _bytes(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


def _nil(text: str) -> None:
    if text.strip(_BLANK):
        raise ValueError


def _datetime(text: str) -> datetime:
    found = _DATE.fullmatch(text.strip(_BLANK))
    if found is None:
        raise ValueError
    *date, fraction, zulu, sign, hours, minutes = found.groups()
    offset = UTC if zulu else None
    if sign:
        east = timedelta(hours=int(hours), minutes=int(minutes or 0))
        offset = timezone(-east if sign == "-" else east)
    year, month, day, hour, minute, second = [int(part or 0) for part in date]
    micros = int(f"{fraction or '':0<6.6}")
    return datetime(year, month, day, hour, minute, second, micros, tzinfo=offset)


_DATETIME = "dateTime.iso8601"
_SCALARS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int": _integer,
    "i4": _integer,
    "i8": _integer,
    "i1": _integer,
    "i2": _integer,
    "biginteger": _integer,
    "boolean": _boolean,
    "double": _double,
    "float": _double,
    "base64": _bytes,
    "nil": _nil,
    _DATETIME: _datetime,
}
_CHILDREN: dict[str, frozenset[str]] = {
    "": frozenset({"methodResponse"}),
    "methodResponse": frozenset({"params", "fault"}),
    "params": frozenset({"param"}),
    "param": frozenset({"value"}),
    "fault": frozenset({"value"}),
    "value": frozenset({*_SCALARS, "array", "struct"}),
    "array": frozenset({"data"}),
    "data": frozenset({"value"}),
    "struct": frozenset({"member"}),
    "member": frozenset({"name", "value"}),
    "name": frozenset(),
    **{tag: frozenset() for tag in _SCALARS},
}
