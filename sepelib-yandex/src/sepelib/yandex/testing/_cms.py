"""A fake of CMS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sepelib.util.testing import Clock

from ._operations import page
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["CmsState", "FakeCms"]

# prepare and deactivate are granted always, the others by the policy.
_FREE = frozenset({"prepare", "deactivate"})
_ACTIONS = _FREE | {
    "reboot",
    "power-off",
    "change-disk",
    "change-memory",
    "profile",
    "redeploy",
    "repair-link",
    "repair-bmc",
    "repair-overheat",
    "repair-capping",
    "temporary-unreachable",
}
_STATES = ("active", "maintenance", "down", "retired")


@dataclass
class CmsState:
    """What CMS knows. Tasks are in the order of their creation."""

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By "host:port"."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


class FakeCms(FakeService[CmsState]):
    """Lets at most *max_hosts* hosts be touched at once.

    A task beyond that is in-process until others are removed, one that asks for more hosts than
    that is rejected; who waits longest is tried first. Answers of tasks need no credential.
    """

    service = "cms"

    def __init__(
        self, *, max_hosts: int = 1, strict: bool = True, clock: Clock | None = None
    ) -> None:
        self.max_hosts = max_hosts
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> CmsState:
        return CmsState()

    # What a test says.

    def add_host(self, host: str, state: str = "active", **fields: Any) -> dict[str, Any]:
        """A host that may be asked for. *fields*: group, reason, …"""
        self.state.hosts[host] = {"host": host, "state": state, **fields}
        return self.state.hosts[host]

    def add_instance(
        self, conf: str, host: str, port: int, state: str = "active", **fields: Any
    ) -> dict[str, Any]:
        """An instance of the configuration *conf*."""
        item = {"host": host, "port": port, "state": state, "tags": [], "conf": conf, **fields}
        self.state.instances[f"{host}:{port}"] = item
        return item

    def reject(self, task_id: str, message: str) -> None:
        """Let the task be rejected from now on."""
        self.state.tasks[task_id] |= {"status": "reject", "message": message}

    def revoke(self, task_id: str) -> None:
        """Take all permissions of the task away: it is there, and empty."""
        self.state.tasks[task_id] |= {"status": "empty", "message": ""}

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        if request.op.startswith("maintenance."):
            return Reply(refusal.status, body=refusal.message, headers=refusal.headers)
        return super().render(refusal, request)

    # Tasks of maintenance.

    @route(
        "POST",
        "/api/walle/v11/tasks",
        op="maintenance.create",
        query=("dry_run",),
        body="json",
        auth=False,
    )
    def _create(self, request: FakeRequest) -> object:
        asked = request.json
        if not isinstance(asked, dict):
            raise Refusal(400, "", "the body is not a JSON object")
        task_id, hosts, action = asked.get("id"), asked.get("hosts"), asked.get("action")
        if not isinstance(task_id, str) or not task_id:
            raise Refusal(400, "", "No id specified")
        if not isinstance(hosts, list) or not hosts:
            raise Refusal(400, "", "No hosts specified")
        if not isinstance(action, str) or action not in _ACTIONS:
            raise Refusal(400, "", "Unsupported action")
        for host in hosts:
            if not isinstance(host, str) or host not in self.state.hosts:
                raise Refusal(400, "", f"Unknown host {host}")
        known = self.state.tasks.get(task_id)
        if known is not None:
            return _shown(known)
        task = {**asked, "hosts": list(dict.fromkeys(hosts)), "status": "in-process", "message": ""}
        self._decide(task)
        if request.query.get("dry_run") != "true":
            self.state.tasks[task_id] = task
        return _shown(task)

    @route("GET", "/api/walle/v11/tasks", op="maintenance.list", auth=False)
    def _list(self, request: FakeRequest) -> object:
        told = [t for t in self.state.tasks.values() if t["status"] in ("ok", "in-process")]
        return {
            "result": [{name: task[name] for name in ("id", "hosts", "status")} for task in told]
        }

    @route("GET", "/api/walle/v11/tasks/{id}", op="maintenance.check", auth=False)
    def _check(self, request: FakeRequest) -> object:
        task = self._task(request)
        if task["status"] == "empty":
            raise Refusal(404, "", "Empty task")
        return _shown(task)

    @route("DELETE", "/api/walle/v11/tasks/{id}", op="maintenance.remove", auth=False)
    def _remove(self, request: FakeRequest) -> object:
        del self.state.tasks[self._task(request)["id"]]
        return Reply(204)

    def _task(self, request: FakeRequest) -> dict[str, Any]:
        task = self.state.tasks.get(request.args["id"])
        if task is None:
            raise Refusal(404, "", f"Unknown task {request.args['id']}")
        return task

    def catch_up(self) -> None:
        for task in self.state.tasks.values():
            if task["status"] == "in-process":
                self._decide(task)

    def _decide(self, task: dict[str, Any]) -> None:
        """Grant the task if the policy lets it, for all that are granted already."""
        wanted = set(task["hosts"])
        held = {
            host
            for other in self.state.tasks.values()
            if other["status"] == "ok" and other["action"] not in _FREE
            for host in other["hosts"]
        }
        if task["action"] in _FREE or (
            not held & wanted and len(held) + len(wanted) <= self.max_hosts
        ):
            task |= {"status": "ok", "message": ""}
        elif len(wanted) > self.max_hosts:
            task |= {"status": "reject", "message": f"at most {self.max_hosts} hosts at once"}
        else:
            task["message"] = f"{len(held)} of {self.max_hosts} hosts are being touched"

    # States.

    @route("GET", "/hosts/{host}/state", op="hosts.state")
    def _host_state(self, request: FakeRequest) -> object:
        return _needed(self.state.hosts, request.args["host"])

    @route("PUT", "/hosts/{host}/state", op="hosts.set_state", body="json")
    def _set_host_state(self, request: FakeRequest) -> object:
        return self._changed(_needed(self.state.hosts, request.args["host"]), request)

    @route("GET", "/hosts", op="hosts.list", query=("state", "group", "limit", "offset"))
    def _hosts(self, request: FakeRequest) -> object:
        found = [
            host
            for host in self.state.hosts.values()
            if all(
                host.get(name) == request.query[name]
                for name in ("state", "group")
                if name in request.query
            )
        ]
        return page(found, request)

    @route("GET", "/instances", op="instances.list", query=("conf",))
    def _instances(self, request: FakeRequest) -> object:
        conf = request.query.get("conf")
        if not conf:
            raise Refusal(400, "missing_parameter", "conf is missing")
        return [
            {name: value for name, value in item.items() if name != "conf"}
            for item in self.state.instances.values()
            if item["conf"] == conf
        ]

    @route("PUT", "/instances/{host}:{port}/state", op="instances.set_state", body="json")
    def _set_instance_state(self, request: FakeRequest) -> object:
        name = f"{request.args['host']}:{request.args['port']}"
        return self._changed(_needed(self.state.instances, name), request)

    def _changed(self, item: dict[str, Any], request: FakeRequest) -> dict[str, Any]:
        said = request.json if isinstance(request.json, dict) else {}
        if said.get("state") not in _STATES:
            raise Refusal(400, "bad_state", f"state is one of {', '.join(_STATES)}")
        if not said.get("reason"):
            raise Refusal(400, "missing_field", "reason is missing")
        item.update({name: said.get(name) for name in ("state", "reason", "author", "until")})
        return item


def _shown(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("id", "hosts", "status", "message")}


def _needed(items: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in items:
        raise Refusal(404, "not_found", f"no {name}")
    return items[name]
