"""Checks for tests of what measures itself.

`assert_metric` looks into a registry; `parse_yasm` reads a document as strictly as a collector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, overload

if TYPE_CHECKING:
    from sepelib.metrics.registry import Registry

__all__ = ["YasmSignal", "assert_metric", "parse_yasm"]

_Labels = Mapping[str, str]


@overload
def assert_metric(
    registry: Registry, name: str, labels: _Labels | None = None, *, value: float
) -> None: ...
@overload
def assert_metric(
    registry: Registry, name: str, labels: _Labels | None = None, *, delta: float
) -> AbstractContextManager[None]: ...
def assert_metric(
    registry: Registry,
    name: str,
    labels: _Labels | None = None,
    *,
    value: float | None = None,
    delta: float | None = None,
) -> AbstractContextManager[None] | None:
    """AssertionError unless the metric has that value, or in a `with` block grows by *delta*.

        assert_metric(registry, "requests", {"method": "GET"}, value=3)
        with assert_metric(registry, "requests", {"method": "GET"}, delta=1):
            session.get(url)

    name: as it was given to the registry. The value of a histogram or meter is its count. A series
    that is not there yet grows from 0. A block that ends by an exception is not judged.
    """
    labels = labels or {}
    if value is not None and delta is None:
        _has(registry, name, labels, value)
        return None
    if delta is not None and value is None:
        return _grows(registry, name, labels, delta)
    raise TypeError("assert_metric() takes either a value or a delta")


def _has(registry: Registry, name: str, labels: _Labels, value: float) -> None:
    found = _value(registry, name, labels)
    if found is None:
        _fail(registry, name, labels, f"is not there, expected {value:g}")
    elif not _is_close(found, value):
        _fail(registry, name, labels, f"is {found:g}, expected {value:g}")


@contextmanager
def _grows(registry: Registry, name: str, labels: _Labels, delta: float) -> Iterator[None]:
    before = _value(registry, name, labels) or 0.0
    yield
    grown = (_value(registry, name, labels) or 0.0) - before
    if not _is_close(grown, delta):
        _fail(registry, name, labels, f"grew by {grown:g}, expected {delta:g}")


def _value(registry: Registry, name: str, labels: _Labels) -> float | None:
    for found, value in _series(registry, name):
        if found == labels:
            return value
    return None


def _series(registry: Registry, name: str) -> list[tuple[dict[str, str], float]]:
    for metric in registry.snapshot()["metrics"]:
        if metric["name"] == registry.prefix + name:
            return [
                (
                    dict(zip(metric["labels"], series["labels"], strict=True)),
                    series["value"] if "value" in series else series["count"],
                )
                for series in metric["series"]
            ]
    return []


def _is_close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)


def _words(name: str, labels: _Labels) -> str:
    pairs = ", ".join(f"{name}={value!r}" for name, value in labels.items())
    return f"{name}{{{pairs}}}" if pairs else name


def _fail(registry: Registry, name: str, labels: _Labels, what: str) -> NoReturn:
    there = [f"{_words(name, found)} {value:g}" for found, value in _series(registry, name)]
    others = f"there is: {'; '.join(there)}" if there else f"there is no series of {name}"
    raise AssertionError(f"{_words(name, labels)} {what}; {others}")


class YasmSignal(NamedTuple):
    """One pair of a yasm document."""

    name: str  # without tags and suffix
    suffix: str  # "dmmm", "summ", ...
    tags: dict[str, str]
    value: float | list[tuple[float, int]]  # a histogram: (left edge, weight), ascending


_SIGNAL = re.compile(r"((?:[a-zA-Z0-9.\-/@_]+_)+)([ad][vehmntx]{3}|summ|hgram|max)")
_MAX_TAGS = 15
_MAX_EDGES = 50


def parse_yasm(document: bytes | str) -> list[YasmSignal]:
    """The signals of *document*, in its order; ValueError names the rule that it breaks."""
    text = document.decode() if isinstance(document, bytes) else document
    pairs = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(pairs, list):
        raise ValueError(f"a document is a list of pairs, not {_short(pairs)}")
    signals: dict[str, YasmSignal] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ValueError(f"a signal is a list [name, value], not {_short(pair)}")
        if pair[0] in signals:
            raise ValueError(f"{pair[0]!r} is there twice")
        signals[pair[0]] = _signal(*pair)
    return list(signals.values())


def _signal(full_name: str, value: Any) -> YasmSignal:
    *prefixes, signal = full_name.split(";")
    match = _SIGNAL.fullmatch(signal)
    if match is None:
        raise ValueError(f"{full_name!r}: {signal!r} is no name of a signal with a suffix")
    tags = [tuple(prefix.split("=")) for prefix in prefixes]
    if not all(len(tag) == 2 and all(tag) for tag in tags):
        raise ValueError(f"{full_name!r}: a tag is name=value; and neither is empty")
    names = [tag[0] for tag in tags]
    if names != sorted(set(names)):
        raise ValueError(f"{full_name!r}: tags are sorted by name, and none is there twice")
    if len(tags) > _MAX_TAGS:
        raise ValueError(f"{full_name!r}: more than {_MAX_TAGS} tags")
    name, suffix = match[1].removesuffix("_"), match[2]
    delta = suffix[0] == "d" or suffix in ("summ", "hgram")
    if suffix == "hgram" or suffix[1] == "h":
        parsed = _histogram(full_name, value)
    elif not _is_number(value) or (delta and not _is_weight(value)):
        what = "a non-negative integer" if delta else "a number"
        raise ValueError(f"{full_name!r}: the value is {what}, not {_short(value)}")
    else:
        parsed = value
    return YasmSignal(name, suffix, {tag[0]: tag[1] for tag in tags}, parsed)


def _histogram(name: str, value: Any) -> list[tuple[float, int]]:
    pairs: list[Any] = value if isinstance(value, list) else [None]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError(f"{name!r}: a histogram is a list of pairs, not {_short(value)}")
        if not (_is_number(pair[0]) and _is_weight(pair[1])):
            raise ValueError(f"{name!r}: a bucket is [edge, weight], not {_short(pair)}")
    edges = [edge for edge, _ in pairs]
    if len(edges) > _MAX_EDGES:
        raise ValueError(f"{name!r}: {len(edges)} edges, more than {_MAX_EDGES}")
    if edges != sorted(set(edges)):
        raise ValueError(f"{name!r}: the edges do not ascend")
    return [(edge, weight) for edge, weight in pairs]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_weight(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
