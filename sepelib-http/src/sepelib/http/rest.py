"""REST with one line for a call: templates in, parsed JSON out, one error tree for all the rest.

    client = RestClient(InstrumentedSession("staff"), "https://staff.example.org/api/v3")
    user = client.get("/users/{login}", login=login, params={"fields": "name"})

Errors: those of `sepelib.http.errors`, each chained from what requests raised. What is our own
mistake (a path without its values, a body that is no JSON, a header with a line end) is raised as
it is: ValueError, TypeError. `gevent.Timeout` and its like pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from types import EllipsisType
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urljoin

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import get_auth_from_url, requote_uri, urldefragauth
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from sepelib.core.constants import CONNECT_TIMEOUT, NETWORK_TIMEOUT
from sepelib.util import deadline
from sepelib.util.url import SECRET_NAME, expand

from ._answers import http_error, parsed
from ._meanings import FAILURES, transport_error
from ._shown import Scrubber, shown_url
from .errors import DeadlineExceeded, LinkRefused
from .session import InstrumentedSession

__all__ = ["RestClient"]

Value: TypeAlias = str | bytes | int
Timeout: TypeAlias = float | tuple[float | None, float | None] | None
Auth: TypeAlias = (
    tuple[str, str] | Callable[[requests.PreparedRequest], requests.PreparedRequest] | None
)

_OK = (200, 201, 202, 204)
_FOLLOWED = ("GET", "HEAD")
_PORTS = {"http": 80, "https": 443}
_MISREAD = re.compile(r"[\\\s\x00-\x1f\x7f]")  # in a URL: each parser has its own opinion


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class RestClient:
    """Calls below *base_url*, which keeps its own path, through *session*, which is not closed.

    *session*: an InstrumentedSession, for its limits, retries and metrics (the label `endpoint` is
    the template of the path); or any other requests.Session, which gets finite timeouts here and
    nothing else. *auth*: as for requests; by default user and password of *base_url*, if it has
    them. *headers* are sent with each call; ``Accept`` is ``application/json`` unless they say
    otherwise.

    Shared by greenlets and threads as far as its session is.
    """

    def __init__(
        self,
        session: requests.Session,
        base_url: str,
        *,
        auth: Auth = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._origin = _origin(base_url)
        if self._origin is None or "?" in base_url or "#" in base_url:
            raise ValueError("a base URL is http://host/path, or https, without query and fragment")
        if parse_url(base_url).auth is not None:
            # Not left there: a whole link has none, and would go without.
            auth = auth or get_auth_from_url(base_url)
            base_url = urldefragauth(base_url)
        self._session = session
        self._base = base_url.rstrip("/")
        self._auth = auth
        self._headers: CaseInsensitiveDict[str | None]
        self._headers = CaseInsensitiveDict({"Accept": "application/json"})
        self._headers.update(headers or {})

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str | None] | None = None,
        expected: Collection[int] = _OK,
        timeout: Timeout | EllipsisType = ...,
        idempotent: bool | None = None,
        path_args: Mapping[str, Value] | None = None,
        **values: Value,
    ) -> Any:
        """Send the request; give the JSON of an *expected* answer, None when it has no body.

        *path* is a template, ``/users/{login}/keys/{id}``, its values come by keyword; those whose
        names are taken here, in *path_args*. Each is quoted and stays in its segment. The other
        words mean what they mean to requests; *json* None is no body; a header of None is not sent.
        *timeout*: ``...`` is that of the session. *idempotent*: True lets the session repeat a POST
        whose connection was lost; None goes by the method.

        JSON is UTF-8, NaN and Infinity are refused, of equal keys the last one counts. Only GET and
        HEAD follow redirects: others would become a GET without a body, and succeed.
        """
        if path.lower().startswith(("http://", "https://")):
            raise ValueError("a path is below the base URL: to go to a whole URL use follow()")
        values = {**(path_args or {}), **values}
        template = path if path.startswith("/") else f"/{path}"
        return self._send(
            method,
            self._base + expand(template, **values),
            params=params,
            json=json,
            data=data,
            headers=headers,
            expected=expected,
            timeout=timeout,
            idempotent=idempotent,
            endpoint=template,
            values=values,
        )

    def follow(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str | None] | None = None,
        expected: Collection[int] = _OK,
        timeout: Timeout | EllipsisType = ...,
        endpoint: str | None = None,
    ) -> Any:
        """Go to a whole URL that an answer has given, such as that of the next page.

        LinkRefused, before a byte is sent, unless scheme, host and port are those of the base URL:
        the credentials go along. A relative one is resolved against the base URL. *endpoint* is
        the label for metrics.
        """
        if not isinstance(url, str):  # it comes out of an answer, and `next` may be null
            raise TypeError(f"a link is a str, not {type(url).__name__}")
        try:
            whole = urljoin(self._base + "/", url)
        except ValueError:
            whole = ""
        # A user in it would take the place of our credentials.
        if not url or _origin(whole) != self._origin or parse_url(whole).auth is not None:
            raise LinkRefused(method.upper(), whole or url, str(self._origin))
        return self._send(
            method,
            whole,
            headers=headers,
            expected=expected,
            timeout=timeout,
            idempotent=None,
            endpoint=endpoint,
            values={},
        )

    def get(self, path: str, **options: Any) -> Any:
        """`call("GET", ...)`, with its options and the values of *path*."""
        return self.call("GET", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        """`call("POST", ...)`, with its options and the values of *path*."""
        return self.call("POST", path, **options)

    def put(self, path: str, **options: Any) -> Any:
        """`call("PUT", ...)`, with its options and the values of *path*."""
        return self.call("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Any:
        """`call("PATCH", ...)`, with its options and the values of *path*."""
        return self.call("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Any:
        """`call("DELETE", ...)`, with its options and the values of *path*."""
        return self.call("DELETE", path, **options)

    def __repr__(self) -> str:
        return f"RestClient({shown_url(self._base)!r})"

    def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | None] | None,
        expected: Collection[int],
        timeout: Timeout | EllipsisType,
        idempotent: bool | None,
        endpoint: str | None,
        values: Mapping[str, Value],
        **request: Any,
    ) -> Any:
        method = method.upper()
        sent = self._headers.copy()
        sent.update(headers or {})
        scrub = Scrubber(url, values, self._auth)
        if isinstance(self._session, InstrumentedSession):
            request |= {"endpoint": endpoint, "idempotent": idempotent}
            if timeout is not ...:
                request["timeout"] = timeout
        else:
            timeout = (CONNECT_TIMEOUT, NETWORK_TIMEOUT) if timeout is ... else timeout
            try:
                request["timeout"] = _clipped(timeout)
            except deadline.DeadlineExceeded as error:
                raise DeadlineExceeded(method, scrub(url), str(error), maybe_sent=False) from error
        try:
            response = self._session.request(
                method,
                url,
                headers=sent,
                auth=self._auth,
                allow_redirects=method in _FOLLOWED,
                hooks={"response": [*_hooks(self._session), self._look_at_redirect]},
                **request,
            )
        except FAILURES as error:
            failure = transport_error(error, method, url, scrub)
            if failure is error:
                raise
            raise failure from error
        for hop in (*response.history, response):
            scrub.learn(hop.request)
        if response.status_code not in expected:
            raise http_error(response, method, scrub)
        return parsed(response, method, scrub)

    def _look_at_redirect(self, response: requests.Response, **options: Any) -> None:
        if not response.is_redirect:
            return
        try:
            target = self._session.get_redirect_target(response) or ""
            origin = _origin(requote_uri(urljoin(response.url, target)))
        except ValueError:  # as it is by requests, for some that cannot be read
            origin = None
        if origin is None:
            response.close()
            where = shown_url(response.headers["Location"])
            raise requests.exceptions.InvalidURL(
                f"a redirect to where HTTP does not go, {where}", response=response
            )
        if origin != self._origin:
            # requests would send them on, all but Authorization and cookies.
            headers = response.request.headers
            for name in [name for name in headers if SECRET_NAME.search(name)]:
                del headers[name]


def _origin(url: str) -> _Origin | None:
    """Where *url* goes, as urllib3 reads it, which will connect; None unless that is plain HTTP."""
    if _MISREAD.search(url):
        return None
    try:
        parts = parse_url(url)
    except LocationParseError:
        return None
    if parts.scheme not in _PORTS or not parts.host:
        return None
    return _Origin(parts.scheme, parts.host, parts.port or _PORTS[parts.scheme])


def _hooks(session: requests.Session) -> list[Any]:
    # A hook of the request takes the place of the session's.
    hooks: Any = session.hooks.get("response") or []
    return [hooks] if callable(hooks) else list(hooks)


def _clipped(timeout: Timeout) -> tuple[float | None, float | None]:
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return deadline.clip(connect), deadline.clip(read)
