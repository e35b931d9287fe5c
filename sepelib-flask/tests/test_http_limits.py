"""Limits: what may be given, and what the names mean."""

import dataclasses

import pytest

from sepelib.flask.server._limits import Limits


def test_the_defaults_bound_everything() -> None:
    assert all(value is not None for value in dataclasses.astuple(Limits()))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_no_limit_is_negative(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: -1})


@pytest.mark.parametrize("name", ["max_connections", "header_timeout", "min_rate", "max_headers"])
def test_most_limits_are_more_than_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})
    assert Limits(reserve=0, max_body_bytes=0).reserve == 0


def test_only_times_and_bodies_may_be_unlimited() -> None:
    unlimited = Limits(
        header_timeout=None,
        idle_timeout=None,
        body_timeout=None,
        write_timeout=None,
        max_body_bytes=None,
    )
    assert unlimited.body_timeout is None
    with pytest.raises(ValueError, match="max_connections"):
        Limits(max_connections=None)  # type: ignore[arg-type]
