"""Which names metrics and labels may have, and where in the program a metric was made.

The rules are Prometheus's, the strictest of the outputs: what is refused here at start-up would
otherwise be a scrape that fails.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Place",
    "check_name",
    "check_yasm",
    "checked_const_labels",
    "checked_labels",
    "clash",
    "described",
    "place",
]

_RESERVED_LABELS = {"le": "histograms", "quantile": "summaries"}

# What outputs append to the name of each kind, so that no other metric may be called so.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "meter": ("_total", "_created", "_rate"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
}

_ALL_SUFFIXES = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}

# Frames of these say nothing: the place of interest is where they were called.
_OURS = ("sepelib.metrics", "sepelib.util.instrument")


class Place:
    """A line of source."""

    __slots__ = ("filename", "line")

    def __init__(self, filename: str, line: int) -> None:
        self.filename = filename
        self.line = line

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}"


def place() -> Place:
    """The line that called into this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def _is_ours(module: str) -> bool:
    return any(module == ours or module.startswith(f"{ours}.") for ours in _OURS)


def clash(kind: str, name: str, kind_of: Callable[[str], str | None]) -> tuple[str, str] | None:
    """The metric that a new one would share a name with in an output, and that name.

    No suffix ends in another, so the name that they share is the own one of one of the two.
    """
    for suffix in _SUFFIXES[kind]:
        if kind_of(name + suffix):
            return name + suffix, name + suffix
    for suffix in _ALL_SUFFIXES:
        other = name.removesuffix(suffix)
        if other != name and suffix in _SUFFIXES.get(kind_of(other) or "", ()):
            return other, name
    return None


def described(kind: str, labels: tuple[str, ...], unit: str | None) -> str:
    with_labels = f"with the labels ({', '.join(labels)})" if labels else "without labels"
    return f"a {kind} {with_labels}" + (f" in {unit}" if unit else "")


def check_name(kind: str, name: str) -> None:
    # ASCII letters, digits and '_' as in an identifier, and ':'.
    if not (name.isascii() and name.replace(":", "_").isidentifier()):
        raise ValueError(f"{name!r} is no name of a metric: [a-zA-Z_:][a-zA-Z0-9_:]* is")
    if name.endswith("_total") and kind in ("counter", "meter"):
        raise ValueError(
            f"{name!r}: the name of a {kind} goes without '_total', outputs that want it append it"
        )


def check_yasm(kind: str, name: str, suffix: str) -> None:
    """ValueError unless *suffix* is one of yasm's that fits the kind."""
    letters = {"summ": "dmmm", "hgram": "dhhh", "max": "axxx"}.get(suffix, suffix)
    if len(letters) != 4 or letters[0] not in "ad" or not set(letters[1:]) <= set("vehmntx"):
        raise ValueError(
            f"{name!r}: {suffix!r} is no suffix of yasm: 'a' or 'd' and three letters, such as dmmm"
        )
    if (letters[1] == "h") != (kind == "histogram"):
        raise ValueError(f"{name!r}: the suffix {suffix!r} of yasm does not fit a {kind}")


def checked_labels(metric: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"the labels of {metric!r} are a sequence of names, not a str")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{metric!r}: the name of a label is a str, not {name!r}")
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(
                f"{metric!r}: {name!r} is no name of a label: [a-zA-Z_][a-zA-Z0-9_]* is"
            )
        if name.startswith("__"):
            raise ValueError(f"{metric!r}: the label {name!r}: names in '__' are Prometheus's own")
        if name in _RESERVED_LABELS:
            raise ValueError(
                f"{metric!r}: the label {name!r} is kept for {_RESERVED_LABELS[name]} in the output"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"{metric!r}: a label is named twice in ({', '.join(names)})")
    return names


def checked_const_labels(labels: Mapping[str, str]) -> dict[str, str]:
    checked_labels("a registry", labels)
    for name, value in labels.items():
        if not isinstance(value, str):
            raise TypeError(f"the label {name!r} of a registry: values are str, not {value!r}")
    return dict(labels)
