"""Durations, sizes and strangers' values as text that people read and write.

    parse_duration("1m30s")     # 90.0          human_duration(90.0)    # '1m30s'
    parse_size("16MiB")         # 16777216      human_size(16 << 20)    # '16MiB'

Units: seconds (float) and bytes (int). What `human_*` shows, `parse_*` reads.
Errors: `parse_*` raise ValueError with the text and what is accepted; the others never fail.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress

__all__ = [
    "human_duration",
    "human_size",
    "parse_duration",
    "parse_size",
    "to_text",
    "truncate",
]

# In nanoseconds: with integers "1.1ms" is the float nearest to 0.0011, which 1.1 * 0.001 is not.
_SECOND = 1_000_000_000
_DURATIONS = {
    "w": 604_800 * _SECOND,
    "d": 86_400 * _SECOND,
    "h": 3_600 * _SECOND,
    "m": 60 * _SECOND,
    "s": _SECOND,
    "ms": 1_000_000,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign of keyboards,
    "\u03bcs": 1_000,  # and the Greek letter that Unicode prefers
    "ns": 1,
}
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_SIZES: dict[str, int] = {unit: 1000**power for power, unit in enumerate(_DECIMAL)}
_SIZES |= {unit: 1024**power for power, unit in enumerate(_BINARY)}

# Not \d, which takes the digits of every script. Fewer of them than int() refuses.
_PART = re.compile(r"\s*([0-9]{1,400})(?:\.([0-9]{1,400}))?\s*([A-Za-z\u00b5\u03bc]*)")

_ZERO_WIDTH_JOINER = "\u200d"
_CLUSTER = 32  # characters; longer ones are made to harm, and may be split


def parse_duration(text: str) -> float:
    """Seconds in *text*: `1m30s`, `250ms`, `1.5h`, `1d 12h`, `2w`; a bare `30` is 30 seconds.

    Units are w, d, h, m (minutes), s, ms, us or µs, ns: each at most once, the larger before the
    smaller; every number may have a fraction. The result is the nearest float. Refused are signs,
    NaN, infinity and what no float holds.
    """
    parts = _parts(text)
    if len(parts) == 1 and not parts[0][2]:
        parts = [(*parts[0][:2], "s")]
    sizes = [_DURATIONS.get(unit, 0) for _, _, unit in parts]
    if parts and 0 not in sizes and sizes == sorted(set(sizes), reverse=True):
        scale = max(scale for _, scale, _ in parts)
        nanos = sum(
            digits * (scale // own_scale) * size
            for (digits, own_scale, _), size in zip(parts, sizes, strict=True)
        )
        with suppress(OverflowError):
            return nanos / (scale * _SECOND)  # of integers: rounded once
    raise ValueError(
        f"not a duration: {truncate(repr(text), 60)}; write one such as 1m30s, 250ms or 1.5h, "
        "of w, d, h, m, s, ms, us, ns in this order; a bare number is seconds"
    )


def human_duration(seconds: float) -> str:
    """*seconds* for people: `250ms`, `1.53s`, `1m30s`, `2h5m`, `3d4h`, `0s`.

    Below a minute three digits that count, no finer than a nanosecond; above it the two largest of
    d, h, m, s, so what is lost is at most half of the smaller one. `parse_duration()` reads it
    back, except for `-1m30s`, `inf` and `nan`: this one is for logs and shows whatever comes.
    """
    seconds = _as_float(seconds)
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    rounded = float(f"{seconds:.3g}")
    if rounded < 60:
        for unit, per_second in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
            if rounded * per_second >= 1:
                return f"{rounded * per_second:.3g}{unit}"
        nanos = round(seconds * _SECOND)
        return f"{nanos}ns" if nanos else "0s"
    if round(seconds) < 3600:
        units, step, per_large = "ms", 1, 60
    elif round(seconds / 60) < 24 * 60:
        units, step, per_large = "hm", 60, 60
    else:
        units, step, per_large = "dh", 3600, 24
    large, small = divmod(round(seconds / step), per_large)
    return f"{large}{units[0]}" + (f"{small}{units[1]}" if small else "")


def parse_size(text: str) -> int:
    """Bytes in *text*: `4096`, `10kB` (10000), `16MiB` (16777216), `1.5 GiB`.

    Units are B, kB, MB, GB, TB, PB, powers of 1000, and KiB, MiB, GiB, TiB, PiB, powers of 1024; a
    bare number is bytes. K, M, G alone are refused, as half of the world means the other thing, and
    so are other cases: `Mb` is a megabit. A fraction is rounded to whole bytes; bytes have none.
    """
    parts = _parts(text)
    if len(parts) == 1:
        digits, scale, unit = parts[0]
        size = _SIZES.get(unit or "B", 0)
        if size > 1 or (size and scale == 1):
            return (2 * digits * size + scale) // (2 * scale)  # to the nearest, halves up
    raise ValueError(
        f"not a size: {truncate(repr(text), 60)}; write one such as 4096, 10kB or 16MiB, with one "
        "of B, kB, MB, GB, TB, PB (of 1000), KiB, MiB, GiB, TiB, PiB (of 1024)"
    )


def human_size(size: float) -> str:
    """*size* in bytes for people: `512B`, `1.5KiB`, `16MiB`.

    Three digits that count, or the whole ones of 1000 to 1023; in powers of 1024. `parse_size()`
    reads it back, except for `-16MiB`, `inf` and `nan`: this one is for logs and shows whatever
    comes.
    """
    size = _as_float(size)
    if not math.isfinite(size):
        return str(size)
    if size < 0:
        return f"-{human_size(-size)}"
    for unit in _BINARY:
        shown = _three_digits(size / _SIZES[unit]) if unit != "B" else str(round(size))
        if float(shown) < 1024:
            break
    return f"{shown}{unit}"


def truncate(text: str, length: int) -> str:
    """*text*, or as much of it as leaves room within *length* for `...(87 more)`.

    Counted are characters; the number is of those left out. A letter is not parted from its
    accents, a joined emoji not from its parts, a surrogate not from its pair. When not even the
    note fits, the first *length* characters are given without it. ValueError for a negative length.
    """
    if length < 0:
        raise ValueError(f"a length is not negative, not {length!r}")
    if len(text) <= length:
        return text
    # The note is of at most this length: fewer are left out than there are.
    room = length - len(_more(len(text)))
    if room <= 0:
        return text[: _boundary(text, length)]
    end = _boundary(text, room)
    return text[:end] + _more(len(text) - end)


def to_text(value: object) -> str:
    """*value* as a str, whatever it is: bytes as UTF-8, all else by `str()`.

    Bytes that are no UTF-8 show as `\\xff`. An object whose `__str__` fails shows as its type and
    that failure. Only a BaseException that is no Exception passes, such as `gevent.Timeout`.
    """
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value).decode("utf-8", "backslashreplace")
        # The exact type: a subclass of str may do anything when it is used.
        return str.__str__(str(value))
    except Exception as e:
        return f"<{type(value).__name__} whose text fails with {type(e).__name__}>"


def _parts(text: str) -> list[tuple[int, int, str]]:
    """Numbers with their units, as (digits, scale, unit): digits / scale; [] if it is not that."""
    parts = []
    text = text.strip()
    done = 0
    while done < len(text):
        part = _PART.match(text, done)
        if part is None:
            return []
        fraction = part[2] or ""
        parts.append((int(part[1] + fraction), 10 ** len(fraction), part[3]))
        done = part.end()
    return parts


def _three_digits(value: float) -> str:
    for decimals in (2, 1):
        shown = f"{value:.{decimals}f}"
        if len(shown) <= 4:
            return shown.rstrip("0").rstrip(".")
    return f"{value:.0f}"


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # an int, which has no end
        return math.inf if number > 0 else -math.inf


def _more(count: int) -> str:
    return f"...({count} more)"


def _boundary(text: str, end: int) -> int:
    """The last place up to *end* where one visible character ends and the next begins."""
    for place in range(end, max(end - _CLUSTER, 0), -1):
        if not _belongs_together(text[place - 1], text[place]):
            return place
    return end if end > _CLUSTER else 0


def _belongs_together(before: str, after: str) -> bool:
    if after < "\u0300":  # Latin, where the first accents begin
        return before == _ZERO_WIDTH_JOINER
    if _ZERO_WIDTH_JOINER in (before, after) or "\U0001f3fb" <= after <= "\U0001f3ff":  # skin tones
        return True
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return True
    import unicodedata  # a megabyte, for text that is too long and has such characters

    return unicodedata.category(after).startswith("M")
