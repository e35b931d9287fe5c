"""Durations and sizes as people write them, asked for by type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sepelib.core import config as module
from sepelib.core.config import ConfigTypeError

if TYPE_CHECKING:
    from .conftest import Load


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1m30s", module.duration, 90.0),
        ("30", module.duration, 30.0),
        ("'30'", module.duration, 30.0),
        ("0.5", module.duration, 0.5),
        ("0", module.duration, 0.0),
        ("16MiB", module.size, 16777216),
        ("4096", module.size, 4096),
        ("'4096'", module.size, 4096),
    ],
)
def test_a_value_with_a_unit(load: Load, text: str, kind: Any, value: Any) -> None:
    got = load(f"a: {text}").get_value("a", type=kind)

    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["true", "-1", ".inf", ".nan", "[1]", "null", "1 fortnight"])
def test_what_is_no_duration_is_refused_at_its_place(load: Load, text: str) -> None:
    with pytest.raises(ConfigTypeError, match=r"^cfg\.yml:1:4: a must be duration, which says: "):
        load(f"a: {text}").get_value("a", type=module.duration)


@pytest.mark.parametrize("text", ["true", "-1", "1.5", "[1]", "null", "16M"])
def test_what_is_no_size_is_refused_at_its_place(load: Load, text: str) -> None:
    with pytest.raises(ConfigTypeError, match=r"^cfg\.yml:1:4: a must be size, which says: "):
        load(f"a: {text}").get_value("a", type=module.size)


def test_they_are_functions_of_their_own() -> None:
    assert (module.duration("1m30s"), module.size("16MiB")) == (90.0, 16777216)
