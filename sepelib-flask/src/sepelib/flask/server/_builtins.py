"""The handlers that every service has, answered before the application is asked.

So they work when its hooks fail, when it hangs, and when there is none.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from sepelib.flask.server._answers import Answer, json_answer, page, text_answer
from sepelib.flask.server._checks import Checks
from sepelib.flask.server._config_pages import ConfigPages
from sepelib.flask.server._metrics_pages import MetricsPages
from sepelib.flask.server._negotiation import best
from sepelib.flask.server._reopen import reopen_logs

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from sepelib.flask.server._config_pages import ConfigSource
    from sepelib.flask.server._metrics_pages import Exporter

__all__ = ["Ask", "Builtins", "Route"]


class Ask(NamedTuple):
    """What a built-in handler needs to know of a request."""

    path: str
    query: Mapping[str, str]
    accept: str | None
    is_admin: bool
    environ: WSGIEnvironment

    @classmethod
    def of(cls, environ: WSGIEnvironment, is_admin: bool) -> Ask:
        """ValueError for a query with too many fields."""
        text = environ.get("QUERY_STRING", "")
        query = dict(parse_qsl(text, True, max_num_fields=20)) if text else {}
        return cls(
            environ.get("PATH_INFO", ""),
            query,
            environ.get("HTTP_ACCEPT"),
            is_admin,
            environ,
        )

    def refuse(self, status: int, detail: str, *headers: tuple[str, str]) -> Answer:
        return page(status, self.environ, detail, headers)

    def wants_json(self) -> bool:
        """By `?fmt=`, else by Accept; text without either. Not for where fmt has more values."""
        fmt = self.query.get("fmt")
        if fmt is not None:
            return fmt == "json"
        return best(self.accept, ("text/plain", "application/json")) == "application/json"


class Route(NamedTuple):
    """One handler. *label* is its name in metrics."""

    label: str
    handle: Callable[[Ask], Answer]
    methods: tuple[str, ...] = ("GET", "HEAD")
    for_admins: bool = False
    hint: str = ""  # for those who use another method


class Builtins:
    """The handlers by path. *has_all*: not only /ping and /version."""

    def __init__(
        self,
        *,
        has_all: bool,
        is_draining: Callable[[], bool],
        checks: Checks,
        version: str | None,
        commit: str | None,
        started_at: datetime,
        config: ConfigSource | None,
        metrics: Exporter | None,
    ) -> None:
        self._is_draining = is_draining
        self._checks = checks
        self._about = {
            "version": version,
            "commit": commit,
            "started_at": started_at.astimezone(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
        }
        self._exact = {"/ping": Route("/ping", self._ping)}
        self._exact["/version"] = Route("/version", self._version)
        self._prefixes: dict[str, Route] = {}
        if has_all:
            self._add_others(ConfigPages(config), MetricsPages(metrics))
        self._below = tuple(self._prefixes)

    def _add_others(self, config: ConfigPages, metrics: MetricsPages) -> None:
        shown = Route("/config/", config.show, for_admins=True)
        self._exact["/config"] = self._prefixes["/config/"] = shown
        hint = "; say curl -X POST"
        reopen = Route("/reopen_log", _reopen_log, ("POST",), for_admins=True, hint=hint)
        self._exact["/reopen_log"] = reopen
        exported = Route("/metrics", metrics.show)
        self._exact["/metrics"] = self._prefixes["/metrics/"] = exported
        self._exact["/yasm_stats"] = Route("/yasm_stats", metrics.yasm)
        self._exact["/unistat"] = Route("/unistat", metrics.yasm)

    def find(self, path: str) -> Route | None:
        route = self._exact.get(path)
        if route is None and path.startswith(self._below):
            return next(r for prefix, r in self._prefixes.items() if path.startswith(prefix))
        return route

    @property
    def paths(self) -> list[str]:
        return sorted({route.label for route in self._exact.values()})

    def _ping(self, ask: Ask) -> Answer:
        if ask.query and _is_on(ask.query.get("live")):
            return text_answer("pong")
        is_draining = self._is_draining()
        if ask.query and _is_on(ask.query.get("verbose")):
            checks = self._checks.report(details=ask.is_admin)
            is_failing = any(c["critical"] and not c["ok"] for c in checks.values())
            status = "draining" if is_draining else "failing" if is_failing else "ok"
            return json_answer({"status": status, "checks": checks}, _status(status == "ok"))
        if is_draining:
            return text_answer("draining\n", 503)
        if failing := self._checks.failing():
            return text_answer(f"failing: {', '.join(failing)}\n", 503)
        return text_answer("pong")

    def _version(self, ask: Ask) -> Answer:
        about = {name: value for name, value in self._about.items() if value is not None}
        if ask.wants_json():
            return json_answer(about)
        return text_answer("".join(f"{name}: {value}\n" for name, value in about.items()))


def _reopen_log(ask: Ask) -> Answer:
    done = reopen_logs()
    report = {"reopened": done.files, "failed": done.failures}
    return json_answer(report, 500 if done.failures else 200)


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() not in ("0", "false", "no", "off")


def _status(is_well: bool) -> int:
    return 200 if is_well else 503
