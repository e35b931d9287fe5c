"""The access log: one line a request, written after its last byte.

Goes through `logging`, to the logger "sepelib.flask.access", so that handlers, files and their
reopening are the process's as for any other log. Nothing is formatted while nobody listens.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import IO, TYPE_CHECKING, Literal

import gevent

from sepelib.util.url import redact_url

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["AccessLog"]

_MAX_TARGET = 2048
_MAX_HEADER = 256
_MAX_SHORT = 64

_MAY_HOLD_A_SECRET = re.compile(r"=|//").search
_PLAIN = re.compile(r"[ !#-\[\]-~]*").fullmatch  # printable ASCII without " and \
_ESCAPED = re.compile(r"[^ !#-\[\]-~]")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class AccessLog:
    """Writes lines to *logger*, or to *stream* as they are, one write a line.

    *format* "combined" is that of Apache and nginx with two fields more:

        peer - login [time] "GET /path?token=*** HTTP/1.1" 200 5 "referer" "agent" 0.001234 id

    "json" is an object a line: time, peer, login, method, target, protocol, status, bytes,
    seconds, referer, agent, id. Unknown is `-`, or null.
    The query is redacted; control characters, quotes and all that is not ASCII are escaped; what
    clients choose is cut. Status 499 is a client that went away before it had its answer.
    *bytes* are those of the body as the application gave them.
    """

    def __init__(
        self,
        format: Literal["combined", "json"] = "combined",
        *,
        logger: logging.Logger | None = None,
        stream: IO[str] | None = None,
    ) -> None:
        if format not in ("combined", "json"):
            raise ValueError(f"the format of an access log is combined or json, not {format!r}")
        if logger is not None and stream is not None:
            raise ValueError("an access log goes to a logger or to a stream, not to both")
        self._line = _combined if format == "combined" else _as_json
        self._logger = logging.getLogger("sepelib.flask.access") if logger is None else logger
        self._stream = stream
        self._pending: list[tuple[WSGIEnvironment, int, int, float]] = []

    @property
    def enabled(self) -> bool:
        return self._stream is not None or self._logger.isEnabledFor(logging.INFO)

    def write(self, environ: WSGIEnvironment, status: int, size: int, seconds: float) -> None:
        """Of a request that took *seconds*, and whose answer's body had *size* bytes.

        Done in the next turn of the hub, for all requests that ended in this one: logging costs a
        third when its code is not fetched into the processor's cache for each line anew.
        """
        if self.enabled:
            self._pending.append((environ, status, size, seconds))
            if len(self._pending) == 1:
                gevent.spawn_raw(self.flush)

    def flush(self) -> None:
        """Write what waits for its turn."""
        pending, self._pending = self._pending, []
        for request in pending:
            line = self._line(*request)
            if self._stream is not None:
                self._stream.write(line + "\n")
                continue
            # As info() does, less the search for the caller, which here is always the same.
            logger = self._logger
            logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, line, (), None))


def _combined(environ: WSGIEnvironment, status: int, size: int, seconds: float) -> str:
    get = environ.get
    target = _escaped(_target(get("REQUEST_URI")), _MAX_TARGET)
    return (
        f"{get('REMOTE_ADDR') or '-'} - {_escaped(get('REMOTE_USER'), _MAX_SHORT)} [{_now()}] "
        f'"{get("REQUEST_METHOD", "-")} {target} {get("SERVER_PROTOCOL", "-")}" {status} {size} '
        f'"{_escaped(_target(get("HTTP_REFERER")), _MAX_HEADER)}" '
        f'"{_escaped(get("HTTP_USER_AGENT"), _MAX_HEADER)}" '
        f"{seconds:.6f} {_escaped(get('sepelib.request_id'), _MAX_SHORT)}"
    )


def _as_json(environ: WSGIEnvironment, status: int, size: int, seconds: float) -> str:
    get = environ.get
    return json.dumps(
        {
            "time": _now(),
            "peer": get("REMOTE_ADDR"),
            "login": _cut(get("REMOTE_USER"), _MAX_SHORT),
            "method": get("REQUEST_METHOD"),
            "target": _cut(_target(get("REQUEST_URI")), _MAX_TARGET),
            "protocol": get("SERVER_PROTOCOL"),
            "status": status,
            "bytes": size,
            "seconds": round(seconds, 6),
            "referer": _cut(_target(get("HTTP_REFERER")), _MAX_HEADER),
            "agent": _cut(get("HTTP_USER_AGENT"), _MAX_HEADER),
            "id": _cut(get("sepelib.request_id"), _MAX_SHORT),
        }
    )


def _target(url: str | None) -> str | None:
    return redact_url(url) if url and _MAY_HOLD_A_SECRET(url) else url


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else text[:most]


def _escaped(text: str | None, most: int) -> str:
    if not text:
        return "-"
    text = text[:most]
    if _PLAIN(text):
        return text
    return _ESCAPED.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_second = 0
_text = ""


def _now() -> str:
    """Local time, as the format has it."""
    global _second, _text
    now = int(time.time())
    if now != _second:
        t = time.localtime(now)
        offset = t.tm_gmtoff // 60
        zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{abs(offset) % 60:02}"
        clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        _text = f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{clock} {zone}"
        _second = now
    return _text
