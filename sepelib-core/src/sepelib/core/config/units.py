"""Values with units, for ``get_value(key, type=...)``."""

import math

__all__ = ["duration", "size"]


def duration(value: object) -> float:
    """Seconds: of a text such as ``1m30s``, or of a number of seconds."""
    if isinstance(value, str):
        from sepelib.util.text import parse_duration

        return parse_duration(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError("write one such as 1m30s, 250ms or 1.5h; a bare number is seconds")
    return float(value)


def size(value: object) -> int:
    """Bytes: of a text such as ``16MiB``, or of a number of bytes."""
    if isinstance(value, str):
        from sepelib.util.text import parse_size

        return parse_size(value)
    if type(value) is not int or value < 0:
        raise ValueError("write one such as 4096, 10kB or 16MiB; a bare number is bytes")
    return value
