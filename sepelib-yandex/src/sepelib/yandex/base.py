"""A client of one service: its URLs, its credential, its time, and what is tried again.

    class StaffClient(ApiClient):
        service = "staff"
        PATHS = {"persons.get": "/v3/persons/{login}"}

        def person(self, login: str) -> Person:
            answer = self.request("persons.get", "GET", at={"login": login})
            return Person.from_dict(answer.data)

Errors: the tree of `sepelib.yandex.errors`, and nothing else. The last real one is raised, with
`attempts` and `maybe_applied` set.
Retries: never when the first request may have had an effect that a second one would repeat.

| what happened                                   | idempotent | not idempotent          |
|-------------------------------------------------|------------|-------------------------|
| nothing was sent: refused, no such host, timeout| again      | again                   |
| sent, and no whole answer: reset, read timeout  | again      | raised, `maybe_applied` |
| 429; 503 with a Retry-After                     | again      | again: it was refused   |
| 500, 502, 503, 504                              | again      | raised, `maybe_applied` |
| 200 that cannot be read                         | again      | raised, `maybe_applied` |
| 401 with a credential that has changed since    | once more  | once more               |
| any other status; a certificate not trusted     | raised     | raised                  |

Idempotent is GET, HEAD, OPTIONS, PUT, DELETE, and what the client's method says. A DELETE whose
repetition finds nothing (404) has worked. A body that is a file is rewound, or not sent again.
A status below 400 that was not expected is `maybe_applied`: nobody has refused.

Metrics: `yandex_requests` (service, op, result) with a result of ok, 3xx, 4xx, 5xx, error (told
inside of a 200), timeout, connect, protocol or cancelled, and `yandex_seconds` (service, op).
Each attempt counts for itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeVar, overload

from sepelib.core.config import ConfigError
from sepelib.util import request_id
from sepelib.util.deadline import deadline
from sepelib.util.instrument import AMBIENT, Recorder
from sepelib.util.slots import Slots
from sepelib.util.url import UrlTemplate, Value

from ._call import Call
from ._failures import LATE
from ._limits import Timeout, checked_total, pair, policy_of
from ._meters import Meters
from ._response import Response, Stream
from ._shown import secrets_of_headers, shown_text, shown_url
from ._urls import checked_base, followed, origin, query
from .auth import Auth
from .errors import (
    ApiResponseError,
    BadRequest,
    Conflict,
    CredentialsUnavailable,
    DeadlineExceeded,
    Forbidden,
    ForeignLink,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    ServerError,
    TooManyRequests,
    Unauthorized,
    WaitTimeout,
    Where,
    YandexError,
)
from .paging import Pager, Step, Strategy

if TYPE_CHECKING:
    from types import TracebackType

    import requests

    from sepelib.util.retry import RetryPolicy

__all__ = ["ApiClient", "Response", "Stream"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_AS_CLIENT: Final[Any] = object()  # None is something to say
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_MESSAGES = ("message", "msg", "error_description", "error", "reason", "detail")


class ApiClient:
    """Base of all clients; threads and greenlets may share one.

    *url*: the base, its own path included; of several, each attempt takes the next one.
    *session*: any `requests.Session`, used as it is and never closed by this; an
    `InstrumentedSession` brings its metrics and limits. With the default one every wait ends with
    the deadline; another one may wait as long as *timeout* for each byte of the headers.
    *timeout*: seconds to connect, and without a byte read; one number is both.
    *total_timeout*: seconds for all of a call: slot, attempts, their waits, body, the body of a
    stream too. A deadline from above that ends earlier is obeyed.
    *retry*: how often and how late; what at all, the table above says.
    *headers*: sent with each request. *verify*: False, or a file of CA certificates.
    *paths*: other templates for the operations of `PATHS`, by their names.
    *max_connections*: requests in flight; who comes later waits. *max_body*: decoded bytes.
    *allowed_origins*: beside those of *url*, `scheme://host:port` that links may lead to.

    None is no limit. The resolver of names obeys no timeout.
    """

    service: ClassVar[str] = "api"
    default_url: ClassVar[str | None] = None
    """None: `url` has to be given."""
    PATHS: ClassVar[Mapping[str, str]] = {}
    """Templates of `sepelib.util.url.UrlTemplate` by operation, appended to the base."""
    OPTIONS: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """Keywords of a subclass's constructor that a section of the configuration may have."""
    error_class: ClassVar[type[ApiResponseError]] = ApiResponseError
    """For a status that `error_classes` does not have."""
    error_classes: ClassVar[Mapping[int, type[ApiResponseError]]] = {
        400: BadRequest,
        401: Unauthorized,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        412: PreconditionFailed,
        422: BadRequest,
        428: PreconditionRequired,
        429: TooManyRequests,
    }

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        session: requests.Session | None = None,
        timeout: Timeout = (1.0, 10.0),
        total_timeout: float | None = 30.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        verify: bool | str | None = None,
        paths: Mapping[str, str] | None = None,
        max_connections: int = 10,
        max_body: int = 64 << 20,
        allowed_origins: Iterable[str] = (),
        recorder: Recorder = AMBIENT,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        bases = [url] if isinstance(url, str) else list(url or ())
        if not bases and self.default_url is not None:
            bases = [self.default_url]
        if not bases:
            raise ValueError(f"{type(self).__name__} has no default URL: give url=")
        self._bases = tuple(map(checked_base, bases))
        self._origins = frozenset(map(origin, (*self._bases, *allowed_origins)))
        self._auth = auth
        self._timeout = pair(timeout)
        self._total_timeout = checked_total(total_timeout)
        self._headers = dict(headers or {})
        self._max_body = max_body
        self._paths = self._templates(paths or {})
        self._clock = clock
        self._sleep = sleep
        self._policy = policy_of(retry, clock, sleep)
        self._meters = Meters(recorder, self.service)
        self._slots = Slots(max_connections)
        self._verify = verify
        if verify is False:
            _log.warning("%r does not check certificates", self)
        self._owns_session = session is None
        if session is None:
            from ._session import own_session

            session = own_session(max_connections)
        self._session = session

    @classmethod
    def from_config(cls, section: Mapping[str, Any], **kwargs: Any) -> Self:
        """A client of a section of the configuration; ConfigError names what does not fit.

        Its keys are `url`, `auth` (see `auth_from_config`), `timeout` {connect, read, total},
        `retries` {attempts, backoff: [first, longest], budget}, `headers`, `verify`, `paths`,
        `max_connections`, `max_body`, and the service's `OPTIONS`. *kwargs* are added to them.
        """
        from ._config import client_arguments

        signatures = (base.__init__.__kwdefaults__ or {} for base in cls.__mro__)  # type: ignore[misc]
        timeouts = pair(next(given["timeout"] for given in signatures if "timeout" in given))
        try:
            given = client_arguments(cls.service, section, cls.OPTIONS, timeouts=timeouts)
            return cls(**{**given, **kwargs})
        except (ValueError, CredentialsUnavailable) as error:
            raise ConfigError(f"{cls.service}: {error}") from error

    @overload
    def request(
        self,
        op: str,
        method: str,
        path: str | None = None,
        *,
        at: Mapping[str, Value] | None = None,
        link: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = _AS_CLIENT,
        anonymous: bool = False,
        idempotent: bool | None = None,
        expect: Iterable[int] = (200, 201, 202, 204),
        decode: bool = True,
        timeout: Timeout = _AS_CLIENT,
        total_timeout: float | None = _AS_CLIENT,
        stream: Literal[False] = False,
    ) -> Response: ...

    @overload
    def request(
        self,
        op: str,
        method: str,
        path: str | None = None,
        *,
        at: Mapping[str, Value] | None = None,
        link: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = _AS_CLIENT,
        anonymous: bool = False,
        idempotent: bool | None = None,
        expect: Iterable[int] = (200, 201, 202, 204),
        decode: bool = True,
        timeout: Timeout = _AS_CLIENT,
        total_timeout: float | None = _AS_CLIENT,
        stream: Literal[True],
    ) -> Stream: ...

    def request(
        self,
        op: str,
        method: str,
        path: str | None = None,
        *,
        at: Mapping[str, Value] | None = None,
        link: str | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = _AS_CLIENT,
        anonymous: bool = False,
        idempotent: bool | None = None,
        expect: Iterable[int] = (200, 201, 202, 204),
        decode: bool = True,
        timeout: Timeout = _AS_CLIENT,
        total_timeout: float | None = _AS_CLIENT,
        stream: bool = False,
    ) -> Response | Stream:
        """The answer to one call; an error of the tree for a status that is not in *expect*.

        *op*: the stable name for metrics, logs, errors and `paths=`. *path*: a template when
        `PATHS` has none of that name; *at*: its values, each quoted to stay what it is meant to
        be. *link*: in place of a path, a URL that the service has sent; ForeignLink, before
        anything is sent, when it leads to another origin. *anonymous*: without the client's
        credential and headers, and then a link may lead anywhere.
        *params*: the query; None is left out, a list repeats its key, a bool is true or false.
        *json*, *data*, *files*: as in requests. *auth*: in place of the client's.
        *idempotent*: whether it may be sent twice; None lets the method decide.
        *decode*: the body is JSON, and `data` is what it holds. *stream*: the body is not read;
        the result is a `Stream`, to be closed. *timeout*, *total_timeout*: in place of the
        client's.
        """
        urls = (
            self._urls(op, path, at or {})
            if link is None
            else (self._followed(op, method, link, anonymous),)
        )
        given = None if anonymous else self._auth
        call = Call(
            self,
            op,
            method,
            urls,
            params=list(query(params or {})),
            body={"json": json, "data": data, "files": files},
            headers={**({} if anonymous else self._headers), **(headers or {})},
            auth=given if auth is _AS_CLIENT else auth,
            anonymous=anonymous,
            idempotent=method in _IDEMPOTENT if idempotent is None else idempotent,
            expect=frozenset(expect),
            decode=decode and not stream,
            stream=stream,
            timeout=self._timeout if timeout is _AS_CLIENT else pair(timeout),
            request_id=_new_id(),
        )
        total = self._total_timeout if total_timeout is _AS_CLIENT else total_timeout
        with deadline(total, clock=self._clock):
            result = self._policy(call)
        if isinstance(result, YandexError):
            raise result
        return result

    def pager(
        self,
        strategy: Strategy,
        op: str,
        method: str = "GET",
        *,
        of: Callable[[Any], T],
        limit: int | None = None,
        params: Mapping[str, Any] | None = None,
        **request: Any,
    ) -> Pager[T]:
        """The items that *op* lists, each made by *of*; nothing is sent yet.

        *params* and *request* as in `request()`; links of the service come with parameters of
        their own.
        """

        def send(step: Step) -> Response:
            asked = None if step.link is not None else {**(params or {}), **step.params}
            answer: Response = self.request(op, method, link=step.link, params=asked, **request)
            return answer

        return Pager(send, strategy, of=of, limit=limit)

    def wait_for(
        self,
        op: str,
        ask: Callable[[], T],
        done: Callable[[T], bool],
        *,
        timeout: float | None,
        interval: float = 1.0,
        factor: float = 1.5,
        longest: float = 60.0,
        state: Callable[[T], str] = str,
    ) -> T:
        """What *ask* gives once it is *done*; WaitTimeout, with the last *state*, when it is late.

        *interval* seconds lie between the first two questions, each time *factor* as many, but
        not more than *longest*. A deadline from above that ends earlier is obeyed.
        """
        last = ""
        with deadline(timeout, clock=self._clock) as limit:
            while True:
                try:
                    found = ask()
                except DeadlineExceeded:
                    if limit is None or limit.remaining() > LATE:
                        raise  # the time of this question, not all of it
                    break
                if done(found):
                    return found
                last = state(found)
                left = interval if limit is None else limit.remaining()
                (self._sleep or time.sleep)(max(0.0, min(interval, left)))
                if limit is not None and limit.remaining() <= 0:
                    break
                interval = min(interval * factor, longest)
        where = Where(self.service, op)
        raise WaitTimeout("not over", where=where, state=self.shown(last), timeout=timeout)

    def check(self, response: Response, /) -> None:
        """For services that tell of failures inside of a 200: raise an error of the tree here.

        Called in each attempt with an expected status. ApiProtocolError, and an ApiResponseError
        with `temporary=True`, are tried again if the call is idempotent. `where` is filled in.
        """

    def parse_error(self, response: Response, /) -> ApiResponseError:
        """What a status that was not expected means. *response* is whole, and not decoded.

        This one takes the first of `message`, `msg`, `error_description`, `error`, `reason`,
        `detail` and `errorMessages`, else how the body begins. Secrets that the call had are
        masked afterwards, and `where` is filled in.
        """
        found = decoded_object(response)
        messages = [found[name] for name in _MESSAGES if isinstance(found.get(name), str)]
        several = found.get("errorMessages")
        if isinstance(several, list):
            messages += [str(message) for message in several]
        fields = found.get("errors")
        code = found.get("error")
        return self.error_for(
            response,
            messages[0] if messages else response.text or "no words in the answer",
            code=code if isinstance(code, str) else "",
            fields={str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {},
        )

    def error_for(
        self,
        response: Response,
        message: str,
        *,
        code: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> ApiResponseError:
        """An error of the class that the status of *response* has, for a `parse_error`."""
        from ._retry_after import retry_after

        fallback = ServerError if response.status >= 500 else self.error_class
        return self.error_classes.get(response.status, fallback)(
            message,
            where=response.where,
            status=response.status,
            code=code,
            fields=fields,
            body=response.text,  # cut when its secrets are masked: half of one would not be found
            retry_after=retry_after(response.headers.get("Retry-After")),
        )

    def shown(self, text: str, /) -> str:
        """*text* of the service as errors show it: short, in one line, the client's secrets as ***.

        For words that a client takes out of an answer of success; those of errors are masked.
        """
        headers = dict(self._headers)
        if self._auth is not None:
            with suppress(YandexError):  # nothing was sent, then
                self._auth.apply(headers)
        return shown_text(text, secrets_of_headers(headers))

    def close(self) -> None:
        """Close the connections of the client's own session; idempotent."""
        if self._owns_session:
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {shown_url(self._bases[0])}>"

    def _templates(self, others: Mapping[str, str]) -> dict[str, UrlTemplate]:
        templates = {op: UrlTemplate(path) for op, path in self.PATHS.items()}
        for op, path in others.items():
            if op not in templates:
                raise ValueError(f"paths has the unknown operation {op}")
            template = UrlTemplate(path)
            unknown = sorted(template.names - templates[op].names)
            if unknown:
                raise ValueError(f"paths.{op} has the unknown name {unknown[0]}")
            templates[op] = template
        return templates

    def _urls(self, op: str, path: str | None, at: Mapping[str, Value]) -> tuple[str, ...]:
        template = self._paths.get(op)
        if template is None:
            if path is None:
                raise ValueError(f"{self.service}: the operation {op} has no path")
            template = UrlTemplate(path)
        else:
            at = {name: value for name, value in at.items() if name in template.names}
        expanded = template.expand(**at)
        slash = "" if not expanded or expanded[0] in "/?" else "/"
        return tuple(base + slash + expanded for base in self._bases)

    def _followed(self, op: str, method: str, link: str, anonymous: bool) -> str:
        url = followed(link, self._bases[0], self._origins, anywhere=anonymous)
        if url is None:
            where = Where(self.service, op, method, shown_url(link))
            raise ForeignLink("the link leads to another host; it is not followed", where=where)
        return url


def decoded_object(response: Response) -> dict[str, Any]:
    """The JSON object in *response*, {} when it is something else."""
    from json import loads

    try:
        found = loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _new_id() -> str:
    """Of this call; with the id of the request that is being answered in front of it."""
    current = request_id.current()
    return request_id.new() if current is None else f"{current[:48]}.{request_id.new()[:8]}"
