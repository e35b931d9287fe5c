"""yasm, also called unistat: a JSON list of [signal, value] that a collector pulls.

    [["queue_size_ammx", 7], ["endpoint=_users;http_server_requests_dmmm", 1234],
     ["endpoint=_users;http_server_seconds_count_dmmm", 9],
     ["endpoint=_users;http_server_seconds_dhhh", [[0, 5], [0.001, 4]]]]

Labels are tags. The suffix says what the value is (a: absolute, d: growing) and how it is put
together inside a group, across groups and in time (h: histogram, m: sum, x: max, ...). `yasm=` of a
metric chooses another than these:

| kind | signals |
|---|---|
| counter, meter | `_dmmm`, rounded down: what grows is an integer there |
| gauge | `_ammx` |
| histogram | `_dhhh`: [left edge, count]; the last is open. And `_count_dmmm` |

The edges are the `buckets` of the metric and 0, unless there are lower ones, at most 50 in all: of
more, evenly chosen ones are left. Values below the first edge are in the count only. What grows
cannot be below 0, and is left out then, as is what is no finite number.

Names and tags have letters, digits and `.-/@_`; other characters become `_`. Labels without a value
are left out, and of more than 15 the first by name stay. Series that become one signal by that are
put together as the suffix says for a group; of histograms with different edges the first stays.
"""

from __future__ import annotations

import json
import math
import re

from sepelib.metrics.render._kept import kept_with

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from sepelib.metrics._series import Family
    from sepelib.metrics.registry import Registry

    Value = float | list[tuple[float, int]]
    Signal = tuple[str, str]  # tags, name with suffix

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "application/json"

_MAX_TAGS = 15
_MAX_EDGES = 50
_SUFFIXES = {"counter": "dmmm", "gauge": "ammx", "histogram": "dhhh", "meter": "dmmm"}
_ALIASES = {"hgram": "dhhh", "max": "axxx", "summ": "dmmm"}
_NUMBERS_TOGETHER: dict[str, Callable[[list[float]], float]] = {
    "e": sum,
    "m": sum,
    "n": min,
    "t": lambda values: values[-1],
    "v": lambda values: sum(values) / len(values),
    "x": max,
}
_FOREIGN = re.compile(r"[^a-zA-Z0-9.\-/@_]")


def render(registry: Registry) -> bytes:
    const = registry.const_labels
    signals: dict[Signal, list[Value]] = {}
    for family in registry.families():
        values = _histograms if family.kind == "histogram" else _numbers
        for signal, value in values(family, const):
            signals.setdefault(signal, []).append(value)
    pairs = [
        (tags + name, values[0] if len(values) == 1 else _together(name, values))
        for (tags, name), values in sorted(signals.items())
    ]
    return json.dumps(pairs, allow_nan=False, separators=(",", ":")).encode()


def _numbers(family: Family, const: Mapping[str, str]) -> Iterator[tuple[Signal, Value]]:
    suffix = _suffix(family)
    growing = _meaning(suffix)[0] == "d"
    series: Any
    for series in family.series():
        value = series.read().count if family.kind == "meter" else series.read()
        if value is None or not math.isfinite(value) or (growing and value < 0):
            continue
        kept = series.render_cache or kept_with(series)
        if kept.yasm is None:
            kept.yasm = _tags(family, series, const), f"{_mapped(family.name)}_{suffix}"
        yield kept.yasm, int(value) if growing else value


def _histograms(family: Any, const: Mapping[str, str]) -> Iterator[tuple[Signal, Value]]:
    name, suffix = _mapped(family.name), _suffix(family)
    edges = _edges(family.buckets)
    for series in family.series():
        tags = _tags(family, series, const)
        weights = series.left_closed(edges)
        yield (tags, f"{name}_{suffix}"), list(zip(edges, weights, strict=True))
        yield (tags, f"{name}_count_dmmm"), series.scrape(family.buckets)[1]


def _suffix(family: Family) -> str:
    return family.yasm or _SUFFIXES[family.kind]


def _meaning(suffix: str) -> str:
    return _ALIASES.get(suffix, suffix)


def _together(name: str, values: list[Any]) -> Value:
    """One value of several, by the letter of the suffix for the inside of a group."""
    how = _meaning(name.rpartition("_")[2])[1]
    if how == "h":
        edges = [edge for edge, _ in values[0]]
        alike = [v for v in values if [edge for edge, _ in v] == edges]
        weights = [sum(weight for _, weight in column) for column in zip(*alike, strict=True)]
        return list(zip(edges, weights, strict=True))
    return _NUMBERS_TOGETHER[how](values)


def _tags(family: Family, series: Any, const: Mapping[str, str]) -> str:
    pairs = [*const.items(), *zip(family.label_names, series.label_values, strict=True)]
    tags = sorted((name, _mapped(value)) for name, value in pairs if value)
    return "".join(f"{name}={value};" for name, value in tags[:_MAX_TAGS])


def _mapped(text: str) -> str:
    return _FOREIGN.sub("_", text)


def _edges(buckets: Sequence[float]) -> list[float]:
    edges = [float(edge) for edge in ([0, *buckets] if buckets[0] > 0 else buckets)]
    if len(edges) > _MAX_EDGES:
        step = (len(edges) - 1) / (_MAX_EDGES - 1)
        edges = [edges[round(step * number)] for number in range(_MAX_EDGES)]
    return [int(edge) if edge.is_integer() else edge for edge in edges]
