"""Proposed contract: Nanny, what services are made of, and which snapshot of that runs.

    def scaled(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "replicas": 5}

    nanny = NannyClient("https://nanny.example", OAuthToken(TokenSource.env("NANNY_TOKEN")))
    new = nanny.update_runtime_attrs("web", scaled, "five replicas")
    nanny.set_snapshot_state("web", new.snapshot_id, "online", comment="go")
    nanny.wait_state("web", new.snapshot_id, "online", timeout=1800.0)

The paths of the attributes and of the current state, and the rule of snapshot ids, are known by
name only; the rest is a proposal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sepelib.util.cache import TTLCache
from sepelib.util.retry import Backoff, RetryPolicy

from ._cached import kept
from ._conflicts import own_write, same_json
from .auth import Auth
from .base import ApiClient
from .contract import Card
from .errors import NOWHERE, ApiProtocolError, VersionConflict, Where, YandexError
from .model import Record, key, many, moment, record
from .paging import LimitOffset, LinkHeader, Pager

__all__ = [
    "CARD",
    "Instance",
    "NannyClient",
    "Service",
    "ServiceState",
    "Snapshot",
    "SnapshotFailed",
    "SnapshotState",
]

CARD = Card(
    service="nanny",
    purpose="deployment of services: their attributes, snapshots and states",
    confidence="brief",
    sources=("BRIEF", "PERF"),
    auth="OAuth",
    endpoints=(
        "GET /v2/services",
        "GET|PUT /v2/services/{id}/runtime_attrs",
        "GET|PUT /v2/services/{id}/info_attrs",
        "GET /v2/services/{id}/snapshots/{sid}",
        "PUT /v2/services/{id}/snapshots/{sid}/state",
        "GET /v2/services/{id}/current_state",
        "GET /v2/services/{id}/instances",
    ),
    inferred=(
        "the list, the snapshots by id, their target states, the instances",
        "the names of all fields but snapshot_id",
        "the names of the states",
    ),
)

_BACKOFF = Backoff(0.1, cap=2.0)
_KEPT = 100  # snapshots

_Kind = Literal["runtime_attrs", "info_attrs"]
_Content = dict[str, Any]


class SnapshotFailed(YandexError):
    """A snapshot that was waited for has come to *state*, from which it goes nowhere."""

    def __init__(
        self, reason: str = "", /, *, where: Where = NOWHERE, snapshot_id: str = "", state: str = ""
    ) -> None:
        super().__init__(reason, where=where)
        self.snapshot_id = snapshot_id
        self.state = state

    def _sentence(self) -> str:
        return f"snapshot {self.snapshot_id} is {self.state}"


@record
class Service(Record):
    """A service, as the list has it."""

    id: str | None = None


@record
class Snapshot(Record):
    """Attributes of a service, of one moment. *content* means nothing to this client."""

    snapshot_id: str | None = None
    content: Any = None
    author: str | None = key("meta.author")
    comment: str | None = key("meta.comment")
    created_at: datetime | str | None = key("meta.created_at", of=moment)


@record
class SnapshotState(Record):
    """How far a snapshot of a service is."""

    snapshot_id: str | None = None
    state: str | None = None


@record
class ServiceState(Record):
    """How a service is, and its snapshots: online, offline, updating, preparing or failed."""

    state: str | None = None
    snapshots: tuple[SnapshotState, ...] = key(
        "snapshots", of=many(SnapshotState.from_dict), default=()
    )

    def of(self, snapshot_id: str) -> str | None:
        """The state of that snapshot, None when it is not told."""
        for snapshot in self.snapshots if isinstance(self.snapshots, tuple) else ():
            if snapshot.snapshot_id == snapshot_id and snapshot.state is not None:
                return str(snapshot.state)
        return None


@record
class Instance(Record):
    """Where an instance of a service listens."""

    host: str | None = None
    port: int | None = None


class NannyClient(ApiClient):
    """*slash*: whether the service wants a slash at the end of each path."""

    service = "nanny"
    PATHS = {
        "services": "/v2/services",
        "runtime_attrs": "/v2/services/{id}/runtime_attrs",
        "set_runtime_attrs": "/v2/services/{id}/runtime_attrs",
        "info_attrs": "/v2/services/{id}/info_attrs",
        "set_info_attrs": "/v2/services/{id}/info_attrs",
        "snapshot": "/v2/services/{id}/snapshots/{sid}",
        "set_snapshot_state": "/v2/services/{id}/snapshots/{sid}/state",
        "current_state": "/v2/services/{id}/current_state",
        "instances": "/v2/services/{id}/instances",
    }
    OPTIONS = {"slash": bool}
    error_classes = {**ApiClient.error_classes, 409: VersionConflict, 412: VersionConflict}

    FAILED_STATES = frozenset({"failed"})
    """In which there is nothing to wait for."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        slash: bool = False,
        paths: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if slash:
            paths = {**{op: f"{path}/" for op, path in self.PATHS.items()}, **(paths or {})}
        super().__init__(url, auth, paths=paths, **kwargs)
        self._snapshots = TTLCache[tuple[str, str], Any](
            _KEPT, 0.0, load_timeout=self._total_timeout, clock=self._clock
        )

    def services(self) -> Pager[Service]:
        """All services."""
        return self.pager(LimitOffset(), "services", of=Service.from_dict)

    def runtime_attrs(self, id: str) -> Snapshot:
        """What the instances of the service are made of, as of now."""
        return self._attrs("runtime_attrs", id)

    def set_runtime_attrs(
        self, id: str, content: _Content, *, snapshot_id: str, comment: str
    ) -> Snapshot:
        """Replace the attributes of *snapshot_id*; VersionConflict when they are not the latest.

        May be repeated after an answer was lost: when the repetition is told of a conflict and
        the latest content is this one, it has worked.
        """
        return self._set_attrs("runtime_attrs", id, content, snapshot_id, comment)

    def update_runtime_attrs(
        self, id: str, fn: Callable[[_Content], _Content], comment: str, *, attempts: int = 5
    ) -> Snapshot:
        """Replace the latest attributes by what *fn* makes of a copy of them.

        *fn* is called again, after a short while, with what is there by then, each time somebody
        else was faster. When it changes nothing, nothing is written; the result is what is there.
        VersionConflict after *attempts* of them; also, with `maybe_applied`, when an answer was
        lost and other attributes have come since: ours may be under them, and *fn* is not applied
        twice.
        """
        return self._update("runtime_attrs", id, fn, comment, attempts)

    def info_attrs(self, id: str) -> Snapshot:
        """What is written of the service for its owners, as of now."""
        return self._attrs("info_attrs", id)

    def set_info_attrs(
        self, id: str, content: _Content, *, snapshot_id: str, comment: str
    ) -> Snapshot:
        """As `set_runtime_attrs`."""
        return self._set_attrs("info_attrs", id, content, snapshot_id, comment)

    def update_info_attrs(
        self, id: str, fn: Callable[[_Content], _Content], comment: str, *, attempts: int = 5
    ) -> Snapshot:
        """As `update_runtime_attrs`."""
        return self._update("info_attrs", id, fn, comment, attempts)

    def snapshot(self, id: str, snapshot_id: str) -> Snapshot:
        """One snapshot of the service. It never changes, so it is asked for once."""

        def load() -> Any:
            return self.request("snapshot", "GET", at={"id": id, "sid": snapshot_id}).data

        where = Where(self.service, "snapshot")
        found = kept(self._snapshots, (id, snapshot_id), load, where, ttl=math.inf)
        return Snapshot.from_dict(copy.deepcopy(found))

    def current_state(self, id: str) -> ServiceState:
        """How the service is, and each of its snapshots."""
        return ServiceState.from_dict(self.request("current_state", "GET", at={"id": id}).data)

    def set_snapshot_state(self, id: str, snapshot_id: str, state: str, *, comment: str) -> None:
        """Say to what a snapshot shall come. That takes its time: see `wait_state`."""
        at = {"id": id, "sid": snapshot_id}
        self.request("set_snapshot_state", "PUT", at=at, json={"state": state, "comment": comment})

    def wait_state(
        self,
        id: str,
        snapshot_id: str,
        state: str,
        timeout: float | None = 600.0,
        *,
        interval: float = 5.0,
    ) -> ServiceState:
        """The service once the snapshot is in *state*; WaitTimeout, SnapshotFailed.

        *interval*: seconds between the first two questions; it grows to a minute.
        """

        def there(found: ServiceState) -> bool:
            now = found.of(snapshot_id)
            if now is not None and now != state and now in self.FAILED_STATES:
                where = Where(self.service, "wait_state")
                raise SnapshotFailed(where=where, snapshot_id=snapshot_id, state=self.shown(now))
            return now == state

        return self.wait_for(
            "wait_state",
            lambda: self.current_state(id),
            there,
            timeout=timeout,
            interval=interval,
            state=lambda found: found.of(snapshot_id) or "",
        )

    def instances(self, id: str) -> list[Instance]:
        """Where the service runs, in one request."""
        return list(self.pager(LinkHeader(), "instances", at={"id": id}, of=Instance.from_dict))

    def _attrs(self, kind: _Kind, id: str) -> Snapshot:
        return Snapshot.from_dict(self.request(kind, "GET", at={"id": id}).data)

    def _set_attrs(
        self, kind: _Kind, id: str, content: _Content, snapshot_id: str, comment: str
    ) -> Snapshot:
        body = {"snapshot_id": snapshot_id, "content": content, "comment": comment}
        try:
            answer = self.request(f"set_{kind}", "PUT", at={"id": id}, json=body)
        except VersionConflict as conflict:
            return own_write(
                conflict,
                lambda: self._attrs(kind, id),
                lambda latest: same_json(latest.content, content),
            )
        return Snapshot.from_dict(answer.data)

    def _update(
        self,
        kind: _Kind,
        id: str,
        fn: Callable[[_Content], _Content],
        comment: str,
        attempts: int,
    ) -> Snapshot:
        def once() -> Snapshot:
            latest = self._attrs(kind, id)
            # Without an id the write would take the place of whatever is there by then.
            if not isinstance(latest.snapshot_id, str) or not isinstance(latest.content, dict):
                where = Where(self.service, kind)
                raise ApiProtocolError("the answer has no snapshot_id or content", where=where)
            content = fn(copy.deepcopy(latest.content))
            if content is None:
                raise TypeError("the function that changes the attributes has to return them")
            if same_json(content, latest.content):
                return latest
            return self._set_attrs(kind, id, content, latest.snapshot_id, comment)

        policy = RetryPolicy(
            VersionConflict,
            attempts=attempts,
            backoff=_BACKOFF,
            retry_if=lambda error: not getattr(error, "maybe_applied", True),
            sleep=self._sleep,
            clock=self._clock,
        )
        return policy(once)
