"""A value of one of several types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sepelib.flask.h._class_plan import ClassPlan
from sepelib.flask.h._plan import Plan
from sepelib.flask.h._problems import BAD, LIST, NULL, OBJECT, At, Enough, Problems, kind_of
from sepelib.flask.h._scalars import Choice

__all__ = ["UnionPlan"]


class UnionPlan(Plan):
    """What is more special comes first: a str takes the strings that nothing else takes.

    Only scalars are tried one after another. Of lists there is one type, and of several objects
    each names its own by a tag: trying them would take 2^depth steps for a type inside of itself.
    """

    def __init__(self, members: list[Plan]) -> None:
        members = sorted(members, key=_rank)
        self.expected = " or ".join(dict.fromkeys(member.expected for member in members))
        self.accepts = frozenset().union(*(member.accepts for member in members))
        texts = [member for member in members if member.accepts != {NULL}]
        self.textual = all(member.textual for member in texts)
        self.several = any(member.several for member in texts)
        self.hashable = all(member.hashable for member in members)
        # What stands in place of an object may be a secret of it.
        self.hidden = any(member.hidden or member.accepts & {LIST, OBJECT} for member in members)
        self._members = members
        self._texts = texts
        self._tag = ""
        self._by_tag: dict[tuple[type, Any], Plan] = {}

    def complete(self) -> None:
        """The second half of `__init__`, when classes have their fields; TypeError for no tag."""
        if len(self._that_accept(LIST)) > 1:
            raise TypeError(f"{self.expected}: of lists a union has one type")
        objects = self._that_accept(OBJECT)
        if len(objects) < 2:
            return
        classes = [member for member in objects if isinstance(member, ClassPlan)]
        if len(classes) == len(objects):
            for tag in classes[0].tags():
                pairs = [(value, each) for each in classes for value in each.tags().get(tag, ())]
                named_by_all = all(each.tags().get(tag) for each in classes)
                if named_by_all and len({value for value, _ in pairs}) == len(pairs):
                    self._tag, self._by_tag = tag, dict(pairs)
                    return
        raise TypeError(
            f"{self.expected}: objects of several types need a required field of one name, with a "
            "Literal of its own in each"
        )

    def _that_accept(self, kind: str) -> list[Plan]:
        return [member for member in self._members if kind in member.accepts]

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        kind = kind_of(value)
        fit = self._that_accept(kind)
        if len(fit) == 1:  # its own words say best what is wrong
            return fit[0].read(value, at, problems)
        if fit and kind == OBJECT:
            return self._read_tagged(value, at, problems)
        for member in fit:
            made = _attempt(member.read, value, at)
            if made is not BAD:
                return made
        return problems.mismatch(at, self.expected, value, hidden=self.hidden)

    def _read_tagged(self, value: dict[str, Any], at: At, problems: Problems) -> Any:
        place = (at, self._tag)
        if self._tag not in value:
            return problems.add(place, "missing")
        tag = value[self._tag]
        member = None if isinstance(tag, list | dict) else self._by_tag.get((type(tag), tag))
        if member is None:
            known = Choice([(each, each) for _, each in self._by_tag])
            return problems.mismatch(place, known.expected, tag)
        return member.read(value, at, problems)

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        return self._parse("parse", text, at, problems)

    def parse_all(self, texts: list[str], at: At, problems: Problems) -> Any:
        if not self.several:
            return super().parse_all(texts, at, problems)
        return self._parse("parse_all", texts, at, problems)

    def _parse(self, how: str, given: Any, at: At, problems: Problems) -> Any:
        if len(self._texts) == 1:
            return getattr(self._texts[0], how)(given, at, problems)
        for member in self._texts:
            made = _attempt(getattr(member, how), given, at)
            if made is not BAD:
                return made
        return problems.mismatch(at, self.expected, given, hidden=self.hidden)


def _rank(member: Plan) -> int:
    if isinstance(member, Choice):
        return 0
    return {float: 2, str: 3}.get(member.kind, 1)


def _attempt(read: Callable[..., Any], value: Any, at: At) -> Any:
    scratch = Problems()
    try:
        made = read(value, at, scratch)
    except Enough:
        return BAD
    return BAD if scratch.found else made
