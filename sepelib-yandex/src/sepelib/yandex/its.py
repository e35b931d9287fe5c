"""Proposed contract: ITS, the knobs of running services, turned without a release.

    its = ItsClient("https://its.example", OAuthToken(TokenSource.env("ITS_TOKEN")))
    with its.override("web/search/threads", 8, ttl=600.0, comment="load test"):
        ...

A handle is a knob; while it has no value, its default is in force. Each value has a version, and
who changes it says which one was seen: VersionConflict when that is no longer the one in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from ._arguments import jsonable
from ._conflicts import own_write, same_json
from ._undo import undone
from .auth import Auth
from .base import ApiClient, Response
from .contract import Card
from .errors import NotFound, VersionConflict
from .model import Record, key, many, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LimitOffset, Pager

__all__ = ["CARD", "Handle", "ItsClient", "Value"]

CARD = Card(
    service="its",
    purpose="knobs of running services: a value for each handle, with a version and an expiry",
    confidence="inferred",
    sources=(),
    auth="OAuth",
    endpoints=(
        "GET /v1/values/{path}",
        "PUT /v1/values/{path}",
        "DELETE /v1/values/{path}",
        "GET /v1/values/{path}/history",
        "GET /v1/handles",
    ),
    inferred=("everything",),
)

_log = logging.getLogger(__name__)


@record
class Value(Record):
    """What is in force at *path*; *version* is for whoever changes it."""

    path: str | None = None
    value: Any = None
    version: str | None = None
    author: str | None = None
    comment: str | None = None
    updated_at: datetime | str | None = key("updated_at", of=moment)
    expires_at: datetime | str | None = key("expires_at", of=moment)


@record
class Handle(Record):
    """A knob. *type*: string, number, json, or enum with the values of *enum*."""

    path: str | None = None
    type: str | None = None
    enum: tuple[Any, ...] = key("enum", of=many(lambda item: item), default=())
    description: str | None = None


class ItsClient(OperationsClient):
    """Values of handles, and overrides that end.

    *now*: the time of day, aware, from which a ttl counts; by default the system's.
    """

    service = "its"
    error_classes = {**ApiClient.error_classes, 409: VersionConflict, 412: VersionConflict}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        now: Callable[[], datetime] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, auth, **options)
        self._now = now

    @operation("GET", "/v1/values/{path:path}", of=Value.from_dict)
    def value(self, path: str) -> Value:
        """The value at *path*; NotFound when the default is in force."""
        return declared

    @operation(
        "PUT",
        "/v1/values/{path:path}",
        body="content",
        headers={"if_match": "If-Match", "if_none_match": "If-None-Match"},
        of=Value.from_dict,
    )
    def replace(
        self,
        path: str,
        content: Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Value:
        """One PUT of {"value", "comment", "expires_at"}; see `set`."""
        return declared

    @operation("DELETE", "/v1/values/{path:path}", headers={"version": "If-Match"})
    def reset(self, path: str, *, version: str | None) -> None:
        """Put the default in force, in place of that *version*; NotFound when it is already."""

    @operation("GET", "/v1/values/{path:path}/history", pages=LimitOffset(), of=Value.from_dict)
    def history(self, path: str) -> Pager[Value]:
        """The values that *path* had, the last one first."""
        return declared

    @operation("GET", "/v1/handles", pages=LimitOffset(), of=Handle.from_dict)
    def handles(self, *, prefix: str | None = None) -> Pager[Handle]:
        """The handles whose paths begin with *prefix*."""
        return declared

    def get(self, path: str) -> Value | None:
        """The value at *path*, None while the default is in force."""
        try:
            return self.value(path)
        except NotFound:
            return None

    def set(
        self,
        path: str,
        value: Any,
        *,
        version: str | None,
        comment: str | None = None,
        expires_at: datetime | str | None = None,
    ) -> Value:
        """Put *value* in force in place of that *version*; None: where there is none yet.

        VersionConflict when another one is in force. *expires_at*: then the default is again.
        """
        content = {"value": value, "comment": comment, "expires_at": expires_at}
        content = {name: v for name, v in content.items() if v is not None or name == "value"}
        absent = "*" if version is None else None
        try:
            return self.replace(path, content, if_match=version, if_none_match=absent)
        except VersionConflict as conflict:
            sent = jsonable(value)
            return own_write(
                conflict, lambda: self.get(path), lambda found: same_json(found.value, sent)
            )

    @contextmanager
    def override(
        self, path: str, value: Any, ttl: float, *, comment: str | None = None
    ) -> Iterator[Value]:
        """Another value at *path* while the block runs, at most for *ttl* seconds.

        The block's end puts back what was in force, or the default where that has expired, also
        when it ends by an error or is killed, and then whatever deadline is over. VersionConflict,
        and nothing is put back, when someone has changed it meanwhile, or the ttl was over and
        there was an earlier value. A failure to put it back is logged, not raised, when the block
        itself raises. What is left then, or when the answer to its beginning is lost, ends with
        the ttl.
        """
        before = self.get(path)
        ours = self.set(
            path,
            value,
            version=None if before is None else before.version,
            comment=comment,
            expires_at=(self._now or _system_time)() + timedelta(seconds=ttl),
        )
        with undone(
            lambda: self._put_back(path, before, ours, comment),
            _log,
            f"{path} keeps its override until {ours.expires_at}",
        ):
            yield ours

    def _put_back(self, path: str, before: Value | None, ours: Value, comment: str | None) -> None:
        if before is not None and not self._is_over(before):
            self.set(
                path,
                before.value,
                version=ours.version,
                comment=comment,
                expires_at=before.expires_at,
            )
            return
        try:
            self.reset(path, version=ours.version)
        except (NotFound, VersionConflict):
            if self.get(path) is not None:  # else its ttl has done it
                raise

    def _is_over(self, value: Value) -> bool:
        until = value.expires_at
        return isinstance(until, datetime) and until <= (self._now or _system_time)()

    def check(self, response: Response, /) -> None:
        # A record is made of the body, the version comes beside it.
        if isinstance(response.data, dict) and "ETag" in response.headers:
            response.data["version"] = response.headers["ETag"]


def _system_time() -> datetime:
    return datetime.now(UTC)
