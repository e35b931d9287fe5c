"""What services and URLs say, made fit to be seen: one short line without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from sepelib.util.secrets import MASK
from sepelib.util.text import truncate
from sepelib.util.url import redact_text, redact_url

__all__ = ["secrets_in", "secrets_of_headers", "shown_text", "shown_url"]

_URL_LENGTH = 300
_TEXT_LENGTH = 200
_SHORTEST = 6  # characters of a secret; masking a shorter one wherever it stands spoils the text

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "cookie",
        "set-cookie",
        "x-scroll-token",
        "x-ya-service-ticket",
        "x-ya-user-ticket",
    }
)
"""In lower case."""

SECRET_NAMES = re.compile(
    r"pass|pwd|secret|token|cookie|auth|cred|^sess|session|signature|jwt|ticket$|userip|user_ip"
    r"|^(?:device_|user_)?code$|code_verifier",
    re.IGNORECASE,
)
"""Found in the name of a parameter, of a form's field or of a JSON key whose value is secret."""

_CREDENTIAL = re.compile(r"\b(OAuth|Bearer|Basic) [^\s\"',;]+")
_TICKET = re.compile(r"\b\d:(?:serv|user):[^\s\"',;&]+")
_JSON_FIELD = re.compile(r'"([^"\\]{1,64})"(\s*:\s*)"((?:[^"\\]|\\.)*)(?:"|$)')
_CODE = re.compile(r"^code$", re.IGNORECASE)  # of an error; a grant's is in a form
_IP = re.compile(r"([?&](?:user_?ip|UserIP)=)[^&\s\"<>]*", re.IGNORECASE)


def shown_url(url: str) -> str:
    """*url* without userinfo and fragment, its secret parameters as `***`."""
    url = redact_url(url).partition("#")[0]
    return truncate(_one_line(_IP.sub(rf"\g<1>{MASK}", url)), _URL_LENGTH)


def shown_text(text: str, secrets: Iterable[str] = ()) -> str:
    """*text* of a stranger; *secrets* are masked wherever they stand."""
    written = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms_of(secret)}
    for form in sorted(written, key=len, reverse=True):
        text = text.replace(form, MASK)
    # Cut afterwards, or half a secret at the edge would not be found.
    text = _one_line(text[: 32 * _TEXT_LENGTH])
    text = _CREDENTIAL.sub(rf"\1 {MASK}", text)
    text = _TICKET.sub(MASK, text)
    text = _JSON_FIELD.sub(_masked_field, text)
    return truncate(_IP.sub(rf"\g<1>{MASK}", redact_text(text)), _TEXT_LENGTH)


def secrets_of_headers(headers: Mapping[str, str | None]) -> Iterator[str]:
    """What of the *headers* that were sent must not be shown, whole and in its parts."""
    for name, value in headers.items():
        if not value or name.lower() not in SECRET_HEADERS:
            continue
        scheme, _, credential = value.partition(" ")
        yield from (value, credential)
        if scheme == "Basic":
            yield from _of_basic(credential)
        if name.lower() == "cookie":
            yield from (cookie.partition("=")[2].strip() for cookie in value.split(";"))


def _of_basic(credential: str) -> Iterator[str]:
    from base64 import b64decode

    with suppress(ValueError):  # not of our BasicAuth
        yield b64decode(credential).decode().partition(":")[2]


def secrets_in(sent: Any, *, secret: bool = False) -> Iterator[str]:
    """The values with the names of secrets in parameters, a form or JSON, however deep."""
    if isinstance(sent, Mapping):
        for name, value in sent.items():
            yield from secrets_in(value, secret=secret or bool(SECRET_NAMES.search(str(name))))
    elif isinstance(sent, tuple) and len(sent) == 2 and isinstance(sent[0], str):
        yield from secrets_in({sent[0]: sent[1]}, secret=secret)
    elif isinstance(sent, list | tuple):
        for item in sent:
            yield from secrets_in(item, secret=secret)
    elif secret and isinstance(sent, bytes):
        yield sent.decode("utf-8", "replace")
    elif secret and sent is not None:
        yield str(sent)


def _forms_of(secret: str) -> set[str]:
    """The ways in which a service may write what it was given."""
    from html import escape
    from json import dumps
    from urllib.parse import quote, quote_plus

    raw = secret.encode("utf-8", "surrogatepass")
    quoted = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    in_json = {dumps(secret)[1:-1], dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, escape(secret), *quoted, *in_json}


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _masked_field(match: re.Match[str]) -> str:
    if SECRET_NAMES.search(match[1]) and not _CODE.match(match[1]):
        return f'"{match[1]}"{match[2]}"{MASK}"'
    return match[0]
