"""JSON read strictly: whatever RFC 8259 leaves to the reader is refused where it stands.

The standard library takes the last of two equal keys, NaN and Infinity, and makes an infinity of
1e400. Here these become marks in the value, so that who walks through it can tell the path.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["NotFinite", "Repeated", "loads"]


class Repeated(dict[str, Any]):
    """An object in which *key* stands more than once."""

    key: str


class NotFinite:
    """NaN, Infinity, or a number larger than any float."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def loads(data: bytes) -> Any:
    """The value of a JSON document in UTF-8; a byte order mark is skipped, as RFC 8259 allows.

    ValueError with words for the client, without an excerpt, when it is none.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"not UTF-8, see byte {e.start}") from None
    if not text.strip():
        raise ValueError("empty; a JSON document is expected")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_float,
            parse_constant=NotFinite,
        )
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"not JSON: {e.msg}, line {e.lineno} column {e.colno}") from None
    except ValueError:  # of int(), see sys.set_int_max_str_digits
        raise ValueError("not JSON that can be read: an integer has too many digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    repeated = Repeated(made)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _float(text: str) -> float | NotFinite:
    number = float(text)
    return number if math.isfinite(number) else NotFinite("a number too large")
