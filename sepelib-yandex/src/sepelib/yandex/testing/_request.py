"""What a fake is asked and what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from requests.structures import CaseInsensitiveDict

__all__ = ["FakeRequest", "File", "Refusal", "Reply"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class File(NamedTuple):
    """A file of a multipart form."""

    name: str | None
    content: bytes
    content_type: str | None


class Reply:
    """An answer: *json*, or *body* with its *content_type*; `headers` may repeat a name."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        *,
        json: object = ...,
        body: bytes | str = b"",
        content_type: str | None = None,
        headers: Headers = (),
    ) -> None:
        self.status = status
        self.headers: list[tuple[str, str]] = list(
            headers.items() if isinstance(headers, Mapping) else headers
        )
        if json is not ...:
            body, content_type = _dumped(json), content_type or "application/json; charset=utf-8"
        elif isinstance(body, str):
            body, content_type = body.encode(), content_type or "text/plain; charset=utf-8"
        self.body = body
        if content_type is not None and self.header("Content-Type") is None:
            self.headers.append(("Content-Type", content_type))

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        for known, value in self.headers:
            if known.lower() == name.lower():
                return value
        return None

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        return _loaded(self.body)

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


class Refusal(Exception):
    """Raised by a fake where the service refuses; it becomes the error of the service.

    The fake's `render()` gives it the shape that this service has.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


class FakeRequest:
    """A request as it came.

    `path` is as on the wire, percent-encoded, without the query; `args` are the decoded fields of
    the route. `root` is "scheme://host:port" as the client wrote it, for absolute links.
    """

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        parts = urlsplit(url)
        self.method = method.upper()
        self.root = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path or "/"
        self.pairs = parse_qsl(parts.query, keep_blank_values=True)
        """The parameters of the query, in their order, repeated ones too."""
        self.headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(headers or {})
        self.body = body
        self.op = ""
        """The name of the operation, once the route is known; "" when there is none."""
        self.args: dict[str, str] = {}

    @property
    def key(self) -> str:
        """The fields of the route, joined by "/"."""
        return "/".join(self.args.values())

    @property
    def url(self) -> str:
        """Without the query."""
        return self.root + self.path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; of a repeated one the last."""
        return dict(self.pairs)

    def values(self, name: str) -> list[str]:
        """Each value of one parameter of the query."""
        return [value for known, value in self.pairs if known == name]

    @property
    def content_type(self) -> str:
        """In lower case, without its parameters; "" when the request has none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        return _loaded(self.body)

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form, urlencoded or multipart; of a repeated one the last."""
        if self.content_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))
        return {
            name: file.content.decode(errors="replace")
            for name, file in self._parts()
            if file.name is None
        }

    @property
    def files(self) -> dict[str, File]:
        """The files of a multipart form, by the name of the part."""
        return {name: file for name, file in self._parts() if file.name is not None}

    @property
    def request_id(self) -> str | None:
        """The header X-Request-Id, with the number of the attempt if it has one."""
        sent: str | None = self.headers.get("X-Request-Id")
        return sent

    @property
    def token(self) -> str | None:
        """The token of `Authorization: OAuth TOKEN` (or Bearer)."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme in ("OAuth", "Bearer") and token else None

    def _parts(self) -> list[tuple[str, File]]:
        if self.content_type != "multipart/form-data":
            return []
        return _multipart(self.headers["Content-Type"], self.body)

    def __repr__(self) -> str:
        # No query and no headers: they carry credentials.
        return f"FakeRequest({self.method} {self.path}, op={self.op!r})"


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _loaded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _multipart(content_type: str, body: bytes) -> list[tuple[str, File]]:
    """The parts of a form, RFC 7578. Empty when the body is not what the header says."""
    from email import message_from_string

    boundary = message_from_string(f"Content-Type: {content_type}\n\n").get_boundary()
    if not boundary:
        return []
    first, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if first.strip() or not parts or not parts.pop().startswith(b"--"):
        return []
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        headers = message_from_string(head.decode(errors="replace").lstrip())
        name = headers.get_param("name", header="Content-Disposition")
        if isinstance(name, str):
            has_type = "Content-Type" in headers
            found.append(
                (
                    name,
                    File(
                        headers.get_filename(),
                        content,
                        headers.get_content_type() if has_type else None,
                    ),
                )
            )
    return found
