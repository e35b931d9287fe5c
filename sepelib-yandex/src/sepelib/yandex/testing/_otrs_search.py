"""What a TicketSearch of OTRS finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from ._otrs_payload import Item, refused, several

__all__ = ["SEARCH", "search"]

Test: TypeAlias = Callable[[Item], bool]

_TEXTS = {"Subject": "Subject", "Body": "Body"}
_TEXTS |= {f"MIMEBase_{name}": name for name in _TEXTS}  # as they are called since OTRS 8
_FIELDS = {
    "Queues": "Queue",
    "QueueIDs": "QueueID",
    "States": "State",
    "StateIDs": "StateID",
    "Title": "Title",
    "TicketNumber": "TicketNumber",
    "CustomerUserLogin": "CustomerUser",
}
_SORTS = {
    "Age": "Created",
    "TicketNumber": "TicketNumber",
    "Title": "Title",
    "Queue": "Queue",
    "State": "State",
    "Priority": "Priority",
}
_DYNAMIC = re.compile(
    "DynamicField_(.+?)(Equals|Like|GreaterThanEquals|GreaterThan|SmallerThanEquals|SmallerThan)"
)

SEARCH = (
    *_FIELDS,
    *_TEXTS,
    "StateType",
    "TicketCreateTimeNewerDate",
    "TicketCreateTimeOlderDate",
    "FullTextIndex",
    "ContentSearch",
    "Limit",
    "SortBy",
    "OrderBy",
    "DynamicField_*",
)
"""The parameters that it knows."""


def search(tickets: Iterable[Item], asked: Item) -> list[str]:
    """Ids, in the order and up to the limit that are *asked* for."""
    tests = list(_tests(asked))
    found = [ticket for ticket in tickets if all(test(ticket) for test in tests)]
    sort, order = asked.get("SortBy", "Age"), asked.get("OrderBy", "Down")
    limit = str(asked.get("Limit", 500))
    if sort not in _SORTS or order not in ("Up", "Down") or not limit.isdecimal():
        raise refused("InvalidParameter", f"SortBy {sort}, OrderBy {order}, Limit {limit}")
    found.sort(
        key=lambda ticket: (ticket[_SORTS[sort]], int(ticket["TicketID"])),
        reverse=order == "Down",
    )
    return [ticket["TicketID"] for ticket in found[: int(limit)]]


def _tests(asked: Item) -> Iterator[Test]:
    for name, value in asked.items():
        if name in _FIELDS:
            yield _like_in(_FIELDS[name], several(value))
        elif name == "StateType":
            yield _state_type(several(value))
        elif name.startswith("DynamicField_"):
            yield from _dynamic_tests(name, value)
    newer = str(asked.get("TicketCreateTimeNewerDate", ""))
    older = str(asked.get("TicketCreateTimeOlderDate", "9999"))
    yield lambda ticket: newer <= ticket["Created"] <= older
    texts = [(field, several(asked[name])) for name, field in _TEXTS.items() if name in asked]
    if texts:
        some = any if asked.get("ContentSearch") == "OR" else all
        yield lambda ticket: any(
            some(_like(article.get(field), patterns) for field, patterns in texts)
            for article in ticket["Article"]
        )


def _like_in(field: str, patterns: list[str]) -> Test:
    return lambda ticket: _like(ticket.get(field), patterns)


def _state_type(types: list[str]) -> Test:
    """Inferred: the type of a state is its first word."""
    return lambda ticket: str(ticket["State"]).split()[0] in types


def _dynamic_tests(name: str, value: object) -> Iterator[Test]:
    """`DynamicField_XEquals=1` of a query, `"DynamicField_X": {"Equals": 1}` of a body."""
    match = _DYNAMIC.fullmatch(name)
    if match:
        yield _compared_in(match[1], match[2], several(value))
    elif isinstance(value, dict):
        for operator, wanted in value.items():
            yield _compared_in(name.removeprefix("DynamicField_"), operator, several(wanted))
    else:
        raise refused("InvalidParameter", f"{name} has no operator")


def _compared_in(field: str, operator: str, wanted: list[str]) -> Test:
    def test(ticket: Item) -> bool:
        for one in ticket["DynamicField"]:
            if one["Name"] == field and one["Value"] is not None:
                return _compared(str(one["Value"]), operator, wanted)
        return False

    return test


def _compared(value: str, operator: str, wanted: list[str]) -> bool:
    if operator == "Like":
        return _like(value, wanted)
    if operator.endswith("Equals") and value in wanted:
        return True
    if operator.startswith("Greater"):
        return all(value > one for one in wanted)
    return operator.startswith("Smaller") and all(value < one for one in wanted)


def _like(value: object, patterns: list[str]) -> bool:
    """`%` is any text."""
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("%"))), str(value), re.DOTALL)
        for pattern in patterns
    )
