"""A fake of alemate."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from ._crud import CrudFake
from ._operations import Create, Item, Listing, Move, Read, Table, equal
from ._request import FakeRequest, Refusal, Reply
from ._routes import route

__all__ = ["FakeAlemate"]


@dataclass(frozen=True, kw_only=True)
class _Submit(Create):
    """As Create, of tasks that are new and wait for each other in no circle."""

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        tasks = self.fields(request, self.required)["tasks"]
        try:
            graph = {task["id"]: list(task.get("deps", ())) for task in tasks}
            types = [task["type"] for task in tasks]
        except (TypeError, KeyError, AttributeError):
            raise Refusal(400, "bad_tasks", "a task has id, type, options and deps") from None
        if len(graph) < len(types):
            raise Refusal(400, "bad_tasks", "two tasks have the same id")
        for name, deps in graph.items():
            for dep in deps:
                if not isinstance(dep, str) or dep not in graph:
                    raise Refusal(400, "bad_tasks", f"{name} waits for {dep}, which is not there")
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise Refusal(400, "cycle", f"a circle: {' '.join(error.args[1])}") from None
        reply = super().run(fake, request)
        assert isinstance(reply, Reply)
        for task in fake.need(self.table, request.key)["tasks"]:
            task.setdefault("status", "new")
            task.setdefault("message", "")
        return self.reply(fake, request.key, reply.status)


class FakeAlemate(CrudFake):
    """Groups that go on when a test says so: by `finish()` or `fail()`."""

    service = "alemate"
    tables = (Table("groups", created="created_at"),)
    operations = (
        _Submit(
            "create", "/v1/groups/{id}", "groups", required=("tasks",), defaults={"status": "new"}
        ),
        Read("get", "/v1/groups/{id}", "groups"),
        Listing(
            "groups",
            "/v1/groups",
            "groups",
            filters={"status": equal("status"), "author": equal("author")},
        ),
        Move("start", "/v1/groups/{id}/start", "groups", moves={"new": "running"}),
        Move("pause", "/v1/groups/{id}/pause", "groups", moves={"running": "paused"}),
        Move("resume", "/v1/groups/{id}/resume", "groups", moves={"paused": "running"}),
        Move(
            "cancel",
            "/v1/groups/{id}/cancel",
            "groups",
            moves=dict.fromkeys(("new", "running", "paused"), "cancelled"),
        ),
    )

    def finish(self, group: str) -> None:
        """All tasks that have no other end are done, and so is the group."""
        item = self.need("groups", group)
        for task in item["tasks"]:
            if task["status"] not in ("failed", "skipped"):
                task["status"] = "done"
        item["status"] = "done"

    def fail(self, group: str, task: str, message: str = "") -> None:
        """The task has failed, and with it the group."""
        item = self.need("groups", group)
        self._task(item, task).update(status="failed", message=message)
        item["status"] = "failed"

    @route("POST", "/v1/groups/{id}/tasks/{task}/retry", op="retry", body="json")
    def _retry(self, request: FakeRequest) -> object:
        return self._moved(request, "new")

    @route("POST", "/v1/groups/{id}/tasks/{task}/skip", op="skip", body="json")
    def _skip(self, request: FakeRequest) -> object:
        return self._moved(request, "skipped")

    def _moved(self, request: FakeRequest, status: str) -> Item:
        item = self.need("groups", request.args["id"])
        task = self._task(item, request.args["task"])
        if task["status"] != "failed":
            raise Refusal(409, "wrong_state", f"{task['id']} is {task['status']}")
        task.update(status=status, message="")
        item["status"] = "running"
        return item

    def _task(self, item: Item, name: str) -> Item:
        tasks: list[Item] = item["tasks"]
        for task in tasks:
            if task["id"] == name:
                return task
        raise Refusal(404, "not_found", f"{item['id']}: no task {name}")
