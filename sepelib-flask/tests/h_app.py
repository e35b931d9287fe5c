"""An application whose answers break in every way, for test_h_over_http.py.

python h_app.py PORT server|pywsgi|gevent|gthread
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

# gunicorn's gevent worker patches by itself, its gthread one is not to be patched.
if __name__ == "__main__" and sys.argv[2] in ("server", "pywsgi"):
    from gevent import monkey

    monkey.patch_all()

from sepelib.flask import h
from sepelib.util import request_id

logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO)
app = Flask(__name__)
h.errors.register(app)
closed: list[str] = []


def with_id(environ: Any, start_response: Any) -> Any:
    """As a server does it: the id is bound while the answer is made and while it is sent."""
    with request_id.using(request_id.accepted(environ.get("HTTP_X_REQUEST_ID"))):
        answer = application(environ, start_response)
        try:
            yield from answer
        finally:
            answer.close()


application, app.wsgi_app = app.wsgi_app, with_id  # type: ignore[method-assign, assignment]


def numbers(count: int, fail_at: int, size: int, name: str) -> Iterator[dict[str, Any]]:
    try:
        for n in range(count):
            if n == fail_at:
                raise ValueError("the database is gone")
            yield {"n": n, "path": request.path, "filler": "x" * size}
    finally:
        closed.append(name)


@app.get("/stream")
def stream() -> Response:
    return h.stream_json(
        numbers(
            h.args.get("count", int, 10),
            h.args.get("fail_at", int, -1),
            h.args.get("size", int, 0),
            h.args.get("name", default=""),
        ),
        form=h.args.get("form", default="array"),
        buffer=h.args.get("buffer", int, 16 << 10),
        flush_after=60.0,
    )


@app.get("/closed/<name>")
def was_closed(name: str) -> Response:
    return h.json_response(name in closed)


@app.post("/body")
def body() -> Response:
    return h.json_response(len(h.body(str, max_bytes=1000)))


def serve(port: int, server: str) -> None:
    if server == "pywsgi":
        from gevent.pywsgi import WSGIServer

        WSGIServer(("127.0.0.1", port), app, log=None).serve_forever()
    elif server == "server":
        from sepelib.flask.server import Server

        Server(app, port=port, drain_delay=0.0, access_log=False).run()
    else:
        from gunicorn.app.base import BaseApplication

        class Gunicorn(BaseApplication):  # type: ignore[misc]
            def load_config(self) -> None:
                settings = {"bind": f"127.0.0.1:{port}", "worker_class": server, "threads": 4}
                for name, value in settings.items():
                    self.cfg.set(name, value)

            def load(self) -> Flask:
                return app

        Gunicorn().run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
