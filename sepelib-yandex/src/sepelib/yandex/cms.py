"""CMS: may these hosts be touched now, and in what state are hosts and instances.

    cms = CmsClient("https://cms.example", OAuthToken(TokenSource.env("CMS_TOKEN")), issuer="robot")
    with cms.maintenance.hold(["h1", "h2"], "reboot", timeout=3600.0):
        ...                                 # the permission is ours; given back in any case

The tasks of maintenance are what YDB's CMS serves to the robot that repairs hosts; they answer
errors in plain text and need no credential. States of hosts and instances are a proposal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sepelib.util.deadline import deadline

from ._arguments import jsonable, several
from ._undo import undone
from .auth import Auth
from .base import ApiClient, Response
from .contract import Card
from .errors import NOWHERE, ApiResponseError, NotFound, Where, YandexError
from .model import Record, key, many, moment, record
from .paging import LimitOffset, LinkHeader, Pager

__all__ = [
    "CARD",
    "CmsClient",
    "HostState",
    "HostStates",
    "InstanceState",
    "InstanceStates",
    "Maintenance",
    "MaintenanceRejected",
    "MaintenanceTask",
    "TaskStatus",
]

CARD = Card(
    service="cms",
    purpose="permission to touch hosts, and the states of hosts and instances",
    confidence="public-code",
    sources=("YDB-CMS", "BRIEF"),
    auth="none for maintenance tasks; OAuth for states",
    endpoints=(
        "POST /api/walle/v11/tasks",
        "GET /api/walle/v11/tasks",
        "GET /api/walle/v11/tasks/{id}",
        "DELETE /api/walle/v11/tasks/{id}",
        "GET|PUT /hosts/{host}/state",
        "GET /hosts",
        "GET /instances",
        "PUT /instances/{host}:{port}/state",
    ),
    inferred=(
        "the states of hosts and instances, with their paths and fields",
        "the value of a task's type",
    ),
)

_SHOWN = 10  # hosts in an error

_log = logging.getLogger(__name__)


class TaskStatus(StrEnum):
    """Of a task of maintenance; one that is not here is passed as text."""

    OK = "ok"
    IN_PROCESS = "in-process"
    REJECT = "reject"


class MaintenanceRejected(YandexError):
    """CMS does not let *hosts* be touched, and waiting does not help. *message*: why."""

    def __init__(
        self,
        message: str = "",
        /,
        *,
        where: Where = NOWHERE,
        task_id: str = "",
        hosts: Iterable[str] = (),
    ) -> None:
        super().__init__(message, where=where)
        self.message = message
        self.task_id = task_id
        self.hosts = tuple(hosts)

    def _sentence(self) -> str:
        why = f": {self.message}" if self.message else ""
        hosts = ", ".join(self.hosts[:_SHOWN])
        more = len(self.hosts) - _SHOWN
        others = f" and {more} more" if more > 0 else ""
        return f"task {self.task_id} for {hosts}{others} is rejected{why}"


@record
class MaintenanceTask(Record):
    """A request to touch hosts, and how it stands."""

    id: str | None = None
    hosts: tuple[str, ...] = key("hosts", of=many(str), default=())
    status: str | None = None
    message: str | None = None

    @property
    def is_granted(self) -> bool:
        return self.status == TaskStatus.OK

    @property
    def is_rejected(self) -> bool:
        return self.status == TaskStatus.REJECT


@record
class HostState(Record):
    """What a host is meant for: active, maintenance, down or retired, and since whom."""

    host: str | None = None
    state: str | None = None
    reason: str | None = None
    author: str | None = None
    until: datetime | str | None = key("until", of=moment)


@record
class InstanceState(Record):
    """As `HostState`, of what listens on one port of a host."""

    host: str | None = None
    port: int | None = None
    state: str | None = None
    tags: tuple[str, ...] = key("tags", of=many(str), default=())


class CmsClient(ApiClient):
    """Its parts are `maintenance`, `hosts` and `instances`.

    *issuer*: who asks, for tasks that are created without one.
    """

    service = "cms"
    PATHS = {
        "maintenance.create": "/api/walle/v11/tasks",
        "maintenance.list": "/api/walle/v11/tasks",
        "maintenance.check": "/api/walle/v11/tasks/{id}",
        "maintenance.remove": "/api/walle/v11/tasks/{id}",
        "hosts.state": "/hosts/{host}/state",
        "hosts.set_state": "/hosts/{host}/state",
        "hosts.list": "/hosts",
        "instances.list": "/instances",
        "instances.set_state": "/instances/{host}:{port}/state",
    }
    OPTIONS = {"issuer": str}

    TASK_TYPE = "automated"
    """The `type` of a task that is created without one; its values are not public."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        issuer: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(url, auth, **kwargs)
        self.issuer = issuer

    @property
    def maintenance(self) -> Maintenance:
        return Maintenance(self)

    @property
    def hosts(self) -> HostStates:
        return HostStates(self)

    @property
    def instances(self) -> InstanceStates:
        return InstanceStates(self)

    def parse_error(self, response: Response, /) -> ApiResponseError:
        error = super().parse_error(response)
        # CMS has not answered its own front in 60 s: it may still, and act.
        error.temporary = response.status == 408
        return error


class Maintenance:
    """Tasks: permissions to touch hosts. One without an end stays until it is removed."""

    def __init__(self, client: CmsClient) -> None:
        self._client = client

    def create(
        self,
        hosts: Iterable[str],
        action: str,
        *,
        id: str | None = None,
        type: str | None = None,
        issuer: str | None = None,
        dry_run: bool = False,
        **fields: Any,
    ) -> MaintenanceTask:
        """Ask for *hosts*; the answer may be that they have to be waited for, or no.

        *action*: one of reboot, power-off, change-disk, change-memory, profile, redeploy,
        repair-link, repair-bmc, repair-overheat, repair-capping, temporary-unreachable; prepare
        and deactivate are always granted. *id*: ours to choose, None makes one; the same id again
        is the same task, so the call may be repeated. *dry_run*: only the answer, no task.
        *fields*: of the task, beside these. BadRequest for an unknown host or action.
        """
        task = {
            "id": id or uuid4().hex,
            "type": type or self._client.TASK_TYPE,
            "issuer": issuer or self._client.issuer,
            "action": action,
            "hosts": several(hosts, "hosts"),
            **fields,
        }
        answer = self._client.request(
            "maintenance.create",
            "POST",
            params={"dry_run": dry_run or None},
            json=_said(**task),
            idempotent=True,
        )
        return MaintenanceTask.from_dict(answer.data)

    def list(self) -> Sequence[MaintenanceTask]:
        """All tasks that are granted or waited for, of everybody."""
        strategy = LinkHeader(items="result")  # there are no pages: one request
        return list(self._client.pager(strategy, "maintenance.list", of=MaintenanceTask.from_dict))

    def check(self, id: str) -> MaintenanceTask:
        """How the task stands; NotFound also when all of its permissions are gone."""
        answer = self._client.request("maintenance.check", "GET", at={"id": id})
        return MaintenanceTask.from_dict(answer.data)

    def wait(
        self, id: str, timeout: float | None = 600.0, *, interval: float = 5.0
    ) -> MaintenanceTask:
        """The task once it is granted. MaintenanceRejected, WaitTimeout, NotFound.

        *interval*: seconds between the first two questions; it grows to a minute.
        """
        task = self._client.wait_for(
            "maintenance.check",
            lambda: self.check(id),
            lambda task: task.is_granted or task.is_rejected,
            timeout=timeout,
            interval=interval,
            state=lambda task: f"{task.status} {task.message or ''}".strip(),
        )
        if task.is_rejected:
            raise self._rejection(id, task)
        return task

    def remove(self, id: str) -> None:
        """Give the permission back, or stop to wait for it."""
        self._client.request("maintenance.remove", "DELETE", at={"id": id}, decode=False)

    @contextmanager
    def hold(
        self,
        hosts: Iterable[str],
        action: str,
        timeout: float | None = 600.0,
        *,
        id: str | None = None,
        interval: float = 5.0,
        **fields: Any,
    ) -> Iterator[MaintenanceTask]:
        """Have *hosts* for the block, after a wait of up to *timeout* seconds for permission.

        The task is removed however the block or the wait ends, a kill included, outside of any
        deadline but within the client's `total_timeout`. When that fails the error is raised, or
        logged if there is one already: the task then stays until somebody removes it by its id.
        Raises as `create` and `wait` do. *fields* as for `create`.
        """
        names, task_id = several(hosts, "hosts"), id or uuid4().hex
        maybe_there = True

        def give_back() -> None:
            if maybe_there:
                with suppress(NotFound):
                    self.remove(task_id)

        with undone(give_back, _log, f"task {task_id} is not removed and may hold its hosts"):
            with deadline(timeout, clock=self._client._clock):
                try:
                    task = self.create(names, action, id=task_id, **fields)
                except YandexError as error:
                    maybe_there = _may_have_created(error)
                    raise
                if task.is_rejected:
                    raise self._rejection(task_id, task, names)
                if not task.is_granted:
                    task = self.wait(task_id, timeout, interval=interval)
            yield task

    def _rejection(
        self, id: str, task: MaintenanceTask, hosts: Iterable[str] = ()
    ) -> MaintenanceRejected:
        return MaintenanceRejected(
            self._client.shown(str(task.message or "")),
            where=Where(self._client.service, "maintenance.wait"),
            task_id=id,
            hosts=(isinstance(task.hosts, tuple) and task.hosts) or hosts,
        )


class HostStates:
    """What hosts are meant for: active, maintenance, down, retired."""

    def __init__(self, client: CmsClient) -> None:
        self._client = client

    def state(self, host: str) -> HostState:
        """NotFound for a host that CMS does not know."""
        answer = self._client.request("hosts.state", "GET", at={"host": host})
        return HostState.from_dict(answer.data)

    def set_state(
        self,
        host: str,
        state: str,
        *,
        reason: str,
        author: str | None = None,
        until: datetime | None = None,
    ) -> HostState:
        """Say what *host* is meant for. *until*: when that ends by itself, aware; None: never."""
        said = _said(state=state, reason=reason, author=author, until=until)
        answer = self._client.request("hosts.set_state", "PUT", at={"host": host}, json=said)
        return HostState.from_dict(answer.data)

    def list(self, *, state: str | None = None, group: str | None = None) -> Pager[HostState]:
        """All hosts, or those in *state* and of *group*."""
        return self._client.pager(
            LimitOffset(),
            "hosts.list",
            params={"state": state, "group": group},
            of=HostState.from_dict,
        )


class InstanceStates:
    """As `HostStates`, of what listens on one port of a host."""

    def __init__(self, client: CmsClient) -> None:
        self._client = client

    def list(self, conf: str) -> Sequence[InstanceState]:
        """Those of one configuration, in one request."""
        return list(
            self._client.pager(
                LinkHeader(), "instances.list", params={"conf": conf}, of=InstanceState.from_dict
            )
        )

    def set_state(
        self,
        host: str,
        port: int,
        state: str,
        *,
        reason: str,
        author: str | None = None,
        until: datetime | None = None,
    ) -> InstanceState:
        """Say what the instance is meant for. *until* as for hosts."""
        said = _said(state=state, reason=reason, author=author, until=until)
        at: dict[str, str | int] = {"host": host, "port": port}
        answer = self._client.request("instances.set_state", "PUT", at=at, json=said)
        return InstanceState.from_dict(answer.data)


def _may_have_created(error: YandexError) -> bool:
    return error.maybe_applied or (isinstance(error, ApiResponseError) and error.temporary)


def _said(**fields: Any) -> dict[str, Any]:
    return {name: jsonable(value) for name, value in fields.items() if value is not None}
