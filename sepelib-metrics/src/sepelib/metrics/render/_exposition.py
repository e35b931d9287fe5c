"""The text formats of Prometheus and OpenMetrics, which share all but a few words.

The text in front of a value never changes while its series lives, so it is made once and kept with
the series: a scrape of ten thousand counters then takes two milliseconds instead of fifty, in which
the requests beside it would wait.
"""

from __future__ import annotations

import math

from sepelib.metrics.render._kept import kept_with

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sepelib.metrics._series import Family
    from sepelib.metrics.registry import Registry

__all__ = ["exposition"]


def exposition(registry: Registry, *, openmetrics: bool) -> bytes:
    """The whole document; *openmetrics* says in which of the two formats."""
    document = _Document(registry, openmetrics)
    for family in registry.families():
        document.add(family)
    return document.encoded()


class _Document:
    def __init__(self, registry: Registry, openmetrics: bool) -> None:
        self._registry = registry
        self._const = [_label(name, value) for name, value in registry.const_labels.items()]
        self._openmetrics = openmetrics
        self._parts: list[str] = []

    def encoded(self) -> bytes:
        if self._openmetrics:
            self._parts.append("# EOF\n")
        return "".join(self._parts).encode()

    def add(self, family: Family) -> None:
        if family.kind == "histogram":
            self._add_histograms(family)
        elif family.kind == "meter":
            self._add_meters(family)
        else:
            self._add_values(family)

    def _add_values(self, family: Family) -> None:
        is_counter = family.kind == "counter"
        name = f"{family.name}_total" if is_counter else family.name
        lines = []
        series: Any
        for series in family.series():
            # Not read() of a counter: that call would be a fifth of the whole.
            value = series._value if is_counter else series.read()
            kept = series.render_cache or kept_with(series)
            start = kept.text
            if start is None:
                start = kept.text = _start(name, self._labels(family, series))
            if type(value) is int:
                lines.append(f"{start}{value}\n")
            elif value is not None:
                lines.append(f"{start}{_number(value)}\n")
        self._add_family(family, "", family.kind, lines)

    def _add_meters(self, family: Family) -> None:
        counts, rates = [], []
        window_label = "window"
        while window_label in (*self._registry.const_labels, *family.label_names):
            window_label += "_"
        series: Any
        for series in family.series():
            reading = series.read()
            labels = self._labels(family, series)
            counts.append(_start(f"{family.name}_total", labels) + _number(reading.count) + "\n")
            for window, rate in reading.rates.items():
                start = _start(f"{family.name}_rate", [*labels, _label(window_label, window)])
                rates.append(f"{start}{_number(rate)}\n")
        self._add_family(family, "", "counter", counts)
        self._add_family(family, "_rate", "gauge", rates)

    def _add_histograms(self, family: Any) -> None:
        lines = []
        for series in family.series():
            kept = kept_with(series)
            if kept.text is None:
                kept.text = self._formats(family, series)
            buckets, sum_and_count = kept.text
            counts, count, total = series.scrape(family.buckets)
            lines.append(buckets % (*counts, count))
            # To OpenMetrics a sum is a counter: of values that may be negative there is none, and
            # no count without a sum.
            if not self._openmetrics or (total >= 0 and family.buckets[0] >= 0):
                lines.append(sum_and_count % (_number(total), count))
        self._add_family(family, "", "histogram", lines)

    def _formats(self, family: Any, series: Any) -> tuple[str, str]:
        labels = [label.replace("%", "%%") for label in self._labels(family, series)]
        edges = [_label("le", repr(float(edge))) for edge in family.buckets]
        edges.append(_label("le", "+Inf"))
        buckets = [f"{_start(f'{family.name}_bucket', [*labels, edge])}%d\n" for edge in edges]
        total, count = (_start(f"{family.name}_{end}", labels) for end in ("sum", "count"))
        return "".join(buckets), f"{total}%s\n{count}%d\n"

    def _labels(self, family: Family, series: Any) -> list[str]:
        pairs = zip(family.label_names, series.label_values, strict=True)
        return [*self._const, *(_label(name, value) for name, value in pairs)]

    def _add_family(self, family: Family, suffix: str, kind: str, lines: list[str]) -> None:
        if not lines:
            return
        name = family.name + suffix
        help = _escaped(family.help)
        if self._openmetrics:
            help = help.replace('"', r"\"")
        elif kind == "counter":
            name += "_total"
        if help:
            self._parts.append(f"# HELP {name} {help}\n")
        self._parts.append(f"# TYPE {name} {kind}\n")
        if self._openmetrics and family.unit and name.endswith(f"_{family.unit}"):
            self._parts.append(f"# UNIT {name} {family.unit}\n")
        self._parts += lines


def _start(name: str, labels: Sequence[str]) -> str:
    """A sample without its value."""
    return f"{name}{{{','.join(labels)}}} " if labels else f"{name} "


def _label(name: str, value: str) -> str:
    value = _escaped(value).replace('"', r"\"")
    return f'{name}="{value}"'


def _escaped(text: str) -> str:
    if not text.isascii():  # UTF-8 has no place for lone surrogates
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 2**53:
        return str(int(value))
    return repr(value)
