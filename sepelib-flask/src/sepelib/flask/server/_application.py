"""What stands around the application: request ids, time limits, metrics, pages for its failures.

    request ─► id, client's address ─► built-in handler? ─► its answer
                                   └─► a place for it? ─► application ─► its answer, or a page

A plain WSGI callable: all of it works under any server, as far as that one lets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from sepelib.flask.server._answers import Answer, page, send
from sepelib.flask.server._builtins import Ask, Builtins, Route
from sepelib.flask.server._failures import FlaskFailures, answer_to, rule_of
from sepelib.flask.server._measures import Measures
from sepelib.flask.server._overdue import Overdue
from sepelib.flask.server._peers import Peers
from sepelib.util import request_id
from sepelib.util.deadline import checked_seconds, deadline
from sepelib.util.exceptions import note

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Application"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_GRACE = 1.0  # seconds after its deadline in which a request can say itself what was late
_END: Any = object()
_CANCELLED = "cancelled"  # of a request that was killed before it had a status
_FAILED = frozenset({_CANCELLED, "500", "503"})


class Application:
    """The WSGI application of a Server; *app* None: there are only the built-in handlers.

    *request_timeout*: for the call of *app* up to the first part of its answer, and anew for each
    further part of an answer that is streamed.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        *,
        builtins: Builtins,
        peers: Peers,
        measures: Measures,
        request_timeout: float | None,
    ) -> None:
        self.app = app
        self.measures = measures
        self._builtins = builtins
        self._peers = peers
        self._resolve = peers.resolve if peers.has_proxies else None
        self.draining = False  # set by the server that drains; not under another one
        self._failures = FlaskFailures(app)  # kept: the signal it listens to holds it weakly
        self._timeout = request_timeout
        self._overdue: Overdue | None = None
        if request_timeout is not None:
            timeout = checked_seconds(request_timeout, "request_timeout")
            if not timeout:
                raise ValueError("a request_timeout is more than 0 seconds; None is no limit")
            self._overdue = Overdue(timeout + min(_MOST_GRACE, timeout / 10))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = request_id.accepted(environ.get("HTTP_X_REQUEST_ID"))
        environ["sepelib.request_id"] = name = given or request_id.new()
        if self._resolve is not None:
            self._resolve(environ)
        route = self._builtins.find(environ.get("PATH_INFO", ""))
        if route is not None:
            answer = self._ask(route, environ)
            if self.draining:
                _end_connection(environ)
            return send(answer, environ, start_response)
        if environ.get("sepelib.over_limit"):
            return send(self._refused(environ), environ, start_response)
        if self.app is None:
            return send(self._nothing(environ), environ, start_response)
        return _Run(self, self.app, environ, start_response, name).begin()

    def _ask(self, route: Route, environ: WSGIEnvironment) -> Answer:
        started = time.perf_counter()
        try:
            with request_id.using(environ["sepelib.request_id"]):
                answer = self._asked(route, environ)
        except Exception:
            log.exception("request %s: %s failed", environ["sepelib.request_id"], route.label)
            answer = page(500, environ)
        self.measures.count(route.label, environ["REQUEST_METHOD"], str(answer.status), started)
        return answer

    def _asked(self, route: Route, environ: WSGIEnvironment) -> Answer:
        if environ["REQUEST_METHOD"] not in route.methods:
            allowed = ", ".join(route.methods)
            words = f"{route.label} is for {allowed}{route.hint}."
            return page(405, environ, words, (("Allow", allowed),))
        is_admin = self._peers.is_admin(environ)
        if route.for_admins and not is_admin:
            return page(403, environ, f"{route.label} is for the networks of admins.")
        try:
            ask = Ask.of(environ, is_admin)
        except ValueError:
            return page(400, environ, "The query has too many fields.")
        return route.handle(ask)

    def _refused(self, environ: WSGIEnvironment) -> Answer:
        self.measures.reject("connections")
        headers = (("Retry-After", "1"), ("Connection", "close"))
        return page(503, environ, "All connections are in use. Try again later.", headers)

    def _nothing(self, environ: WSGIEnvironment) -> Answer:
        started = time.perf_counter()
        answer = page(404, environ, f"There is {', '.join(self._builtins.paths)}.")
        self.measures.count("unmatched", environ["REQUEST_METHOD"], "404", started)
        return answer

    def in_time(self, run: _Run, step: Callable[..., T], *arguments: Any) -> T:
        """*step*, which finds its time as its deadline, and is struck when it takes longer."""
        if self._overdue is None:
            return step(*arguments)
        with deadline(self._timeout):
            return self._overdue.bounded(run, step, *arguments)

    def bounded(self, run: _Run, step: Callable[..., T]) -> T:
        """*step*, which is struck when it takes too long. For one that asks nothing of others."""
        return step() if self._overdue is None else self._overdue.bounded(run, step)


class _Run:
    """One request with the application; also the answer's body, when that comes in parts.

    It ends once, however that comes: by a list, which is complete; by a page for a failure; by
    `close()`, which PEP 3333 promises for all else; or by what kills the greenlet.
    """

    # Of the class until they are set: most requests set few of them.
    struck_by: BaseException | None = None
    _status = _CANCELLED
    _replaced: tuple[int, str | None] | None = None
    _result: Any = None
    _rule: Any = None
    _parts: Iterator[bytes] | None = None
    _first: Any = None
    _length: str | None = None
    _is_whole = False  # all that the answer's length promises was in its first part
    _over = False

    def __init__(
        self,
        application: Application,
        app: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        name: str,
    ) -> None:
        self.request_id = name
        self._application = application
        self._app = app
        self._environ = environ
        self._start_response = start_response
        self._binding = request_id.using(name)
        self._started = time.perf_counter()

    def begin(self) -> Iterable[bytes]:
        application = self._application
        application.measures.in_flight.inc()
        self._binding.__enter__()
        try:
            application.in_time(self, self._call)
        except BaseException as error:
            if isinstance(error, Exception) or error is self.struck_by:
                return self._page(answer_to(error, self._environ), error)
            self.close()  # nobody else will: the server has not got it
            raise
        if self._replaced is not None:
            status, words = self._replaced
            return self._page(page(status, self._environ, words))
        if self._parts is None:
            self._end()
            parts: Iterable[bytes] = self._result
            return parts
        return self

    def _call(self) -> None:
        self._result = result = self._app(self._environ, self._start)
        # The first part now, so that its failure can still become a page.
        if self._replaced is None and type(result) is not list and type(result) is not tuple:
            self._parts = iter(result)
            self._first = first = next(self._parts, _END)
            self._is_whole = first is _END or self._length == str(len(first))

    def _start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: Any = None,
        /,
    ) -> Callable[[bytes], object]:
        if status[:1] == "5":
            self._replaced = self._environ.get("sepelib.failure")
            if self._replaced is not None:
                return _thrown_away
        if self._application.draining:
            _end_connection(self._environ)
        self._status = status[:3]
        # Flask's request, which it takes away when it has answered: so no second matching.
        request = self._environ.get("werkzeug.request")
        self._rule = getattr(request, "url_rule", None)
        is_named = False
        for name, value in headers:
            name = name.lower()
            if name == "content-length":
                self._length = value
            elif name == "x-request-id":
                is_named = True
        if not is_named:
            headers = [*headers, ("X-Request-Id", self.request_id)]
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _page(self, answer: Answer, error: BaseException | None = None) -> Iterable[bytes]:
        """Send *answer* in place of the application's."""
        try:
            try:
                self._close_result()
            except Exception:
                log.exception("request %s: closing the answer failed", self.request_id)
            self._status = str(answer.status)
            if self._application.draining:
                _end_connection(self._environ)
            exc_info: Any = error and (type(error), error, error.__traceback__)
            return send(answer, self._environ, self._start_response, exc_info)
        finally:
            self._end()

    def _close_result(self) -> None:
        close = getattr(self._result, "close", None)
        self._result = self._parts = None
        if close is not None:
            self._application.bounded(self, close)

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            self._binding.__exit__(None, None, None)
        except ValueError:
            log.debug("request %s ended in another context than it began in", self.request_id)
        measures = self._application.measures
        measures.in_flight.dec()
        environ = self._environ
        rule = self._rule
        if rule is None and self._status in _FAILED:
            rule = rule_of(self._app, environ)
        endpoint = "unmatched" if rule is None else rule.rule
        measures.count(endpoint, environ["REQUEST_METHOD"], self._status, self._started)

    # -- The body, for the server.

    def __iter__(self) -> Iterator[bytes]:
        if self._parts is None:
            return iter(())
        first: Iterable[bytes] = () if self._first is _END else (self._first,)
        # When the first part was all that the answer's length promises, nothing is asked of others
        # any more: the rest, which is an end most likely, need not be watched.
        return chain(first, self._parts if self._is_whole else iter(self._next, _END))

    def _next(self) -> Any:
        try:
            return self._application.in_time(self, next, self._parts, _END)
        except BaseException as error:
            # Too late for a page: the server logs it, and cuts the answer off.
            if isinstance(error, Exception) or error is self.struck_by:
                note(error, f"request {self.request_id}")
            raise

    def close(self) -> None:
        """PEP 3333's: the server calls it once, however the answer ended."""
        try:
            self._close_result()
        finally:
            self._end()


def _end_connection(environ: WSGIEnvironment) -> None:
    """Before each answer of a server that drains: it is the last one of its connection.

    So clients that are busy leave with an answer, and the connections that are closed at the end of
    the drain's delay are those on which nothing comes.
    """
    environ["sepelib.connection"].close_after_answer()


def _thrown_away(data: bytes) -> None:
    """The write() of an answer that is replaced."""
