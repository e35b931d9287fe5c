"""What ``|yaml`` writes loads as what it was given."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Load, Refused

VALUES = [
    "plain",
    "",
    "x #y",
    "a: b",
    "- a",
    "{{ x }} {% y %}",
    "'\"\\ \\n",
    "one\ntwo\r\n\tthree\n",
    "emoji 😀 é",
    "\x00\x07\x1b\x7f\x80\x85\x9f\xa0\u2028\u2029\ufeff\ufffe\uffff\U0010ffff",
    "yes",
    "null",
    "0644",
    "1.10",
    "12:30:45",
    "2020-01-02",
    "<<",
    "=",
    "!tag",
    "*alias",
    "x" * 100_000,
    0,
    -1,
    2**70,
    True,
    False,
    None,
    1.5,
    -0.0,
    1e16,
    1e22,
    1.5e300,
    1e-7,
    math.inf,
    -math.inf,
    b"\x00\xff",
    date(2020, 1, 2),
    datetime(2020, 1, 2, 3, 4, 5, 678),
    datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
    [],
    {},
    [1, [2.5, "x #y", None], {"a": {"b": ["c: d"]}}],
    {"key: #": 1, "": 2, "null": 3, 80: "eighty", None: 4, "😀": [], "<<": 5},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:30])
def test_every_value_survives(load: Load, value: Any) -> None:
    tree = load("block: {{ x|yaml }}\nflow: [{{ x|yaml }}, {k: {{ x|yaml }}}]\n", x=value)

    for key in ("block", "flow.0", "flow.1.k"):
        got = tree.get_value(key)
        assert got == value
        assert type(got) is type(value) or isinstance(value, dict | list)


def test_nan_survives(load: Load) -> None:
    assert math.isnan(load("a: {{ x|yaml }}", x=math.nan).get_value("a"))


def test_a_tuple_becomes_a_list(load: Load) -> None:
    assert load("a: {{ x|yaml }}", x=(1, ("b",))).get_value("a") == [1, ["b"]]


def test_a_value_that_yaml_does_not_know_is_refused_at_its_line(refused: Refused) -> None:
    assert str(refused("a: 1\nb: {{ x|yaml }}", x=[object()])) == (
        "cfg.yml:2: TypeError: |yaml cannot write type object; turn it into text first"
    )
