"""Proposed contract: alemate, the executor of deployment tasks in groups.

    tasks = TaskGroup()
    stop = tasks.add("stop", options={"service": "web"})
    tasks.add("start", options={"service": "web"}, after=[stop])
    group = alemate.submit(tasks, comment="release 7")
    alemate.start(group.id)
    alemate.wait(group.id, timeout=3600.0)

Which tasks may run, and whether they wait for one another in a circle, is the service's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from .contract import Card
from .model import Record, key, many, record
from .operations import OperationsClient, declared, operation
from .paging import LimitOffset, Pager

__all__ = ["CARD", "AlemateClient", "Group", "Task", "TaskGroup"]

CARD = Card(
    service="alemate",
    purpose="groups of deployment tasks that wait for one another",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "PUT /v1/groups/{id}",
        "GET /v1/groups/{id}",
        "GET /v1/groups",
        "POST /v1/groups/{id}/{start|pause|resume|cancel}",
        "POST /v1/groups/{id}/tasks/{task}/{retry|skip}",
    ),
    inferred=("everything",),
)


@record
class Task(Record):
    """One task of a group."""

    id: str | None = None
    type: str | None = None
    status: str | None = None
    message: str | None = None


@record
class Group(Record):
    """*status*: new, running, paused, done, failed, cancelled, or whatever the service says."""

    id: str | None = None
    status: str | None = None
    author: str | None = None
    comment: str | None = None
    tasks: tuple[Task, ...] = key("tasks", of=many(Task.from_dict), default=())


class TaskGroup:
    """Tasks for `submit`, in the form of the service."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []

    def add(
        self,
        type: str,
        *,
        options: Mapping[str, Any] | None = None,
        after: Iterable[str] = (),
        id: str | None = None,
    ) -> str:
        """One more, which waits for the tasks *after*; its id, by default "t1", "t2", …"""
        id = id or f"t{len(self.tasks) + 1}"
        task = {"id": id, "type": type, "options": dict(options or {}), "deps": list(after)}
        self.tasks.append(task)
        return id


class AlemateClient(OperationsClient):
    service = "alemate"
    FINAL: ClassVar[frozenset[str]] = frozenset({"done", "failed", "cancelled"})
    """States in which a group stays."""

    @operation("PUT", "/v1/groups/{id}", of=Group.from_dict)
    def create(
        self,
        id: str,
        tasks: Sequence[Mapping[str, Any]],
        *,
        author: str | None = None,
        comment: str | None = None,
    ) -> Group:
        """A new group; Conflict when *id* has another body, BadRequest when tasks form a circle."""
        return declared

    @operation("GET", "/v1/groups/{id}", of=Group.from_dict)
    def get(self, id: str) -> Group:
        """The group and its tasks."""
        return declared

    @operation("GET", "/v1/groups", pages=LimitOffset(), of=Group.from_dict)
    def groups(self, *, status: str | None = None, author: str | None = None) -> Pager[Group]:
        """The groups in that state, by that author."""
        return declared

    @operation("POST", "/v1/groups/{id}/start", of=Group.from_dict)
    def start(self, id: str, *, comment: str | None = None) -> Group:
        """Begin; Conflict from any state but new."""
        return declared

    @operation("POST", "/v1/groups/{id}/pause", of=Group.from_dict)
    def pause(self, id: str, *, comment: str | None = None) -> Group:
        """Begin no more tasks; Conflict when the group does not run."""
        return declared

    @operation("POST", "/v1/groups/{id}/resume", of=Group.from_dict)
    def resume(self, id: str, *, comment: str | None = None) -> Group:
        """Go on; Conflict when the group is not paused."""
        return declared

    @operation("POST", "/v1/groups/{id}/cancel", of=Group.from_dict)
    def cancel(self, id: str, *, comment: str | None = None) -> Group:
        """End it as it is; Conflict when it is over."""
        return declared

    @operation("POST", "/v1/groups/{id}/tasks/{task}/retry", of=Group.from_dict)
    def retry(self, id: str, task: str, *, comment: str | None = None) -> Group:
        """Do a failed task again; Conflict when it has not failed."""
        return declared

    @operation("POST", "/v1/groups/{id}/tasks/{task}/skip", of=Group.from_dict)
    def skip(self, id: str, task: str, *, comment: str | None = None) -> Group:
        """Go on as if a failed task were done; Conflict when it has not failed."""
        return declared

    def submit(
        self,
        group: TaskGroup,
        *,
        id: str | None = None,
        author: str | None = None,
        comment: str | None = None,
    ) -> Group:
        """A new group of these tasks, not started; *id* is by default a uuid."""
        return self.create(id or str(uuid4()), group.tasks, author=author, comment=comment)

    def wait(self, id: str, timeout: float | None = 600.0, *, interval: float = 2.0) -> Group:
        """The group once it is over, however it ended; WaitTimeout after *timeout* seconds.

        *interval* seconds lie between the first two questions, later up to 60.
        """
        return self.wait_for(
            "wait",
            lambda: self.get(id),
            lambda group: str(group.status) in self.FINAL,
            timeout=timeout,
            interval=interval,
            state=lambda group: str(group.status),
        )
