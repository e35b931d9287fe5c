"""/metrics in the formats of those who ask, with a page for people, and /yasm_stats."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Protocol

from sepelib.flask.server._answers import NOT_KEPT, Answer
from sepelib.flask.server._negotiation import best

if TYPE_CHECKING:
    from sepelib.flask.server._builtins import Ask

__all__ = ["Exporter", "MetricsPages"]

_FORMATS = ("prometheus", "openmetrics", "json", "yaml", "yasm")

# What an Accept may ask for; the first one is for those who take anything.
_BY_TYPE = {
    "text/plain": "prometheus",
    "application/openmetrics-text": "openmetrics",
    "application/json": "json",
    "application/yaml": "yaml",
    "text/html": "html",
}

# Nothing from elsewhere and nothing inline: a label that gets into the page stays a text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Exporter(Protocol):
    """What the `metrics=` of a Server is; `sepelib.metrics.Registry` fits."""

    def dump(self, fmt: str) -> tuple[bytes, str]:
        """All metrics as (body, content type).

        *fmt* is prometheus, openmetrics, json, yaml or yasm. The page shows the JSON.
        """
        ...


class MetricsPages:
    def __init__(self, exporter: Exporter | None) -> None:
        self._exporter = exporter

    def show(self, ask: Ask) -> Answer:
        name = ask.path.removeprefix("/metrics").removeprefix("/")
        if name in _FILES:
            return Answer(200, _file(name), _FILES[name], (("Cache-Control", "no-cache"),))
        if name:
            return ask.refuse(404, "The metrics are at /metrics.")
        fmt = ask.query.get("fmt")
        if fmt is None:
            # Who takes none of it, gets what most understand.
            kind = best(ask.accept, tuple(_BY_TYPE)) or "text/plain"
            answer = self._dump(ask, _BY_TYPE[kind])
            if answer.status != 200:
                return answer
            return answer._replace(headers=(*answer.headers, ("Vary", "Accept")))
        if fmt not in (*_FORMATS, "html"):
            return ask.refuse(400, f"fmt is one of {', '.join(_FORMATS)}, html.")
        return self._dump(ask, fmt)

    def yasm(self, ask: Ask) -> Answer:
        return self._dump(ask, "yasm")

    def _dump(self, ask: Ask, fmt: str) -> Answer:
        if self._exporter is None:
            return ask.refuse(404, "This service exports no metrics: its server has no metrics=.")
        if fmt == "html":
            return _page(ask)
        body, content_type = self._exporter.dump(fmt)
        return Answer(200, body, content_type)


def _page(ask: Ask) -> Answer:
    # Relative, so that it works behind a proxy that serves it below another path.
    base = b"" if ask.path.endswith("/") else b"metrics/"
    body = _file("page.html").replace(b"{base}", base)
    headers = (NOT_KEPT, ("Content-Security-Policy", _POLICY), ("Referrer-Policy", "no-referrer"))
    return Answer(200, body, "text/html; charset=utf-8", headers)


def _file(name: str) -> bytes:
    return (resources.files("sepelib.flask.server") / "_page" / name).read_bytes()
