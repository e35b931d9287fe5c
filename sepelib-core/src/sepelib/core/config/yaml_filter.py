"""The filters ``|yaml``: any value, written so that YAML reads the same value; and ``|b64``."""

import json
import math
import re
from binascii import b2a_base64
from collections.abc import Mapping
from datetime import date

from jinja2 import Undefined

from sepelib.util.secrets import Secret

__all__ = ["to_base64", "to_yaml"]

# Fine in a JSON string, but line ends or refused in YAML.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(value: object) -> str:
    """Write *value* as YAML on one line.

    The result loads as an equal value wherever a value may stand, inside of flow collections
    too: JSON, with all that YAML reads in another way escaped or spelt out. Takes what a
    configuration can hold, and any other mapping, list or tuple. A `Secret` of text is written out
    with the tag ``!secret``.
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return _UNSAFE.sub(_escape, json.dumps(value, ensure_ascii=False))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float_to_yaml(value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, Secret):
        revealed = value.reveal()
        if isinstance(revealed, str):
            return f"!secret {to_yaml(revealed)}"
    if isinstance(value, bytes):
        return f'!!binary "{b2a_base64(value, newline=False).decode()}"'
    if isinstance(value, Mapping):
        items = (f"{to_yaml(key)}: {to_yaml(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_yaml, value))}]"
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined tells its name
    raise TypeError(f"|yaml cannot write type {type(value).__name__}; turn it into text first")


def to_base64(value: str | bytes) -> str:
    """*value*, text as UTF-8, in base64 on one line."""
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, str | bytes):
        raise TypeError(f"|b64 takes text or bytes, not type {type(value).__name__}")
    raw = value.encode() if isinstance(value, str) else value
    return b2a_base64(raw, newline=False).decode()


def _escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _float_to_yaml(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    mantissa, exponent, power = float.__repr__(value).partition("e")
    if exponent and "." not in mantissa:
        mantissa += ".0"  # without a point YAML 1.1 takes 1e+16 for text
    return mantissa + exponent + power
