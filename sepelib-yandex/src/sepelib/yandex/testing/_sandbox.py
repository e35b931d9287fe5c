"""A fake of Sandbox: resources with their bytes, and tasks that run by the clock."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from sepelib.util.testing import Clock

from ._operations import page
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FakeSandbox", "SandboxState"]

Item = dict[str, Any]

_DAY = 86_400.0  # seconds
_PUBLIC = ("resources.get", "resources.list", "resources.links", "resources.data", "resources.link")
_NEW_TASK: Mapping[str, Any] = {"owner": None, "description": "", "input": {}, "tags": []}


@dataclass
class SandboxState:
    """Resources and tasks as they are shown, by their ids, and what is known besides."""

    resources: dict[int, Item] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    touched: dict[int, float] = field(default_factory=dict)
    """When a resource was made or touched, by the clock."""
    corrupt: dict[tuple[str, int], int] = field(default_factory=dict)
    """By source and resource: how many more downloads have a wrong byte."""
    links: dict[int, list[str]] = field(default_factory=dict)
    """Those that are not ours."""
    tasks: dict[int, Item] = field(default_factory=dict)
    outputs: dict[int, Item] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    """When a task came into its status, by the clock."""
    last: int = 0
    """The last number given to a resource or a task."""


class FakeSandbox(FakeService[SandboxState]):
    """Sandbox with nothing in it.

    A bad token is a 403; without any token resources may be read if they are *public*.
    A task that is started is queued for *queue_time* seconds of the clock, then runs for
    *run_time* and has succeeded; None: until `finish()`. One with a shorter `kill_timeout` fails.
    """

    service = "sandbox"
    prefix = "/api/v1.0"

    def __init__(
        self,
        *,
        public: bool = True,
        queue_time: float = 5.0,
        run_time: float | None = 60.0,
        strict: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.public = public
        self.queue_time = queue_time
        self.run_time = run_time
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> SandboxState:
        return SandboxState()

    def authorize(self, request: FakeRequest) -> None:
        if "Authorization" not in request.headers and self.public and request.op in _PUBLIC:
            return
        if request.token not in self.tokens:
            raise Refusal(403, "forbidden", "a valid OAuth token is needed")

    def catch_up(self) -> None:
        now = self.clock.now
        for number, resource in self.state.resources.items():
            ttl = resource["attributes"].get("ttl", "inf")
            if ttl != "inf" and self.state.touched[number] + float(ttl) * _DAY <= now:
                resource["state"] = "DELETED"
        for number in self.state.tasks:
            while self._step(number, now):
                pass

    # What a test says.

    def add_resource(
        self,
        content: bytes = b"content",
        *,
        files: Mapping[str, bytes] | None = None,
        links: int | list[str] = 1,
        **fields: Any,
    ) -> int:
        """A resource with that *content*, or with several *files*; its id.

        *links*: how many links to us it has, or which to others. *fields*: in place of type, owner,
        state, file_name, attributes and so on.
        """
        number = self._number()
        data = content if files is None else _packed(files)
        urls = links if isinstance(links, list) else []
        self.state.resources[number] = {
            "id": number,
            "type": "OTHER_RESOURCE",
            "owner": "TEST",
            "state": "READY",
            "file_name": "file",
            "md5": md5(data, usedforsecurity=False).hexdigest(),
            "multifile": files is not None,
            "skynet_id": f"fake:{number}",
            "attributes": {"ttl": "inf"},
            "own_links": 0 if isinstance(links, list) else links,
            "task": {"id": fields.pop("task", None)},
            **fields,
        }
        self.state.contents[number] = data
        self.state.touched[number] = self.clock.now
        self.state.links[number] = urls
        return number

    def corrupt(self, resource: int, *, source: str = "proxy", times: int = 1_000_000) -> None:
        """Let the next downloads of a resource from its *source*, "proxy" or "link", be wrong."""
        self.state.corrupt[source, resource] = times

    def add_task(self, type: str = "TEST_TASK", *, status: str = "draft", **fields: Any) -> int:
        """A task; its id."""
        number = self._new_task({"type": type, **fields})
        self._move(number, status)
        return number

    def finish(self, task: int, status: str, *, output: Mapping[str, Any] | None = None) -> None:
        """Bring a task to a status, whatever it does, and say what it leaves."""
        self.state.outputs[task] = dict(output or {})
        self._move(task, status)

    # Resources.

    @route("GET", "/resource/{id}", op="resources.get")
    def _get(self, request: FakeRequest) -> object:
        number = self._resource(request)
        if request.headers.get("X-Touch-Resource") == "1":
            self.state.touched[number] = self.clock.now
        return self._shown(number, request)

    @route(
        "GET",
        "/resource",
        op="resources.list",
        query=("type", "owner", "state", "attrs", "order", "limit", "offset"),
    )
    def _list(self, request: FakeRequest) -> object:
        asked = request.query
        wanted = _attributes(asked.get("attrs", "{}"))
        order = asked.get("order", "id")
        if order.lstrip("-") not in ("id", "type", "owner"):
            raise Refusal(400, "bad_parameter", f"order by {order}")
        found = [
            item
            for item in self.state.resources.values()
            if all(
                item[name] == asked[name] for name in ("type", "owner", "state") if name in asked
            )
            and wanted.items() <= item["attributes"].items()
        ]
        found.sort(key=lambda item: item[order.lstrip("-")], reverse=order.startswith("-"))
        return page([self._shown(item["id"], request) for item in found], request)

    @route("GET", "/resource/{id}/data/http", op="resources.links")
    def _links(self, request: FakeRequest) -> object:
        return [{"url": url} for url in self._urls(self._resource(request), request)]

    @route("GET", "/proxy/{id}", op="resources.data", query=("origin", "stream"))
    def _data(self, request: FakeRequest) -> object:
        number = self._resource(request)
        several = self.state.resources[number]["multifile"]
        if several is not (request.query.get("stream") == "tgz"):
            raise Refusal(400, "bad_parameter", "stream=tgz is for several files, and needed there")
        return self._content("proxy", number)

    @route("GET", "/storage/{host}/{id}", op="resources.link")
    def _link(self, request: FakeRequest) -> object:
        return self._content("link", self._resource(request))

    @route(
        "POST",
        "/upload",
        op="resources.upload",
        query=("type", "owner", "ttl", "description"),
        body="multipart",
    )
    def _upload(self, request: FakeRequest) -> object:
        file = request.files.get("file")
        if file is None:
            raise Refusal(400, "missing_file", "there is no part named file")
        ttl, owner = request.query.get("ttl", "14"), request.query.get("owner")
        if ttl != "inf" and not ttl.isdecimal():
            raise Refusal(400, "bad_parameter", "ttl is a number of days or inf")
        if ttl == "inf" and owner is None:
            raise Refusal(400, "bad_parameter", "ttl=inf is only for an explicit owner")
        number = self.add_resource(
            file.content,
            type=request.query.get("type", "OTHER_RESOURCE"),
            owner=owner or "TEST",
            file_name=file.name,
            attributes={"ttl": ttl},
            description=request.query.get("description", ""),
        )
        return Reply(201, json=self._shown(number, request))

    # Tasks.

    @route("POST", "/task", op="tasks.create", body="json")
    def _create(self, request: FakeRequest) -> object:
        fields = self._object(request)
        if not isinstance(fields.get("type"), str) or not fields["type"]:
            raise Refusal(400, "missing_field", "type is missing", details={"field": "type"})
        number = self._new_task(fields)
        headers = {"Location": f"{request.url}/{number}"}
        return Reply(201, json=self.state.tasks[number], headers=headers)

    @route("GET", "/task/{id}", op="tasks.get")
    def _get_task(self, request: FakeRequest) -> object:
        return self.state.tasks[self._task(request)]

    @route(
        "GET",
        "/task",
        op="tasks.list",
        query=("type", "owner", "status", "limit", "offset"),
    )
    def _list_tasks(self, request: FakeRequest) -> object:
        names = [n for n in ("type", "owner", "status") if n in request.query]
        found = [
            task
            for task in self.state.tasks.values()
            if all(task[name] == request.query[name] for name in names)
        ]
        return page(found, request)

    @route("PUT", "/task/{id}", op="tasks.update", body="json")
    def _update(self, request: FakeRequest) -> object:
        task = self.state.tasks[self._task(request)]
        fields = self._object(request)
        if task["status"] != "draft":
            raise Refusal(409, "wrong_state", f"task {task['id']} is {task['status']}, no draft")
        task.update({k: v for k, v in fields.items() if k not in ("id", "status")})
        return task

    @route("PUT", "/batch/tasks", op="tasks.batch", body="json")
    def _batch(self, request: FakeRequest) -> object:
        fields = self._object(request)
        actions: dict[str, Callable[[int], str]] = {
            "start": self._start,
            "stop": self._stop,
            "delete": self._delete,
        }
        action, ids = actions.get(str(fields.get("action"))), fields.get("id")
        if action is None or not isinstance(ids, list) or not all(type(n) is int for n in ids):
            raise Refusal(400, "bad_body", "action is start, stop or delete, and id a list of ids")
        items = []
        for number in ids:
            message = action(number) if number in self.state.tasks else "there is no such task"
            items.append({"id": number, "ok": not message, "message": message})
        return {"items": items}

    @route("GET", "/task/{id}/output", op="tasks.output")
    def _output(self, request: FakeRequest) -> object:
        return self.state.outputs.get(self._task(request), {})

    # Inside.

    def _new_task(self, fields: Item) -> int:
        number = self._number()
        self.state.tasks[number] = {**_NEW_TASK, **fields, "id": number}
        self._move(number, "draft")
        return number

    def _start(self, number: int) -> str:
        status = self.state.tasks[number]["status"]
        if status != "draft":
            return f"it is {status}, no draft"
        self._move(number, "queued")
        return ""

    def _stop(self, number: int) -> str:
        status = self.state.tasks[number]["status"]
        if status not in ("queued", "running"):
            return f"it is {status}, neither queued nor running"
        self._move(number, "stopped")
        return ""

    def _delete(self, number: int) -> str:
        status = self.state.tasks[number]["status"]
        if status in ("queued", "running"):
            return f"it is {status}: stop it first"
        del self.state.tasks[number]
        return ""

    def _move(self, number: int, status: str, at: float | None = None) -> None:
        self.state.tasks[number]["status"] = status
        self.state.since[number] = self.clock.now if at is None else at

    def _step(self, number: int, now: float) -> bool:
        """The next move of a task that is due; whether there was one."""
        task, since = self.state.tasks[number], self.state.since[number]
        if task["status"] == "queued":
            due, following = since + self.queue_time, "running"
        elif task["status"] == "running":
            ends = {"succeeded": self.run_time, "failed": task.get("kill_timeout")}
            times = [(float(limit), end) for end, limit in ends.items() if limit is not None]
            if not times:
                return False
            seconds, following = min(times)
            due = since + seconds
        else:
            return False
        if due > now:
            return False
        self._move(number, following, due)
        return True

    def _resource(self, request: FakeRequest) -> int:
        """The number of a resource that is there; its bytes are only while it is READY."""
        number = _number(request)
        resource = self.state.resources.get(number)
        if resource is None:
            raise Refusal(404, "not_found", f"there is no resource {request.args['id']}")
        if request.op in ("resources.data", "resources.link") and resource["state"] != "READY":
            raise Refusal(404, "not_found", f"resource {number} is {resource['state']}")
        return number

    def _task(self, request: FakeRequest) -> int:
        number = _number(request)
        if number not in self.state.tasks:
            raise Refusal(404, "not_found", f"there is no task {request.args['id']}")
        return number

    def _object(self, request: FakeRequest) -> Item:
        if not isinstance(request.json, dict):
            raise Refusal(400, "bad_body", "the body is no JSON object")
        return request.json

    def _shown(self, number: int, request: FakeRequest) -> Item:
        item = {k: v for k, v in self.state.resources[number].items() if k != "own_links"}
        http: Item = {"proxy": f"{request.root}{self.prefix}/proxy/{number}"}
        if request.headers.get("X-No-Links") != "1":
            http["links"] = self._urls(number, request)
        return {"http": http, **item}

    def _urls(self, number: int, request: FakeRequest) -> list[str]:
        count = self.state.resources[number]["own_links"]
        base = f"{request.root}{self.prefix}/storage"
        return [f"{base}/host{n + 1}/{number}" for n in range(count)] + self.state.links[number]

    def _content(self, source: str, number: int) -> Reply:
        content = self.state.contents[number]
        left = self.state.corrupt.get((source, number), 0)
        if left:
            self.state.corrupt[source, number] = left - 1
            content = bytes([content[0] ^ 1]) + content[1:] if content else b"?"
        return Reply(body=content, content_type="application/octet-stream")

    def _number(self) -> int:
        self.state.last += 1
        return self.state.last


def _number(request: FakeRequest) -> int:
    text = request.args["id"]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _attributes(text: str) -> Item:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "bad_parameter", "attrs is no JSON object")
    return found


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A .tgz, always the same for the same files."""
    import gzip
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
