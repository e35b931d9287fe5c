"""The status page, the same as JSON, and /ping. Thin: to be replaced by a real server."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import flask
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from lookout import plot, view
from lookout.records import History
from lookout.settings import Target

__all__ = ["make_app", "make_server"]

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 100


def make_app(
    targets: Callable[[], Sequence[Target]],
    history: History,
    health: Callable[[], dict[str, Any]],
) -> flask.Flask:
    """The WSGI application. *targets*: those of the moment.

    health: what lookout has to say about itself, added to the status.
    """
    app = flask.Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.filters["duration"] = view.duration
    app.jinja_env.filters["latency"] = view.latency
    app.jinja_env.filters["moment"] = _moment

    def status() -> dict[str, Any]:
        return view.status(targets(), history) | health()

    @app.get("/")
    def page() -> flask.Response:
        nonce = secrets.token_urlsafe(12)
        body = flask.render_template(
            "status.html",
            nonce=nonce,
            width=plot.WIDTH,
            height=plot.HEIGHT,
            slots=view.SHOWN_RESULTS,
            plots={
                t.name: plot.plot(
                    list(history.record(t.name).results), view.SHOWN_RESULTS, t.max_latency
                )
                for t in targets()
            },
            **status(),
        )
        response = flask.make_response(body)
        # What a target answers is never put on the page; should that change, nothing runs.
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; connect-src 'self'; img-src data:; "
            f"style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; frame-ancestors 'none'"
        )
        return response

    @app.get("/api/v1/status")
    def api_status() -> flask.Response:
        return flask.jsonify(status())

    @app.get("/ping")
    def ping() -> flask.Response:
        return flask.Response("pong\n", mimetype="text/plain")

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def make_server(listener: socket.socket, app: flask.Flask) -> WSGIServer:
    """A server on *listener*, not started. The caller stops it, which closes the listener."""
    return WSGIServer(listener, app, spawn=Pool(MAX_CONNECTIONS), log=None, error_log=log)


def _moment(text: str | None) -> str:
    """`23 Nov 04:31:07`, UTC."""
    return "-" if text is None else f"{datetime.fromisoformat(text):%-d %b %H:%M:%S}"
