"""Long JSON, sent while it is made, whose failure the client cannot miss.

    return h.stream_json(jobs.find())                       # [{...},{...}]
    return h.stream_json(events(), form="ndjson")           # one JSON document a line

An answer of unknown length goes out in chunks, and its status is sent before its end is known.
When an item fails then, the body ends *without* the final chunk and the connection is closed: to
every HTTP client that is a broken answer, never a shorter list. An array lacks its bracket as well.
Under HTTP/1.0, which nginx speaks to its upstreams by default and which has no chunks, the end
of the connection is a proper end: there a failed ndjson stream ends with half a document.
"""

from __future__ import annotations

import enum
import errno
import logging
import time
from collections.abc import Iterable
from typing import Any, Literal

from flask import Response, request, stream_with_context
from sepelib.flask.h._encoding import dumps
from sepelib.flask.h._request import request_words
from sepelib.flask.h.responses import with_headers

__all__ = ["StreamBroken", "stream_json"]

log = logging.getLogger(__name__)

_END: Any = object()
_HALF_A_LINE = b'{"'


class StreamBroken(ConnectionResetError):
    """An answer under way cannot be finished; why is logged already.

    Raised into the server, for which it is as if the client had reset the connection: gevent's,
    gunicorn's and werkzeug's close it without a word, and without the final chunk.
    """

    is_logged = True  # for a server that looks for it


def stream_json(
    items: Iterable[Any],
    *,
    status: int = 200,
    form: Literal["array", "ndjson"] = "array",
    buffer: int = 16 << 10,
    flush_after: float = 0.5,
    **headers: str,
) -> Response:
    """*items*, each as `json_response` has it, as one array or as lines.

    The first one is made at once: when that fails, so does the view, and the client gets a proper
    error. Any later failure is logged once, as ERROR with the request id, and breaks the answer
    off (see above). The request's context stays, so `request` may be used by *items*.

    Items are sent together, *buffer* bytes or more at a time, but no item waits when the last
    were sent *flush_after* seconds ago; `buffer=0` sends each by itself. An item that is ready is
    looked at only when the next one is asked for, so the one before a long pause may wait.

    `items.close()`, if there is one, is called in the end, also when the client goes away: a
    generator sees GeneratorExit at its `yield`. HEAD gets the headers.
    """
    stream = _Stream(items, form, buffer, flush_after)
    try:
        stream.take()
        response = Response(
            stream_with_context(stream),
            status,
            mimetype="application/json" if form == "array" else "application/x-ndjson",
        )
        # For an answer that nobody starts to read, as that to HEAD.
        response.call_on_close(stream.close)
        return with_headers(response, headers)
    except BaseException:
        stream.close()
        raise


class _State(enum.Enum):
    OPEN = "open"  # more items may come
    ENDED = "ended"  # none will; what is ready is still to be sent
    BROKEN = "broken"  # one failed; what is ready is still to be sent
    CLOSED = "closed"


class _Stream:
    """The bytes of the answer, some items at a time.

    OPEN ──last item──────► ENDED ──┐
     ├─────an item fails──► BROKEN ─┼──► CLOSED
     └─────the client is gone───────┘
    """

    def __init__(self, items: Iterable[Any], form: str, buffer: int, flush_after: float) -> None:
        if form not in ("array", "ndjson"):
            raise ValueError(f"form is 'array' or 'ndjson', not {form!r}")
        self._given = items
        self._items = iter(items)
        self._lines = form == "ndjson"
        self._buffer = buffer
        self._flush_after = flush_after
        self._what, self._which = request_words()
        self._chunked = request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        self._state = _State.OPEN
        self._error: Exception | None = None
        self._ready: list[bytes] = []
        self._size = self._count = 0
        self._since: float | None = time.monotonic()

    def take(self) -> None:
        """Make the next item ready, or find that there is none."""
        item = next(self._items, _END)
        if item is _END:
            if not self._lines:
                self._ready.append(b"]" if self._count else b"[]")
            self._state = _State.ENDED
            return
        text = dumps(item)
        if self._lines:
            self._ready += (text, b"\n")
        else:
            self._ready += (b"," if self._count else b"[", text)
        self._count += 1
        self._size += len(text)

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> bytes:
        if self._since is None:
            self._since = time.monotonic()
        while self._state is _State.OPEN and not self._is_due(self._since):
            try:
                self.take()
            except Exception as e:
                self._break(e)
        if self._ready:
            chunk = b"".join(self._ready)
            self._ready, self._size, self._since = [], 0, None
            return chunk
        if self._state is _State.BROKEN:
            raise StreamBroken(
                errno.ECONNRESET, f"{self._what} broke off after {self._count} items"
            ) from self._error
        raise StopIteration

    def _is_due(self, since: float) -> bool:
        return self._size > 0 and (
            self._size >= self._buffer or time.monotonic() - since >= self._flush_after
        )

    def _break(self, error: Exception) -> None:
        self._state, self._error = _State.BROKEN, error
        log.error(
            "%s broke off after %d items (%s)",
            self._what,
            self._count,
            self._which,
            exc_info=error,
        )
        if self._lines and not self._chunked:
            self._ready.append(_HALF_A_LINE)

    def close(self) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._ready, self._error = [], None
        owners: dict[int, Any] = {id(each): each for each in (self._items, self._given)}
        for owner in owners.values():
            if callable(close := getattr(owner, "close", None)):
                close()
