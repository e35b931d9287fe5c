"""A web server with what every service needs: health, version, metrics, a stop that loses nothing.

    NEW ──start──► SERVING ──stop, or a signal in run──► DRAINING ──► STOPPED
     └───────────────────────────────stop──────────────────────────────►┘

DRAINING: /ping says 503, so that balancers look elsewhere, and each connection ends with its next
answer; after `drain_delay` no new ones are accepted and idle ones are closed; requests get
`stop_timeout` to end; those that do not are killed.
"""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import gevent
from gevent.event import Event

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._application import Application
from sepelib.flask.server._builtins import Builtins
from sepelib.flask.server._checks import Check, Checks
from sepelib.flask.server._door import Door
from sepelib.flask.server._from_config import options_from
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._listen import Listener, listen_tcp, listen_unix
from sepelib.flask.server._measures import Measures
from sepelib.flask.server._options import AdminOptions
from sepelib.flask.server._peers import UNIX, Networks, Peers
from sepelib.flask.server._signals import Signals
from sepelib.util.deadline import checked_seconds
from sepelib.util.instrument import AMBIENT, Recorder

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIApplication

    from sepelib.flask.server._config_pages import ConfigSource
    from sepelib.flask.server._metrics_pages import Exporter

__all__ = ["Server"]

log = logging.getLogger(__name__)

_ADMIN_STOP_TIMEOUT = 1.0


class _State(enum.Enum):
    NEW = "new"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


_MOVES = {
    _State.NEW: (_State.SERVING, _State.STOPPED),
    _State.SERVING: (_State.DRAINING,),
    _State.DRAINING: (_State.STOPPED,),
    _State.STOPPED: (),
}


class Server:
    """Serves *app*, a Flask or any WSGI application, or only the built-in handlers without one.

        server = Server(app, port=8080, version="1.2.3", metrics=metrics.default_registry)
        sys.exit(server.run())

    Listens at *host* and *port* (0: a free one), or at the socket file *unix*. Each connection is
    served in a greenlet: a process that is not patched by gevent works, one request at a time.

    *ssl_context*: TLS, of `gevent.ssl.SSLContext` unless the process is patched.
    *admin*: who may use the handlers for admins, perhaps with a listener of their own.
    *request_timeout*: what a request may take up to the first part of its answer, and again for
    each further part. That is its `deadline` (`sepelib.util.deadline`); an application that goes on
    is struck by RequestTimedOut up to a second later. Either way the client gets a 503. None: no
    limit.
    *drain_delay*, *stop_timeout*: seconds, see above.
    *access_log*: True is AccessLog(), to the logger "sepelib.flask.access"; False is none.
    *version*, *commit*: for /version. *metrics*: for /metrics. *config*: for /config/.
    *trusted_proxies*: networks whose X-Forwarded-For and X-Forwarded-Proto are believed; then
    REMOTE_ADDR and wsgi.url_scheme are those of the client. Nobody else's are.

    Sharing: greenlets of one thread. As a context manager it starts at entry and stops at exit.
    """

    def __init__(
        self,
        app: WSGIApplication | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: str | None = None,
        unix_mode: int = 0o660,
        ssl_context: ssl.SSLContext | None = None,
        admin: AdminOptions | None = None,
        limits: Limits | None = None,
        request_timeout: float | None = 60.0,
        drain_delay: float = 3.0,
        stop_timeout: float = 30.0,
        access_log: bool | AccessLog = True,
        version: str | None = None,
        commit: str | None = None,
        metrics: Exporter | None = None,
        recorder: Recorder = AMBIENT,
        config: ConfigSource | None = None,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._host = host
        self._port = port
        self._unix = unix
        self._unix_mode = unix_mode
        self._ssl_context = ssl_context
        self._admin = AdminOptions() if admin is None else admin
        self._limits = Limits() if limits is None else limits
        self._drain_delay = checked_seconds(drain_delay, "drain_delay")
        self._stop_timeout = checked_seconds(stop_timeout, "stop_timeout")
        self._access_log = AccessLog() if access_log is True else access_log or None
        self._recorder = recorder
        self._checks = Checks()
        self._state = _State.NEW
        self._stopped = Event()
        self._main: Door | None = None
        self._back: Door | None = None

        proxies = Networks(trusted_proxies)
        measures = Measures(recorder)

        def application(
            app: WSGIApplication | None, admins: Sequence[str], *, has_all: bool
        ) -> Application:
            builtins = Builtins(
                has_all=has_all,
                is_draining=lambda: self.draining,
                checks=self._checks,
                version=version,
                commit=commit,
                started_at=started_at,
                config=config,
                metrics=metrics,
            )
            return Application(
                app,
                builtins=builtins,
                peers=Peers(Networks(admins), proxies),
                measures=measures,
                request_timeout=request_timeout,
            )

        started_at = datetime.now(UTC)
        networks, has_back = self._admin.networks, self._admin.listens
        self._application = application(app, networks, has_all=not has_back)
        behind_file = [UNIX] if self._admin.unix is not None else []
        self._back_application = application(None, [*networks, *behind_file], has_all=True)

    @classmethod
    def from_config(
        cls, config: Any, key: str = "web.http", *, app: WSGIApplication | None = None, **kw: Any
    ) -> Self:
        """A server of what stands below *key* in *config*; *kw* wins.

        *config* is `sepelib.core.config` or a `Config`; /config/ shows it. The names are those of
        this class and of `Limits`; times and sizes may have units (`30s`, `16MiB`). Further there
        are `admin: {networks: [...], host, port, unix, unix_mode}`, `access_log: combined`, `json`
        or a boolean, and `tls: {certificate: FILE, key: FILE}`. A name that is not known, or a
        value that does not fit, is a ConfigError with its place.
        """
        return cls(app, **{"config": config} | options_from(config, key) | kw)

    # -- What it serves.

    @property
    def wsgi_app(self) -> WSGIApplication:
        """All of it but the listening, for another WSGI server such as gunicorn.

        Limits, the drain and the admin listener are that server's then, and what acts on a process
        (/reopen_log) acts on one worker.
        """
        return self._application

    def add_check(
        self,
        name: str,
        fn: Callable[[], object],
        *,
        timeout: float = 1.0,
        cache: float = 1.0,
        critical: bool = True,
    ) -> None:
        """Let /ping ask *fn*, which raises or returns False when something is wrong.

        It has *timeout* seconds, also as its deadline; its verdict holds for *cache* seconds.
        Beware of critical checks of what is shared: when a database fails, they take away all
        replicas at once, also what they could still do without it. *critical* False only shows in
        `/ping?verbose=1`. ValueError for a name that is taken.
        """
        self._checks.add(Check(name, fn, timeout, cache, critical))

    # -- Where.

    @property
    def port(self) -> int | None:
        """The port it listens at, from start() on; None at a unix socket."""
        return self._port if self._main is None else self._main.port

    @property
    def address(self) -> tuple[str, int] | str:
        """Host and port, or the path of the socket file. RuntimeError before start()."""
        return self._started(self._main).address

    @property
    def url(self) -> str:
        """Of the main listener, without a slash at its end. RuntimeError before start()."""
        return self._started(self._main).url

    @property
    def admin_url(self) -> str:
        """Of the listener that has all built-in handlers: the admin's, else the main one."""
        return self._started(self._back or self._main).url

    @staticmethod
    def _started(door: Door | None) -> Door:
        if door is None:
            raise RuntimeError("the server was not started: it has no address yet")
        return door

    # -- Its life.

    @property
    def draining(self) -> bool:
        """Whether it is on its way out, or stopped."""
        return self._state in (_State.DRAINING, _State.STOPPED)

    def start(self) -> None:
        """Listen and serve; returns at once. Raises CannotListen, and listens nowhere then."""
        if self._state is not _State.NEW:
            raise RuntimeError(f"a server starts once, and this one is {self._state.value}")
        with ExitStack() as undo:
            self._main = self._open_main()
            undo.callback(self._main.stop, 0.0)
            if self._admin.listens:
                self._back = self._open_back(self._admin)
                undo.callback(self._back.stop, 0.0)
            for door in self._doors():
                door.server.start()
            undo.pop_all()
        self._move(_State.SERVING)
        log.info("serving at %s", " and ".join(door.url for door in self._doors()))
        _warn_unless_patched()

    def stop(self, timeout: float | None = None) -> None:
        """Drain and stop; returns when all is closed. Idempotent: a second caller waits as well.

        *timeout*: seconds for requests under way, after the drain delay; default `stop_timeout`.
        """
        if self._state is _State.NEW:
            self._move(_State.STOPPED)
            self._stopped.set()
        if self._state is _State.SERVING:
            self._drain(self._stop_timeout if timeout is None else timeout)
        # Not without a limit: in a process where all wait for one another, nothing but a timer
        # keeps the hub from giving up.
        while not self._stopped.wait(60.0):
            pass

    def _drain(self, timeout: float) -> None:
        main = self._started(self._main)
        self._move(_State.DRAINING)
        try:
            # Idle connections stay until then: of those that are in use, a request may be on its
            # way. Each ends with its next answer.
            gevent.sleep(self._drain_delay)
            main.stop(timeout)
        except BaseException:
            main.stop(0.0)
            raise
        finally:
            # Last, so that the drain can be watched.
            if self._back is not None:
                self._back.stop(_ADMIN_STOP_TIMEOUT)
            self._move(_State.STOPPED)
            self._stopped.set()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, and return the exit status, 0.

        A second signal ends the process at once, with 128 and its number. SIGUSR1 reopens log
        files, as /reopen_log does. For the main thread; starts the server unless it is started; the
        former signal handlers are back when it returns. Also returns after a `stop()`.
        """
        signals = Signals()
        with signals.handled():
            if self._state is _State.NEW:
                self.start()
            self._stopped.rawlink(lambda _: signals.news.set())
            signals.wait(until=self._stopped.is_set)
            self.stop()
        return 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- Below.

    def _doors(self) -> list[Door]:
        return [door for door in (self._main, self._back) if door is not None]

    def _open_main(self) -> Door:
        if self._unix is not None:
            listener = listen_unix(self._unix, self._unix_mode, self._limits.backlog)
        else:
            listener = listen_tcp(self._host, self._port, self._limits.backlog)
        return self._open(listener, self._application, self._ssl_context)

    def _open_back(self, admin: AdminOptions) -> Door:
        if admin.unix is not None:
            listener = listen_unix(admin.unix, admin.unix_mode, self._limits.backlog)
        else:
            listener = listen_tcp(admin.host, admin.port or 0, self._limits.backlog)
        return self._open(listener, self._back_application, admin.ssl_context)

    def _open(
        self, listener: Listener, application: Application, context: ssl.SSLContext | None
    ) -> Door:
        return Door(
            listener,
            application,
            limits=self._limits,
            access_log=self._access_log,
            recorder=self._recorder,
            ssl_context=context,
        )

    def _move(self, state: _State) -> None:
        assert state in _MOVES[self._state], f"{self._state} to {state}"
        self._state = state
        self._application.draining = self._back_application.draining = self.draining
        log.debug("server: %s", state.value)


def _warn_unless_patched() -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        log.warning(
            "gevent has not patched this process: whatever blocks in a request blocks all others; "
            "let the first line of the program be: from gevent import monkey; monkey.patch_all()"
        )
