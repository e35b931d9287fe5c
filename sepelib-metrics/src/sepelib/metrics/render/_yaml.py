"""YAML for people: what is asked with curl in the middle of the night.

    # service=web
    http_server_requests:  # counter: Answers.
      method=GET status=200: 10233
      method=POST status=500: 2
    http_server_seconds:  # histogram: Until the last byte.
      since start: {count: 10235, sum: 127.4 s, mean: 12.45 ms}
      last 60 s: {count: 412, mean: 9.31 ms, min: 1.2 ms, p50: 9.1 ms, p99: 45.3 ms, max: 61 ms}

Durations, sizes and rates are rounded to four digits and followed by their unit, so they are
strings; programs read JSON. A key names a series by its labels; a value with other characters than
letters, digits and `_.:/@+-` is quoted as in JSON. What is no finite number is .nan or .inf.
"""

from __future__ import annotations

import json
import math
import re

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sepelib.metrics._readings import HistogramReading, MeterReading
    from sepelib.metrics._series import Family
    from sepelib.metrics.registry import Registry

    Node = str | dict[str, "Node"]  # the text of a scalar, or a block of them

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "application/yaml; charset=utf-8"

_LONGEST_KEY = 1000  # YAML: a key of more than 1024 characters has to be announced by "? "
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w:]*(?<!:)", re.ASCII)
_PLAIN_LABEL = re.compile(r"[\w.:/@+-]+(?<!:)", re.ASCII)
_PLAIN_VALUE = re.compile(r"[\w.+-][\w ./+-]*(?<! )", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}  # not strings to YAML
_SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def render(registry: Registry) -> bytes:
    lines: list[str] = []
    for family in registry.families():
        if rows := dict(_rows(family)):
            about = _one_line(f"{family.kind}: {family.help}").removesuffix(":")
            node = rows if family.label_names else rows[""]
            lines += _block(_name(family.name), node, f"  # {about}")
    const = [f"# {_labels(registry.const_labels.items())[0]}"] if registry.const_labels else []
    return "\n".join([*const, *(lines or ["{}"]), ""]).encode()


def _rows(family: Family) -> Iterable[tuple[str, Node]]:
    series: Any
    for series in family.series():
        key = _key(zip(family.label_names, series.label_values, strict=True))
        reading = series.read()
        if family.kind == "histogram":
            yield key, _histogram(reading, family.unit)
        elif family.kind == "meter":
            yield key, _meter(reading)
        elif reading is not None:
            yield key, _number(reading)


def _histogram(reading: HistogramReading, unit: str | None) -> Node:
    def size(value: float | None) -> str:
        return "" if value is None else _size(value, unit)

    window = reading.window
    start, last = {"count": str(reading.count)}, {"count": str(window.count)}
    if reading.count:
        start |= {"sum": size(reading.sum), "mean": size(reading.sum / reading.count)}
    if window.count:
        last |= {"mean": size(window.mean), "min": size(window.min)}
        last |= {f"p{100 * q:.6g}": size(value) for q, value in window.quantiles.items()}
        last |= {"max": size(window.max), "stddev": size(window.stddev)}
    return {"since start": _flow(start), f"last {window.seconds:g} s": _flow(last)}


def _meter(reading: MeterReading) -> str:
    rates = {window: f"{_rounded(rate)}/s" for window, rate in reading.rates.items()}
    return _flow({"count": _number(reading.count)} | rates)


def _size(value: float, unit: str | None) -> str:
    """A value of a histogram, for people."""
    if unit not in _SCALES:
        return f"{_rounded(value)} {unit}" if unit else _rounded(value)
    scales = _SCALES[unit]
    fitting = (scale for scale in scales if abs(value) >= scale[0])
    scale, name = next(fitting, scales[-1] if value else scales[0])
    return f"{_rounded(value / scale)} {name}"


def _rounded(value: float) -> str:
    return _number(round(value) if 1000 <= abs(value) < 2**53 else float(f"{value:.4g}"))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
    if value == int(value) and abs(value) < 2**53:
        return str(int(value))
    text = repr(value)
    # To YAML 1.1 a number has a point.
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _name(name: str) -> str:
    plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else _quoted(name)


def _key(labels: Iterable[tuple[str, str]]) -> str:
    text, plain = _labels(labels)
    return text if plain else _quoted(text)


def _labels(labels: Iterable[tuple[str, str]]) -> tuple[str, bool]:
    """`method=GET path="/a b"`, and whether nothing had to be quoted."""
    plain, words = True, []
    for name, value in labels:
        if not _PLAIN_LABEL.fullmatch(value):
            plain, value = False, json.dumps(value, ensure_ascii=not value.isprintable())
        words.append(f"{name}={value}")
    return " ".join(words), plain


def _block(key: str, node: Node, comment: str = "") -> list[str]:
    long = len(key) > _LONGEST_KEY
    if isinstance(node, str):
        return [f"? {key}{comment}", f": {node}"] if long else [f"{key}: {node}{comment}"]
    inner = [f"  {line}" for name, value in node.items() for line in _block(name, value)]
    return [f"? {key}{comment}", ":", *inner] if long else [f"{key}:{comment}", *inner]


def _flow(fields: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {_value(text)}" for key, text in fields.items()) + "}"


def _value(text: str) -> str:
    return text if _PLAIN_VALUE.fullmatch(text) else _quoted(_one_line(text))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
