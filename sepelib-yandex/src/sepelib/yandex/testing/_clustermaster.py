"""A fake of clustermaster."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from ._crud import CrudFake
from ._operations import Item, Listing, Table, equal
from ._request import FakeRequest, Refusal, Reply
from ._routes import route

__all__ = ["FakeClustermaster"]

_ACTIVE = ("pending", "running")


class FakeClustermaster(CrudFake):
    """Targets; one that is run runs after 5 s of `clock`, for 10 s, and ends as was said.

    run-with-deps starts the target and those it names itself, all at once.
    """

    service = "clustermaster"
    tables = (Table("targets", key=("name",)), Table("tasks", key=("target", "host")))
    operations = (
        Listing(
            "targets",
            "/v1/targets",
            "targets",
            bare=True,
            answer=("name", "type", "deps", "hosts", "state"),
        ),
        Listing(
            "tasks",
            "/v1/targets/{target}/tasks",
            "tasks",
            bare=True,
            filters={"state": equal("state")},
            answer=("host", "state"),
        ),
    )

    def add_target(
        self,
        name: str,
        *,
        hosts: Iterable[str] = (),
        deps: Iterable[str] = (),
        type: str = "cluster",
        state: str = "idle",
        ends: str = "success",
    ) -> None:
        """A target, with a task on each of its *hosts*; its runs end in the state *ends*."""
        target = {"name": name, "type": type, "deps": list(deps), "hosts": list(hosts)}
        self.add("targets", {**target, "state": state, "ends": ends})
        for host in target["hosts"]:
            self.add("tasks", {"target": name, "host": host, "state": state})

    @route("GET", "/v1/targets/{name}", op="target")
    def _target(self, request: FakeRequest) -> object:
        target = self.need("targets", request.args["name"])
        counts = Counter(task["state"] for task in self._tasks(target))
        shown = ("name", "state", "last_started", "last_finished")
        return {**{name: target.get(name) for name in shown}, "counts": counts}

    @route("GET", "/v1/hosts", op="hosts")
    def _hosts(self, request: FakeRequest) -> object:
        return sorted({host for target in self.all("targets") for host in target["hosts"]})

    @route("POST", "/v1/targets/{name}/run", op="run", body="json")
    def _run(self, request: FakeRequest) -> object:
        target, hosts = self._told(request)
        self._start(target, hosts)
        return self._accepted(target)

    @route("POST", "/v1/targets/{name}/run-with-deps", op="run_with_deps", body="json")
    def _run_with_deps(self, request: FakeRequest) -> object:
        target, hosts = self._told(request)
        for name in target["deps"]:
            self._start(self.need("targets", name), None)
        self._start(target, hosts)
        return self._accepted(target)

    @route("POST", "/v1/targets/{name}/reset", op="reset", body="json")
    def _reset(self, request: FakeRequest) -> object:
        target, hosts = self._told(request)
        if target["state"] in _ACTIVE:
            raise Refusal(409, "wrong_state", f"{target['name']} is {target['state']}")
        self._set(target, hosts, "idle")
        return self._accepted(target)

    @route("POST", "/v1/targets/{name}/cancel", op="cancel", body="json")
    def _cancel(self, request: FakeRequest) -> object:
        target, hosts = self._told(request)
        if target["state"] in _ACTIVE:
            self._set(target, hosts, "canceled")
        return self._accepted(target)

    def _told(self, request: FakeRequest) -> tuple[Item, list[str] | None]:
        target = self.need("targets", request.args["name"])
        if not isinstance(request.json, dict):
            raise Refusal(400, "bad_body", "the body is no JSON object")
        hosts = request.json.get("hosts")
        if hosts is not None and not (
            isinstance(hosts, list) and all(host in target["hosts"] for host in hosts)
        ):
            raise Refusal(400, "bad_hosts", f"{target['name']} is not on all of these hosts")
        return target, hosts

    def _accepted(self, target: Item) -> Reply:
        # As it is by now: changes make new items.
        now = self.need("targets", target["name"])
        return Reply(202, json={"name": now["name"], "state": now["state"]})

    def _tasks(self, target: Item, hosts: list[str] | None = None) -> list[Item]:
        return [
            task
            for task in self.all("tasks")
            if task["target"] == target["name"] and (hosts is None or task["host"] in hosts)
        ]

    def _start(self, target: Item, hosts: list[str] | None) -> None:
        if target["state"] in _ACTIVE:
            return
        self._set(target, hosts, "pending")
        name = target["name"]
        self.change("targets", name, {"last_started": self.timestamp()})
        end = (self.now + dt.timedelta(seconds=15)).isoformat()
        self.later(15.0, "targets", name, {"last_finished": end})
        for seconds, state in ((5.0, "running"), (15.0, target["ends"])):
            self.later(seconds, "targets", name, {"state": state})
            for task in self._tasks(target, hosts):
                self.later(seconds, "tasks", f"{name}/{task['host']}", {"state": state})

    def _set(self, target: Item, hosts: list[str] | None, state: str) -> None:
        """This is its state, and nothing is to come."""
        name = target["name"]
        mine = {("targets", name)}
        mine |= {("tasks", f"{name}/{task['host']}") for task in self._tasks(target)}
        self.state.due = [entry for entry in self.state.due if entry[1:3] not in mine]
        self.change("targets", name, {"state": state})
        for task in self._tasks(target, hosts):
            self.change("tasks", f"{name}/{task['host']}", {"state": state})
