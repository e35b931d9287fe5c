"""A web server for a Flask, or any WSGI application, on gevent.

    from sepelib.flask.server import Server

    server = Server(app, port=8080, version="1.2.3")
    sys.exit(server.run())          # until SIGTERM; then it drains

It has /ping, /version, /config/, /reopen_log, /metrics, /yasm_stats and /unistat, limits in time
and size for whatever a client does, request ids, time limits for requests, an access log, metrics
of its own, and a stop that loses no request.
"""

from sepelib.flask.server._access_log import AccessLog
from sepelib.flask.server._config_pages import ConfigSource
from sepelib.flask.server._errors import CannotListen, RequestTimedOut
from sepelib.flask.server._limits import Limits
from sepelib.flask.server._metrics_pages import Exporter
from sepelib.flask.server._options import AdminOptions
from sepelib.flask.server._reopen import Reopened, reopen_logs
from sepelib.flask.server._server import Server

__all__ = [
    "AccessLog",
    "AdminOptions",
    "CannotListen",
    "ConfigSource",
    "Exporter",
    "Limits",
    "Reopened",
    "RequestTimedOut",
    "Server",
    "reopen_logs",
]
