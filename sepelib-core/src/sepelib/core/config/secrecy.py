"""Which values must not be seen, and how they are kept out of what people see.

Secret are values with the tag ``!secret``, values below a key whose name looks like it, and what
`sepelib.util.url` masks in URLs. When in doubt, a dump and an error mask.

A log is different: there a secret is replaced wherever it turns up, and a word such as ``local``
would take half of the log with it. So of ``auth: {mode: local}``, where only the section has such
a name, nothing is replaced; below ``passwords:`` or ``secrets:`` everything is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sepelib.core.config.frozen import FrozenDict, FrozenList, offsets_of
from sepelib.util.secrets import MASK, Secret

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["MASK", "SECRET_WORDS", "Redactor", "looks_secret", "masked", "redact_record", "texts"]

SECRET_WORDS = "pass|secret|token|key|cookie|auth|dsn|uri"

# Of a section: everything below is one. ``key:`` or ``auth:`` may well hold plain settings.
_SECTION = re.compile("pass|secret|token|cookie", re.IGNORECASE)
# ``uri: http://localhost/`` is none by itself.
_CONNECTION = re.compile("^(?:(?!pass|secret|token|key|cookie|auth).)*$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"//[^/@\s:]*:([^@\s]+)@")

_SHORTEST = 4  # shorter ones are left: they would be found in half of all words
_ANYWHERE = 8  # so long that it is no part of a word by chance


@lru_cache(4096)
def looks_secret(key: str) -> bool:
    """Whether the name of a key alone says that its value should not be shown."""
    return re.search(SECRET_WORDS, key, re.IGNORECASE) is not None


def masked(value: Any, secret: bool, marked: Collection[int]) -> Any:
    """A plain copy of *value* to show: of what is secret only whether there is something.

    *marked*: the offsets of values with a tag. *secret*: all of it is.
    """
    if isinstance(value, FrozenDict):
        return {
            key: masked(item, secret or looks_secret(str(key)) or offset in marked, marked)
            for (key, item), offset in zip(value.items(), offsets_of(value), strict=True)
        }
    if isinstance(value, FrozenList):
        return [
            masked(item, secret or offset in marked, marked)
            for item, offset in zip(value, offsets_of(value), strict=True)
        ]
    if value is None:
        return None
    if secret or isinstance(value, Secret):
        return MASK
    if isinstance(value, str):
        from sepelib.util.url import redact_text

        return redact_text(value)
    return value


def texts(
    value: Any, marked: Collection[int], name: str = "", *, certain: bool = False
) -> Iterator[str]:
    """What is to be replaced in a log; *certain*: by a tag, and not by the *name* of a key."""
    if isinstance(value, FrozenDict):
        section = name if _SECTION.search(name) else ""
        for (key, item), offset in zip(value.items(), offsets_of(value), strict=True):
            own = str(key) if looks_secret(str(key)) else section
            yield from texts(item, marked, own, certain=certain or offset in marked)
    elif isinstance(value, FrozenList):
        for item, offset in zip(value, offsets_of(value), strict=True):
            yield from texts(item, marked, name, certain=certain or offset in marked)
    elif isinstance(value, Secret):
        yield from texts(value.reveal(), marked, certain=True)
    elif isinstance(value, bytes):
        yield from texts(value.decode("latin-1"), marked, name, certain=certain)
    elif isinstance(value, str):
        password = _URL_PASSWORD.search(value)
        if password:
            from urllib.parse import unquote

            yield from (password[1], unquote(password[1]))
        if certain or (name and not ("://" in value and _CONNECTION.match(name))):
            yield value.strip()
    elif certain and type(value) in (int, float):
        yield str(value)


class Redactor:
    """Replaces known *secrets* in a text by ``***``, and what is secret in its URLs.

    Also in the ways in which a secret gets into texts: with the escapes of `repr()`, of JSON and
    of URLs. One of fewer than 4 characters is left, one of fewer than 8 in the middle of a word.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        words = {word for secret in secrets for word in _spellings(secret)}
        # The longest first: of "abcd" and "abcdef" the latter must not leave its "ef".
        patterns = [_pattern(word) for word in sorted(words, key=len, reverse=True)]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        from sepelib.util.url import redact_text  # not at the top: only few show anything

        return redact_text(self._pattern.sub(MASK, text) if self._pattern else text)


def _spellings(secret: str) -> Iterator[str]:
    if len(secret) < _SHORTEST:
        return
    import json
    from urllib.parse import quote, quote_plus

    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    raw = secret.encode(errors="surrogatepass")
    yield from (quote(raw, safe=""), quote(raw), quote_plus(raw))


def _pattern(word: str) -> str:
    if len(word) >= _ANYWHERE:
        return re.escape(word)
    return rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"


def redact_record(record: logging.LogRecord, redact: Callable[[str], str]) -> None:
    """Change *record* so that no handler shows what *redact* takes out."""
    try:
        message = record.getMessage()
    except Exception:
        # logging would print both to stderr as they are.
        record.msg, record.args = redact(f"{record.msg} {record.args!r}"), None
    else:
        if (shown := redact(message)) != message:
            record.msg, record.args = shown, None
    if record.exc_info:
        from logging import Formatter

        trace = record.exc_text or Formatter().formatException(record.exc_info)
        if (shown := redact(trace)) != trace:
            # Without the exception: a formatter of its own would write it out again.
            record.exc_text, record.exc_info = shown, None
    for name, value in vars(record).items():
        if name not in ("msg", "name", "levelname") and type(value) is str:
            setattr(record, name, redact(value))  # exc_text, stack_info, and those of `extra=`
