"""An XML answer of Blackbox as what its JSON is, by expat, without trust.

    <doc><uid>11</uid><status id="0">VALID</status><dbfield id="a">b</dbfield></doc>
    {"uid": "11", "status": {"id": "0", "value": "VALID"}, "dbfields": {"a": "b"}}

An element is a text; with attributes an object that has them and the text as `value`; with
elements inside an object of those. The name of the root does not matter. Refused are a DTD, and so
all entities beside XML's own five, and nesting deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from xml.parsers import expat

__all__ = ["MAX_DEPTH", "Unparsable", "parse"]

MAX_DEPTH = 16
"""Elements in elements; published answers have three."""


class Unparsable(Exception):
    """Why it is no answer; without a word of it."""


def parse(data: bytes) -> dict[str, Any]:
    """Raises Unparsable."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    reader = _Reader()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Unparsable(f"not XML ({expat.ErrorString(error.code)})") from None
    except (LookupError, ValueError):
        # Of an encoding that it does not know expat asks Python, which may not know it either.
        raise Unparsable("XML in an encoding that cannot be read") from None
    if not isinstance(reader.root, dict):
        raise Unparsable("XML without elements in its root")
    return _as_json(reader.root)


def _refuse_doctype(*_: object) -> NoReturn:
    raise Unparsable("XML with a DTD, which is refused")


class _Element:
    __slots__ = ("attributes", "children", "text")

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.children: dict[str, list[Any]] = {}
        self.text: list[str] = []

    def value(self) -> Any:
        if self.children:
            several = self.children.items()
            return {**self.attributes, **{k: v if len(v) > 1 else v[0] for k, v in several}}
        text = "".join(self.text)
        return {**self.attributes, "value": text} if self.attributes else text


class _Reader:
    """Built from the events of expat."""

    def __init__(self) -> None:
        self.root: Any = None
        self._open: list[_Element] = []

    def start(self, _: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise Unparsable(f"XML nested deeper than {MAX_DEPTH}")
        self._open.append(_Element(attributes))

    def text(self, text: str) -> None:
        self._open[-1].text.append(text)

    def end(self, tag: str) -> None:
        value = self._open.pop().value()
        if self._open:
            self._open[-1].children.setdefault(tag, []).append(value)
        else:
            self.root = value


def _as_json(found: dict[str, Any]) -> dict[str, Any]:
    """With the lists and maps that elements of one name stand for."""
    answer = dict(found)
    if "dbfield" in answer:
        answer["dbfields"] = _map(answer.pop("dbfield"), by="id")
    attributes = answer.get("attributes")
    if isinstance(attributes, Mapping) and "attribute" in attributes:
        answer["attributes"] = _map(attributes["attribute"], by="type")
    if "user" in answer:
        answer["users"] = _each(answer.pop("user"), _user)
    return answer


def _user(found: Any) -> Any:
    return _as_json(found) if isinstance(found, dict) else found


def _map(items: Any, *, by: str) -> dict[str, Any]:
    named = [item for item in _each(items) if isinstance(item, Mapping) and by in item]
    return {item[by]: item.get("value") for item in named}


def _each(items: Any, of: Callable[[Any], Any] = lambda item: item) -> list[Any]:
    return [of(item) for item in (items if isinstance(items, list) else [items])]
