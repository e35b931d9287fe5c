"""The base of all fakes: routes, state, journal, faults, a clock, and two ways to be reached."""

from __future__ import annotations

import datetime as dt
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from sepelib.util.testing import Clock

from ._calls import Calls
from ._faults import Faults, Outcome
from ._request import FakeRequest, Refusal, Reply
from ._routes import Route, Router, unknown_parameters

if TYPE_CHECKING:
    import requests

    from ._live import LiveServer

__all__ = ["EPOCH", "Delivery", "FakeService"]

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""What `now` is while a fake's own clock is at zero."""

StateT = TypeVar("StateT")

_BODY_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data",
}


class Delivery(NamedTuple):
    """What goes back to the client, and how late; no *reply*: a reset instead."""

    reply: Reply | None
    delay: float
    drip: float


class FakeService(Generic[StateT]):
    """A service in this process; a subclass has its routes and its state.

        class FakeGreeter(FakeService[GreeterState]):
            service = "greeter"

            def new_state(self) -> GreeterState:
                return GreeterState()

            @route("GET", "/v1/users/{login}", op="users.get")
            def _get(self, request: FakeRequest) -> object:
                user = self.state.users.get(request.args["login"])
                if user is None:
                    raise Refusal(404, "not_found", "no such user")
                return user             # JSON and 200, or a Reply

        fake = FakeGreeter()
        fake.session().get(fake.url + "/v1/users/ann", headers=…)       # in-process: no socket
        with fake.serve() as url:                                       # over HTTP
            ...

    *strict* (the default): a path that no route has is answered by 501 and makes `check()` fail;
    an unknown parameter, another Content-Type and missing credentials are the service's own
    errors. Else such a path is a 404 and the rest is let pass.
    *clock*: the time of the service, shared with somebody; by default an own one, at zero.

    A fake is one service: its routes run one at a time, whatever threads or greenlets ask. Tests
    may change `state` as they like while nobody asks.
    """

    service: ClassVar[str] = ""
    """The name of the client's module."""
    prefix: ClassVar[str] = ""
    """The path that the base URL of the service ends with; the routes are below it."""

    _routes: ClassVar[list[Route]] = []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        routes: dict[str, list[Route]] = {}
        for base in reversed(cls.__mro__):
            for name, member in vars(base).items():
                if name in routes or hasattr(member, "_routes"):
                    routes[name] = getattr(member, "_routes", routes.get(name, []))
        cls._routes = [
            found._replace(handler=getattr(cls, name))
            for name, several in routes.items()
            for found in several
        ]

    def __init__(self, *, strict: bool = True, clock: Clock | None = None) -> None:
        self.strict = strict
        self.server: LiveServer | None = None
        """The server behind `serve()`: its `connections`, `refuse()`, `restart()`."""
        self._router = Router([*self._routes, *self.extra_routes()], self.prefix)
        self._mind = threading.RLock()  # one request at a time; never held while waiting
        self._given_clock = clock
        self._down = False
        self.reset()

    # What a subclass writes.

    def new_state(self) -> StateT:
        """The state of the service at its start."""
        raise NotImplementedError(f"{type(self).__name__} does not say its new_state()")

    def extra_routes(self) -> list[Route]:
        """Routes beside those of the decorated methods. Called once, before `reset()`."""
        return []

    def authorize(self, request: FakeRequest) -> None:
        """Raise Refusal unless the request shows who asks; not called when not strict."""
        if request.token not in self.tokens:
            raise Refusal(401, "unauthorized", "a valid OAuth token is needed")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        """A refusal in the words of the service; here the house's."""
        body = {"error": refusal.code, "message": refusal.message, "details": refusal.details}
        return Reply(refusal.status, json=body, headers=refusal.headers)

    def no_route(self, request: FakeRequest) -> Refusal:
        """What is answered, unless strict, where no route is."""
        return Refusal(404, "not_found", f"no {request.method} {request.path} here")

    def catch_up(self) -> None:
        """Let happen what is due by the clock. Called before each request."""

    def config(self) -> dict[str, Any]:
        """A config section that points the client of this service here."""
        return {"url": self.url, "auth": {"type": "oauth", "token": self.token}}

    # What a test uses.

    def reset(self, *, clock: Clock | None = None) -> None:
        """As new: state, journal, faults, problems, tokens, and the clock unless it was given.

        *clock*: from now on this one is the given one.
        """
        self.down = False
        with self._mind:
            self._given_clock = clock or self._given_clock
            self.clock = Clock(0.0) if self._given_clock is None else self._given_clock
            self.token = f"fake-{self.service}-token"
            """The token that `config()` has."""
            self.tokens = {self.token}
            """The OAuth tokens that are accepted."""
            self.calls = Calls()
            self.faults = Faults(lambda: self.clock.now)
            self.problems: list[str] = []
            """What `check()` complains about."""
            self.state = self.new_state()

    def check(self) -> None:
        """AssertionError when somebody asked for what is not here, or a route broke."""
        if self.problems:
            raise AssertionError(f"{type(self).__name__}: " + "; ".join(self.problems))

    @property
    def down(self) -> bool:
        """Whether connections are refused. Setting it also ends those that are open."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        if self.server is not None and down is not self._down:
            if down:
                self.server.stop()
            else:
                self.server.start()
        self._down = down

    @property
    def now(self) -> dt.datetime:
        """The time of the service, aware, UTC."""
        return EPOCH + dt.timedelta(seconds=self.clock.now)

    @property
    def root(self) -> str:
        """scheme://host[:port] of this fake: of its server while it is served."""
        if self.server is not None:
            return f"http://{self.server.host}:{self.server.port}"
        return f"http://{self.service.replace('_', '-')}.test"

    @property
    def url(self) -> str:
        """The base URL for the client."""
        return self.root + self.prefix

    @property
    def ops(self) -> list[str]:
        """The names of all operations."""
        return self._router.ops

    def session(self, *, sleep: Callable[[float], object] | None = None) -> requests.Session:
        """A session that reaches this fake at its `url`, and in-process nothing else.

        *sleep* as in `adapter()`.
        """
        import requests

        session = requests.Session()
        session.trust_env = False
        if self.server is None:
            session.adapters.clear()
            session.mount(self.root, self.adapter(sleep=sleep))
        return session

    def adapter(
        self, *, sleep: Callable[[float], object] | None = None
    ) -> requests.adapters.BaseAdapter:
        """A transport adapter that asks this fake without a socket, whatever the host is.

        *sleep* is what a delayed answer takes, by default that of `time`.
        """
        from ._adapter import FakeAdapter

        return FakeAdapter(self, sleep=sleep)

    def serve(self) -> AbstractContextManager[str]:
        """Serve over HTTP on a port of the loopback: `with fake.serve() as url`.

        While it is served, `url`, `session()` and `config()` mean the server.
        """
        return self._serve()

    @contextmanager
    def _serve(self) -> Iterator[str]:
        from ._live import LiveServer

        if self.server is not None:
            raise RuntimeError(f"{type(self).__name__} is served at {self.url} already")
        with LiveServer(self) as server:
            self._down = False
            self.server = server
            try:
                yield self.url
            finally:
                self.server = None

    # For the transports.

    def answer(self, request: FakeRequest) -> Delivery:
        """What becomes of *request*, faults included. What a route raises comes through."""
        with self._mind:
            found = self._router.find(request)
            call = self.calls.add(request, self.clock.now)
            self.catch_up()
            outcome = self.faults.take(request.op)
            proper = None
            if outcome.applies:
                call.applied = True
                proper = self._proper(found, request)
            call.reply = self._disturbed(proper, outcome, request)
            return Delivery(call.reply, outcome.delay, outcome.drip)

    def _proper(self, found: Route | None, request: FakeRequest) -> Reply:
        try:
            if found is None:
                raise self._nowhere(request)
            if self.strict:
                self._validate(found, request)
            answer = found.handler(self, request)
        except Refusal as refusal:
            return self.render(refusal, request)
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-2:]).strip()
            self.problems.append(f"{request.op} broke: {where}")
            raise
        return answer if isinstance(answer, Reply) else Reply(json=answer)

    def _nowhere(self, request: FakeRequest) -> Refusal:
        if not self.strict:
            return self.no_route(request)
        asked = f"no route for {request.method} {request.path}"
        self.problems.append(asked)
        return Refusal(501, "not_implemented", f"{type(self).__name__} has {asked}")

    def _validate(self, found: Route, request: FakeRequest) -> None:
        if found.auth:
            self.authorize(request)
        unknown = unknown_parameters(found, request)
        if unknown:
            raise Refusal(400, "unknown_parameter", f"unknown parameter {unknown[0]}")
        if found.body is None:
            return
        if request.content_type != _BODY_TYPES[found.body]:
            raise Refusal(
                415, "unsupported_media_type", f"the body must be {_BODY_TYPES[found.body]}"
            )
        if found.body == "json" and request.json is None:
            raise Refusal(400, "malformed_json", "the body is not JSON")

    def _disturbed(
        self, proper: Reply | None, outcome: Outcome, request: FakeRequest
    ) -> Reply | None:
        if outcome.reset is not None:
            return None
        if outcome.status is not None:
            if outcome.body is not None:
                return Reply(outcome.status, body=outcome.body, headers=outcome.headers)
            refusal = Refusal(
                outcome.status, "fault", "this fault was asked for", headers=outcome.headers
            )
            return self.render(refusal, request)
        assert proper is not None
        if outcome.body is not None:
            return Reply(proper.status, body=outcome.body, headers=proper.headers)
        return proper
