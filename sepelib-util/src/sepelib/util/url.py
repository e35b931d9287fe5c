"""URLs made from a template that quotes each value, and URLs made fit to be seen.

    expand("/users/{id}/files/{name}", id=7, name="../admin")   # /users/7/files/..%2Fadmin
    expand("/repos/{path:path}?at={ref}", path="a/b c", ref="x&y")  # /repos/a/b%20c?at=x%26y

    redact_url("https://bob:pw@host/x?token=t&n=1")     # https://bob:***@host/x?token=***&n=1
    redact_text("GET http://host/?sig=abc failed")      # GET http://host/?sig=*** failed

Source: RFC 3986; the WHATWG URL standard for what clients do to dot segments. `{name:path}` is
RFC 6570's `{+name}` cut down to what is safe in a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, unquote_plus

from sepelib.util.secrets import MASK

__all__ = ["SECRET_NAME", "UrlTemplate", "expand", "redact_text", "redact_url"]

Value = str | bytes | int
_Quoter = Callable[[str, Value], str]

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:path)?")
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BYTES = re.compile(rb"[\x00-\x1f\x7f]")
# Nothing to quote anywhere and, as the first character is no dot, no dot segment.
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*").fullmatch


class UrlTemplate:
    """A URL, or its path, with a `{name}` wherever a value goes.

    `{name}` in the path is one segment or a part of one: `/` and all other reserved characters are
    quoted. `{name:path}` is a whole segment that may become several: `/` stays. Either refuses an
    empty value and the segments `.` and `..`, which clients resolve, percent-encoded or not, to
    another resource. After the first `?` or `#` a value may be empty and dots mean nothing. In
    `scheme://{host}/` a value is letters, digits, `.`, `-`, `_`.

    Values are str (as UTF-8), bytes (as they are) or int; control characters are refused. The rest
    of the template is taken as it is written. `template` has few different values in one program
    and carries none of the secrets: use it as the label of a metric.

    Raises ValueError for a template or a value that does not fit, TypeError for a missing name,
    one too many or a value of another type. Values are not shown, they may be secret. Never
    changes, may be shared.
    """

    __slots__ = ("_fields", "_pattern", "names", "template")

    def __init__(self, template: str) -> None:
        if _CONTROL.search(template) or " " in template:
            raise self._unfit(template, "has spaces or control characters")
        stray = re.search(r"[{}]", _FIELD.sub("", template))
        if stray:
            raise self._unfit(template, f"has a {stray[0]} without its partner")
        authority = _AUTHORITY.match(template)
        path_end = len(re.split(r"[?#]", template, maxsplit=1)[0])
        path = range(authority.end() if authority else 0, path_end)
        fields: list[tuple[str, _Quoter]] = []
        pattern, done = "", 0
        for field in _FIELD.finditer(template):
            name = _NAME.fullmatch(field[1])
            if name is None:
                raise self._unfit(template, f"{field[0]} is neither {{name}} nor {{name:path}}")
            beside = template[field.start() - 1 : field.start()] + template[field.end() :][:1]
            quoter = _host if field.start() < path.start else _parameter
            if field.start() in path:
                quoter = _path if name[2] else _segment
            if name[2] and (quoter is not _path or beside.strip("/?#")):
                raise self._unfit(template, f"{field[0]} is not a whole segment of the path")
            fields.append((name[1], quoter))
            pattern += template[done : field.start()].replace("%", "%%") + "%s"
            done = field.end()
        self.template = template
        self.names = frozenset(name for name, _ in fields)
        self._fields = tuple(fields)
        self._pattern = pattern + template[done:].replace("%", "%%")

    def expand(self, /, **values: Value) -> str:
        """The URL with the *values* quoted in their places."""
        if values.keys() != self.names:
            raise TypeError(self._mismatch(values))
        try:
            return self._pattern % tuple(
                [
                    value
                    if type(value := values[name]) is str and _PLAIN(value)
                    else quoted(name, value)
                    for name, quoted in self._fields
                ]
            )
        except (TypeError, ValueError) as e:
            raise type(e)(f"URL template {self.template!r}: {e}") from None

    def _mismatch(self, values: dict[str, Value]) -> str:
        missing = ", ".join(sorted(self.names - values.keys()))
        unknown = ", ".join(sorted(values.keys() - self.names))
        return f"URL template {self.template!r}: " + "; ".join(
            [f"no value for {missing}"] * bool(missing) + [f"has no {unknown}"] * bool(unknown)
        )

    @staticmethod
    def _unfit(template: str, reason: str) -> ValueError:
        return ValueError(f"URL template {template!r}: {reason}")

    def __repr__(self) -> str:
        return f"UrlTemplate({self.template!r})"


_compiled = lru_cache(maxsize=1024)(UrlTemplate)


def expand(template: str, /, **values: Value) -> str:
    """`UrlTemplate(template).expand(**values)`; the last 1024 templates are kept compiled."""
    return _compiled(template).expand(**values)


_REFUSED = (b"", b".", b"..")


def _segment(name: str, value: Value) -> str:
    value = _checked(name, value)
    if value in _REFUSED:
        raise ValueError(f"{name} is empty, '.' or '..', which is no segment of a path")
    return quote(value, safe="")


def _path(name: str, value: Value) -> str:
    value = _checked(name, value)
    if any(segment in _REFUSED for segment in value.split(b"/")):
        raise ValueError(f"{name} has an empty segment, '.' or '..', or is empty")
    return quote(value, safe="/")


def _parameter(name: str, value: Value) -> str:
    return quote(_checked(name, value), safe="")


def _host(name: str, value: Value) -> str:
    text = _checked(name, value).decode("latin-1")
    if not _PLAIN(text):
        raise ValueError(f"{name} goes into the host but is not letters, digits, '.', '-', '_'")
    return text


def _checked(name: str, value: Value) -> bytes:
    """*value* as bytes without control characters."""
    if isinstance(value, str):
        if _CONTROL.search(value):
            raise ValueError(f"{name} has a control character")
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} has a lone surrogate, which no encoding has") from None
    if isinstance(value, bytes):
        if _CONTROL_BYTES.search(value):
            raise ValueError(f"{name} has a control character")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    raise TypeError(f"{name} is str, bytes or int, not {type(value).__name__}")


# ---------------------------------------------------------------------------------------------
# Redaction. All patterns are linear: what they repeat cannot cross where they start.

SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|key|cookie|auth|cred|session|signature|jwt"
    r"|(?<![a-z])(?:sig|sid|otp|pin|code|ticket)(?![a-z])",
    re.IGNORECASE,
)
"""Found in the name of a parameter, variable or option whose value is not to be shown."""


# Of text, white space and what encloses a URL end it; of a URL, nothing does.
_TEXT_STOP = r"\s\"<>"
_CLOSING = "'),.;:]}"


def _userinfo(stop: str) -> re.Pattern[str]:
    # The second form is a password with a raw "/", "?" or "#", by syntax a host and no port.
    return re.compile(
        rf"(?:(?:\b(?P<web>https?|wss?))?:|^)//"
        rf"(?:(?P<info>[^/?#{stop}]*)"
        rf"|(?P<user>[^/?#@:\[{stop}]*):(?!\d*(?:[/?#]|$))[^@\s{stop}]{{1,256}})@",
        re.IGNORECASE,
    )


def _parameters(stop: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(rf"[?&;#]([^=?&;#{stop}]+)="), re.compile(rf"[^&#{stop}]*")


_URL_USERINFO, _TEXT_USERINFO = _userinfo(""), _userinfo(_TEXT_STOP)
_URL_PARAMETERS, _TEXT_PARAMETERS = _parameters(""), _parameters(_TEXT_STOP)


def redact_url(url: str) -> str:
    """*url* with `***` for its passwords and the values of parameters with a secret's name.

    Masked are the password before the host; in http and ws also a user without one, which is a
    token; in query and fragment the values of names that contain `pass`, `pwd`, `secret`, `token`,
    `key`, `cookie`, `auth`, `cred`, `session`, `signature`, `jwt`, or the words `sig`, `sid`,
    `otp`, `pin`, `code`. Also in URLs inside of it, unless they are percent-encoded. All else
    stays as it is. Never raises, whatever the text; when in doubt it masks.
    """
    return _masked_parameters(_URL_USERINFO.sub(_masked_userinfo, url), *_URL_PARAMETERS, "")


def redact_text(text: str) -> str:
    """*text*, say a log line or a server's words, with each URL in it as `redact_url()` has it.

    A URL ends at white space, `"`, `<` or `>`. Parameters are also found where only the path is
    shown, as in `GET /x?token=t`.
    """
    text = _TEXT_USERINFO.sub(_masked_userinfo, text)
    return _masked_parameters(text, *_TEXT_PARAMETERS, _CLOSING)


def _masked_userinfo(match: re.Match[str]) -> str:
    whole, info = match[0], match["info"]
    if info is None:
        return f"{whole[: match.end('user') - match.start()]}:{MASK}@"
    head = whole[: match.start("info") - match.start()]
    user, colon, password = info.partition(":")
    # GitHub's way to say that the user is the token.
    token_first = match["web"] and password in ("", "x-oauth-basic")
    if token_first and user:
        return f"{head}{MASK}{colon}{password}@"
    return f"{head}{user}:{MASK}@" if password else whole


def _masked_parameters(
    text: str, parameter: re.Pattern[str], value: re.Pattern[str], closing: str
) -> str:
    parts, done = [], 0
    for match in parameter.finditer(text):
        start = match.end()
        # A ";" may part two parameters or belong to the secret: inside of one it is no start.
        if start <= done or not SECRET_NAME.search(unquote_plus(match[1])):
            continue
        secret = value.match(text, start)
        assert secret is not None
        end = start + len(secret[0].rstrip(closing) if closing else secret[0])
        if end > start:
            parts += [text[done:start], MASK]
            done = end
    return "".join([*parts, text[done:]])
