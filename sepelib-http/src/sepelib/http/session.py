"""A requests.Session that ends in time, asks again only when that is safe, and is measured.

    session = InstrumentedSession("staff", base_url="https://staff.example/api")
    keys = session.get("/users/{id}/keys", path={"id": login}).json()

Errors: those of requests, among them `DeadlineExceeded`, `NoFreeSlot` and `ResponseTooLarge` of
this module. Each has `maybe_sent`: False is a promise that the server has seen nothing.
Retries: never when the first request may have had an effect.

| what happened                                      | sent again                              |
|----------------------------------------------------|-----------------------------------------|
| no connection: refused, timeout, no such host      | always                                  |
| sent, and no byte of a reply: reset, read timeout  | if idempotent                           |
| the reply had begun                                | never                                   |
| 429, 502, 503, 504                                 | if idempotent; after its Retry-After    |
| a certificate that is not trusted, no free slot    | never                                   |

Idempotent is GET, HEAD, OPTIONS, PUT, DELETE, TRACE (RFC 9110, 9.2.2), what the caller calls so,
and what has an `Idempotency-Key`. A body has to be bytes, or a file that can be rewound.

Metrics: `http_client_requests` (session, endpoint, method, status) with a status of 1xx to 5xx or
error, `http_client_seconds` (session, endpoint), `http_client_errors` (session, kind),
`http_client_retries`, `http_client_in_flight` and `http_client_pool_wait_seconds` (session). Each
redirect and each retry counts for itself. The endpoint is the template of the URL; without one,
and for redirects, it is `scheme://host:port`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, Request, Response
from requests.cookies import RequestsCookieJar
from urllib3.exceptions import HTTPError

from sepelib.core import constants
from sepelib.util import request_id
from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.util.retry import RetryPolicy
from sepelib.util.slots import Slots
from sepelib.util.url import Value

from ._adapter import LimitedAdapter
from ._call import Call, current_call, under
from ._exchange import Backend
from ._metrics import SessionMetrics
from ._prepared import PreparedRequests, SessionHeaders
from ._raised import DeadlineExceeded, NoFreeSlot, ResponseTooLarge
from ._retries import default_policy, transport_policy
from ._shown import shown_url
from ._urls import expanded, joined, label_of

__all__ = ["DeadlineExceeded", "InstrumentedSession", "NoFreeSlot", "ResponseTooLarge"]

_AS_SESSION: Final[Any] = object()  # None is something to say: no limit
_MANY = 100  # connections kept when their number has no bound


class InstrumentedSession(requests.Session):
    """A session for one backend, or a few; threads and greenlets may share it.

    *name*: the label of its metrics.
    *base_url*: what relative URLs are appended to, its own path included. An absolute URL goes
    where it says, and what the session has (headers, `auth`) goes with it, as in requests; a user
    and password written in *base_url* do not.
    *timeout*: seconds to connect, and without a byte read or a piece sent; one number is both.
    *total_timeout*: seconds for all of a call: slot, connection, redirects, retries and their
    waits, body, the body of a stream too. A deadline from above that ends earlier is obeyed.
    *retries*: how often and how late; what at all, the table above says. Of the policy's `on`,
    `requests.ConnectionError` and `Timeout` are failures of the transport and `HTTPError` is a
    429, 502, 503 or 504. Default: 2 attempts, a budget of the session's own.
    *max_concurrency*: requests in flight; who comes later waits for *concurrency_timeout*, then
    fails with NoFreeSlot. A request holds its slot until its body is read; a stream until it is
    read, closed or garbage.
    *max_body*: decoded bytes of a body. *request_id_header*: carries `request_id.current()`,
    unless the caller has set it.
    *cookies*: keep those that servers set. Off, since all users of a session would share them;
    those of a call, and those put into `session.cookies` by hand, are sent.
    *trust_env*: obey proxy variables and ~/.netrc, which replaces an explicit Authorization.

    None is no limit, for each of them. An adapter mounted by hand is used as it is: limits and
    metrics belong to those that the session makes. The resolver of names obeys no timeout.
    A pickled session keeps its settings, and reports to AMBIENT when it is back.
    """

    timeout: Any
    total_timeout: float | None
    max_body: int | None

    def __init__(
        self,
        name: str = "http",
        *,
        base_url: str | None = None,
        timeout: float | tuple[float | None, float | None] | None = (
            constants.CONNECT_TIMEOUT,
            constants.NETWORK_TIMEOUT,
        ),
        total_timeout: float | None = 30.0,
        retries: RetryPolicy | None = None,
        max_concurrency: int | None = 100,
        concurrency_timeout: float | None = None,
        max_body: int | None = 64 << 20,
        trust_env: bool = False,
        user_agent: str | None = None,
        request_id_header: str | None = "X-Request-Id",
        cookies: bool = False,
        recorder: Recorder = AMBIENT,
        verify: bool | str = True,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.timeout = timeout
        self.total_timeout = total_timeout
        self.max_body = max_body
        self.request_id_header = request_id_header
        self._retries = retries
        self._max_concurrency = max_concurrency
        self._concurrency_timeout = concurrency_timeout
        self._make_backend(recorder)
        super().__init__()
        self.headers = SessionHeaders(self.headers)
        if user_agent is not None:
            self.headers["User-Agent"] = user_agent
        self.trust_env = trust_env
        self.verify = verify
        if not cookies:
            self.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        for prefix in ("https://", "http://"):
            self.mount(prefix, LimitedAdapter(max_concurrency or _MANY))

    def _make_backend(self, recorder: Recorder) -> None:
        metrics = SessionMetrics(recorder, self.name)
        slots = None if self._max_concurrency is None else Slots(self._max_concurrency)
        self._backend = Backend(metrics, slots, self._concurrency_timeout)
        self._policy = self._transport(self._retries or default_policy())
        self._prepared = PreparedRequests()

    def _transport(self, policy: RetryPolicy) -> RetryPolicy:
        return transport_policy(policy, self._backend.metrics.retries.inc)

    def request(
        self,
        method: str | bytes,
        url: str | bytes,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        cookies: Any = None,
        files: Any = None,
        auth: Any = None,
        timeout: Any = _AS_SESSION,
        allow_redirects: bool = True,
        proxies: Any = None,
        hooks: Any = None,
        stream: bool | None = None,
        verify: bool | str | None = None,
        cert: Any = None,
        json: Any = None,
        *,
        endpoint: str | None = None,
        path: Mapping[str, Value] | None = None,
        total_timeout: float | None = _AS_SESSION,
        retries: RetryPolicy | None = None,
        max_body: int | None = _AS_SESSION,
        idempotent: bool | None = None,
    ) -> Response:
        """As `requests.Session.request`, and `get()` and the others likewise, with more keywords.

        *path*: the values of the template that *url* is then; they are quoted, so that each stays
        what it is meant to be, and the template is the endpoint. *endpoint*: the label of the
        metrics. *idempotent*: whether it may be sent twice; None lets the method decide.
        *timeout*, *total_timeout*, *retries*, *max_body*: in place of the session's.
        """
        method = method.decode() if isinstance(method, bytes) else method
        url = url.decode() if isinstance(url, bytes) else str(url)
        if path is not None:
            endpoint = endpoint or label_of(url)
            url = expanded(url, path)
        url = joined(self.base_url, url)
        call = self._call(endpoint, retries, max_body, idempotent)
        with under(call, self.total_timeout if total_timeout is _AS_SESSION else total_timeout):
            if params or data or headers or cookies or files or auth or hooks or json is not None:
                request = self.prepare_request(
                    Request(
                        method=method.upper(),
                        url=url,
                        headers=headers,
                        files=files,
                        data=data or {},
                        json=json,
                        params=params or {},
                        auth=auth,
                        cookies=cookies,
                        hooks=hooks,
                    )
                )
            else:
                request = self._prepare_plain(method.upper(), url)
            call.url = request.url
            settings = self.merge_environment_settings(
                request.url, proxies or {}, stream, verify, cert
            )
            return self.send(
                request,
                timeout=self.timeout if timeout is _AS_SESSION else timeout,
                allow_redirects=allow_redirects,
                **settings,
            )

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """As `requests.Session.send`, under the session's limits; of a redirect, the call's."""
        kwargs.setdefault("timeout", self.timeout)
        call = current_call.get()
        if call is not None and call.backend is self._backend:
            return self._send(request, kwargs)
        with under(self._call(), self.total_timeout):
            return self._send(request, kwargs)

    def _send(self, request: PreparedRequest, kwargs: dict[str, Any]) -> Response:
        try:
            return super().send(request, **kwargs)
        except HTTPError as error:
            if isinstance(error, requests.RequestException):
                raise
            # requests lets a few through, of the broken body of a redirect for one.
            raise requests.ConnectionError(error, request=request) from error

    def get_redirect_target(self, resp: Response) -> str | None:
        target = super().get_redirect_target(resp)
        try:
            urlsplit(target or "")
        except ValueError as error:  # which requests lets through
            resp.close()
            raise requests.exceptions.InvalidURL(
                f"{shown_url(resp.url)}: sent on to what is no URL: {error}", response=resp
            ) from error
        return target

    def prepare_request(self, request: Request) -> PreparedRequest:
        current = request_id.current()
        name = self.request_id_header
        if current is not None and name is not None and name not in self.headers:
            given = request.headers or {}
            if name.lower() not in {str(header).lower() for header in given}:
                request.headers = {**given, name: current}
        return super().prepare_request(request)

    def _prepare_plain(self, method: str, url: str) -> PreparedRequest:
        """Prepare a request without anything of its own."""
        if (
            self.auth
            or self.params
            or self.trust_env
            or len(self.cookies)
            or any(self.hooks.values())
            or type(self).prepare_request is not InstrumentedSession.prepare_request
            or not isinstance(self.headers, SessionHeaders)
        ):
            return self.prepare_request(Request(method, url))
        request = self._prepared.get(method, url, self.headers, super().prepare_request)
        current = request_id.current()
        name = self.request_id_header
        if current is not None and name is not None and name not in request.headers:
            request.headers[name] = current
        return request

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        if self.trust_env or proxies or self.proxies:
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        return {
            "proxies": {},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }

    if TYPE_CHECKING:  # those of requests pass on what `request` takes; type checkers cannot know

        def get(self, url: str | bytes, params: Any = None, **kwargs: Any) -> Response: ...
        def options(self, url: str | bytes, **kwargs: Any) -> Response: ...
        def head(self, url: str | bytes, **kwargs: Any) -> Response: ...
        def post(
            self, url: str | bytes, data: Any = None, json: Any = None, **kwargs: Any
        ) -> Response: ...
        def put(self, url: str | bytes, data: Any = None, **kwargs: Any) -> Response: ...
        def patch(self, url: str | bytes, data: Any = None, **kwargs: Any) -> Response: ...
        def delete(self, url: str | bytes, **kwargs: Any) -> Response: ...

    def _call(
        self,
        endpoint: str | None = None,
        retries: RetryPolicy | None = None,
        max_body: int | None = _AS_SESSION,
        idempotent: bool | None = None,
    ) -> Call:
        return Call(
            self._backend,
            self._policy if retries is None else self._transport(retries),
            max_body=self.max_body if max_body is _AS_SESSION else max_body,
            endpoint=endpoint,
            idempotent=idempotent,
        )

    __attrs__ = [
        *requests.Session.__attrs__,
        "name",
        "base_url",
        "timeout",
        "total_timeout",
        "max_body",
        "request_id_header",
        "_retries",
        "_max_concurrency",
        "_concurrency_timeout",
    ]

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._make_backend(AMBIENT)
