"""Tasks of Sandbox: drafts, batches, and the wait for their end. All of it is our proposal."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sepelib.util.deadline import deadline

from .base import Response
from .errors import ApiProtocolError, BatchError, NotFound, YandexError
from .model import Record, record
from .paging import LimitOffset, Pager

if TYPE_CHECKING:
    from .sandbox import SandboxClient

__all__ = ["BatchItem", "Task", "TaskGroup", "Tasks"]


class TaskGroup(enum.StrEnum):
    """What a status of a task comes to."""

    DRAFT = "draft"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_over(self) -> bool:
        return self in (TaskGroup.SUCCEEDED, TaskGroup.FAILED, TaskGroup.STOPPED)


@record
class Task(Record):
    """A task. *group* is what its *status* comes to; None for a status that no group has."""

    id: int | None = None
    status: str | None = None
    group: TaskGroup | None = None
    type: str | None = None
    owner: str | None = None
    description: str | None = None
    input: Mapping[str, Any] | None = None
    tags: Sequence[str] | None = None


@record
class BatchItem(Record):
    """What became of one task of a batch; *message* are the service's words."""

    id: int | None = None
    ok: bool = False
    message: str | None = None


class Tasks:
    """The tasks of a client."""

    def __init__(self, client: SandboxClient, status_groups: Mapping[str, str]) -> None:
        self._client = client
        self._groups = {group.value: group for group in TaskGroup}
        self._groups |= {name: TaskGroup(group) for name, group in status_groups.items()}

    def create(
        self,
        type: str,
        *,
        owner: str | None = None,
        description: str | None = None,
        input: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        kill_timeout: float | None = None,
    ) -> Task:
        """A draft. After an error with `maybe_applied` there may be one that nobody starts."""
        fields = {
            "type": type,
            "owner": owner,
            "description": description,
            "input": dict(input or {}),
            "tags": list(tags),
            "kill_timeout": kill_timeout,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        response = self._client.request("tasks.create", "POST", json=given)
        task = self._task(response.data)
        if task.id is None:
            error = ApiProtocolError("the answer has no id", where=response.where)
            error.maybe_applied = True
            raise error
        return task

    def update(self, id: int, **fields: Any) -> Task:
        """Change *fields* of a draft; a Conflict once it was started."""
        answer = self._client.request("tasks.update", "PUT", at={"id": id}, json=fields)
        return self._task(answer.data)

    def start(
        self, ids: int | Iterable[int], *, comment: str | None = None, check: bool = True
    ) -> Sequence[BatchItem]:
        """Start drafts. An item for each; BatchError if one failed, unless *check* is False."""
        return self._batch("start", ids, comment, check)

    def stop(
        self, ids: int | Iterable[int], *, comment: str | None = None, check: bool = True
    ) -> Sequence[BatchItem]:
        """Stop tasks; otherwise as `start`."""
        return self._batch("stop", ids, comment, check)

    def delete(
        self, ids: int | Iterable[int], *, comment: str | None = None, check: bool = True
    ) -> Sequence[BatchItem]:
        """Remove tasks; otherwise as `start`."""
        return self._batch("delete", ids, comment, check)

    def get(self, id: int) -> Task:
        """One task."""
        return self._task(self._client.request("tasks.get", "GET", at={"id": id}).data)

    def list(
        self,
        *,
        type: str | None = None,
        owner: str | None = None,
        status: str | None = None,
        limit: int | None = None,
    ) -> Pager[Task]:
        """Those that fit; *status* by the service's own name."""
        params = {"type": type, "owner": owner, "status": status}
        return self._client.pager(
            LimitOffset(), "tasks.list", of=self._task, limit=limit, params=params
        )

    def output(self, id: int) -> Mapping[str, Any]:
        """What the task has left beside its resources."""
        found = self._client.request("tasks.output", "GET", at={"id": id}).data
        return found if isinstance(found, Mapping) else {"value": found}

    def wait(self, id: int, timeout: float | None, *, poll: float = 10.0) -> Task:
        """The task once it is over, whichever way: look at its `group`.

        Asked after *poll* seconds, then 1.5 times later each time, up to a minute. WaitTimeout
        with the last state after *timeout* seconds; the task goes on.
        """
        return self._client.wait_for(
            "tasks.wait",
            lambda: self.get(id),
            lambda task: task.group is not None and task.group.is_over,
            timeout=timeout,
            interval=poll,
            factor=1.5,
            longest=60.0,
            state=lambda task: str(task.status),
        )

    def _task(self, raw: Any) -> Task:
        task = Task.from_dict(raw)
        status = task.status
        known = self._groups.get(status) if isinstance(status, str) else None
        return dataclasses.replace(task, group=known)

    def _batch(
        self, action: str, ids: int | Iterable[int], comment: str | None, check: bool
    ) -> Sequence[BatchItem]:
        asked = [ids] if isinstance(ids, int | str) else [*ids]
        if not asked:
            return ()
        body: dict[str, Any] = {"action": action, "id": asked}
        if comment is not None:
            body["comment"] = comment
        with deadline(self._client._total_timeout, clock=self._client._clock):
            response = self._client.request("tasks.batch", "PUT", json=body)
            items = list(_items(response, asked))
            if response.attempts > 1:
                # The first request may have worked, and the second one then finds nothing to do.
                items = [item if item.ok else self._second_look(action, item) for item in items]
        failed = [item for item in items if not item.ok]
        if failed and check:
            shown = self._client.shown
            results = [{**item.raw, "message": shown(str(item.message))} for item in items]
            said = "; ".join(f"{item.id}: {item.message}" for item in failed[:5])
            reason = shown(f"{action} failed for {len(failed)} of {len(items)}: {said}")
            error = BatchError(reason, where=response.where, results=results)
            error.attempts = response.attempts
            raise error
        return tuple(items)

    def _second_look(self, action: str, item: BatchItem) -> BatchItem:
        try:
            group = self.get(item.id or 0).group
        except NotFound:
            return dataclasses.replace(item, ok=action == "delete")
        except YandexError:
            return item
        wanted = {
            "start": group not in (None, TaskGroup.DRAFT),
            "stop": group is TaskGroup.STOPPED,
        }
        return dataclasses.replace(item, ok=wanted.get(action, False))


def _items(response: Response, asked: Sequence[int]) -> Iterator[BatchItem]:
    """One for each task *asked* about; of those left out nothing is known, so they failed."""
    found = response.data.get("items") if isinstance(response.data, Mapping) else None
    records = [BatchItem.from_dict(one) for one in found] if isinstance(found, list) else []
    known = {str(item.id): item for item in records}
    for id in asked:
        item = known.get(str(id))
        if item is None:
            raw = {"id": id, "ok": False, "message": "not in the answer"}
            item = BatchItem.from_dict(raw)
        yield dataclasses.replace(item, id=id, ok=item.ok is True)
