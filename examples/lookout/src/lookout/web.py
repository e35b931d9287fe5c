"""The status page and the same as JSON. The server adds /ping, /metrics and the like."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import flask

from lookout import plot, view
from lookout.ledger import Ledger
from lookout.silences import Silence
from lookout.targets import Target
from lookout.voices import Voices
from sepelib.flask import h

__all__ = ["make_app"]

LONG_AGO = datetime.min.replace(tzinfo=UTC)


def make_app(
    targets: Callable[[], Sequence[Target]],
    voices: Voices,
    ledger: Callable[[], Ledger],
    health: Callable[[], dict[str, Any]],
    cluster: Callable[[], dict[str, Any] | None],
    *,
    silences: Callable[[], Sequence[Silence]],
    origins: Callable[[], Mapping[str, str]],
) -> flask.Flask:
    """The WSGI application. *targets*, *ledger*, *silences*: those of the moment.

    health: what lookout has to say about itself, added to the status.
    cluster: who does what; None where this is the only replica.
    origins: where targets are from, by their names.
    """
    app = flask.Flask(__name__)
    h.errors.register(app)
    app.jinja_env.filters["duration"] = view.duration
    app.jinja_env.filters["latency"] = view.latency
    app.jinja_env.filters["moment"] = _moment
    script = (resources.files("lookout") / "templates" / "status.js").read_text("utf-8")
    # What a target answers is never put on the page; should that change, nothing runs. Allowed by
    # its hash, since a nonce would make each page another one.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'; frame-ancestors 'none'"
    )

    def status(now: datetime | None = None) -> dict[str, Any]:
        shown = view.status(
            targets(), voices, ledger(), silences=silences(), origins=origins(), now=now
        )
        return shown | health()

    @app.get("/")
    def page() -> flask.Response:
        body = flask.render_template(
            "status.html",
            script=script,
            width=plot.WIDTH,
            height=plot.HEIGHT,
            slots=view.SHOWN_RESULTS,
            plots={
                t.name: plot.plot(list(voices.shown(t).results), view.SHOWN_RESULTS, t.max_latency)
                for t in targets()
            },
            **status(),
        )
        tag = h.etag(body)
        h.not_modified_if(tag)
        return flask.Response(body, headers={"ETag": tag, "Content-Security-Policy": policy})

    @app.get("/api/v1/status")
    @h.json_api
    def api_status() -> flask.Response:
        # Weak, and not of what the clock alone changes: who has seen all that has happened, has it.
        tag = h.etag(status(LONG_AGO) | {"uptime": None}, weak=True)
        h.not_modified_if(tag)
        return h.json_response(status(), ETag=tag)

    @app.get("/api/v1/cluster")
    @h.json_api
    def api_cluster() -> flask.Response:
        found = cluster()
        if found is None:
            raise h.errors.NotFound("this is the only replica: no zookeeper is configured")
        return h.json_response(found)

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        response.headers.setdefault("Cache-Control", "no-cache")  # kept, and asked for each time
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def _moment(text: str | None) -> str:
    """`23 Nov 04:31:07`, UTC."""
    return "-" if text is None else f"{datetime.fromisoformat(text):%-d %b %H:%M:%S}"
