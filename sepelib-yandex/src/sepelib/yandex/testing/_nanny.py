"""A fake of Nanny."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sepelib.util.testing import Clock

from ._operations import page
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FakeNanny", "NannyService", "NannyState"]

# The ways from one state to another, with what lies between.
_WALKS = {
    "online": ("preparing", "updating", "online"),
    "offline": ("updating", "offline"),
    "preparing": ("preparing",),
}
_KINDS = ("runtime_attrs", "info_attrs")


@dataclass
class NannyService:
    """The snapshots of each kind, the last one is the latest; states of the runtime ones."""

    snapshots: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {kind: [] for kind in _KINDS}
    )
    states: dict[str, str] = field(default_factory=dict)
    due: list[tuple[float, str, str]] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class NannyState:
    services: dict[str, NannyService] = field(default_factory=dict)
    last_id: int = 0


class FakeNanny(FakeService[NannyState]):
    """Snapshots never change; each write needs the id of the latest one, else 409.

    *step*: seconds of the fake's clock that a snapshot spends in each state on its way to the one
    that was asked for. *require_comment*: a write without one is a 400.
    """

    service = "nanny"

    def __init__(
        self,
        *,
        step: float = 10.0,
        require_comment: bool = False,
        strict: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.step = step
        self.require_comment = require_comment
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> NannyState:
        return NannyState()

    # What a test says.

    def add_service(
        self,
        id: str,
        content: Mapping[str, Any] | None = None,
        *,
        info: Mapping[str, Any] | None = None,
        instances: tuple[tuple[str, int], ...] = (),
    ) -> NannyService:
        """A service with one snapshot of each kind."""
        made = self.state.services[id] = NannyService()
        made.instances = [{"host": host, "port": port} for host, port in instances]
        self._write(made, "runtime_attrs", dict(content or {}), "robot", "created")
        self._write(made, "info_attrs", dict(info or {}), "robot", "created")
        return made

    def change(self, id: str, content: Mapping[str, Any], *, kind: str = "runtime_attrs") -> str:
        """Somebody else writes new attributes; the id of their snapshot."""
        service = self.state.services[id]
        snapshot = self._write(service, kind, dict(content), "somebody", "by hand")
        return str(snapshot["snapshot_id"])

    def latest(self, id: str, *, kind: str = "runtime_attrs") -> dict[str, Any]:
        """The snapshot that is in force."""
        return self.state.services[id].snapshots[kind][-1]

    def move(self, id: str, snapshot_id: str, state: str) -> None:
        """Put a snapshot into *state* now; what it was on its way to is forgotten."""
        service = self.state.services[id]
        service.due = [entry for entry in service.due if entry[1] != snapshot_id]
        service.states[snapshot_id] = state

    def catch_up(self) -> None:
        for service in self.state.services.values():
            for entry in sorted(service.due):
                if entry[0] <= self.clock.now:
                    service.due.remove(entry)
                    service.states[entry[1]] = entry[2]

    # What a client asks.

    @route("GET", "/v2/services", op="services", query=("limit", "offset"))
    def _services(self, request: FakeRequest) -> object:
        return page([{"id": id} for id in self.state.services], request)

    @route("GET", "/v2/services/{id}/runtime_attrs", op="runtime_attrs")
    @route("GET", "/v2/services/{id}/info_attrs", op="info_attrs")
    def _attrs(self, request: FakeRequest) -> object:
        return self._service(request).snapshots[request.op][-1]

    @route("PUT", "/v2/services/{id}/runtime_attrs", op="set_runtime_attrs", body="json")
    @route("PUT", "/v2/services/{id}/info_attrs", op="set_info_attrs", body="json")
    def _set_attrs(self, request: FakeRequest) -> object:
        service, said = self._service(request), _object(request)
        kind = request.op.removeprefix("set_")
        based_on, content = said.get("snapshot_id"), said.get("content")
        if not isinstance(based_on, str) or not isinstance(content, dict):
            raise Refusal(400, "bad_body", "snapshot_id is a text, content an object")
        self._check_comment(said)
        latest = service.snapshots[kind][-1]["snapshot_id"]
        if based_on != latest:
            raise Refusal(409, "conflict", f"the latest snapshot is {latest}, not {based_on}")
        return self._write(service, kind, content, "caller", str(said.get("comment") or ""))

    @route("GET", "/v2/services/{id}/snapshots/{sid}", op="snapshot")
    def _snapshot(self, request: FakeRequest) -> object:
        for several in self._service(request).snapshots.values():
            for snapshot in several:
                if snapshot["snapshot_id"] == request.args["sid"]:
                    return snapshot
        raise Refusal(404, "not_found", f"no snapshot {request.args['sid']}")

    @route("PUT", "/v2/services/{id}/snapshots/{sid}/state", op="set_snapshot_state", body="json")
    def _set_snapshot_state(self, request: FakeRequest) -> object:
        service, said, snapshot_id = self._service(request), _object(request), request.args["sid"]
        if snapshot_id not in service.states:
            raise Refusal(404, "not_found", f"no snapshot {snapshot_id}")
        if said.get("state") not in tuple(_WALKS):
            raise Refusal(400, "bad_state", f"state is one of {', '.join(_WALKS)}")
        self._check_comment(said)
        state = service.states[snapshot_id]
        due = [entry for entry in service.due if entry[1] == snapshot_id]
        if said["state"] != (due[-1][2] if due else state):
            service.due = [entry for entry in service.due if entry not in due]
            walk = _WALKS[said["state"]]
            service.states[snapshot_id] = walk[0]
            service.due += [
                (self.clock.now + number * self.step, snapshot_id, state)
                for number, state in enumerate(walk[1:], 1)
            ]
        return Reply(202, json={"snapshot_id": snapshot_id, "state": service.states[snapshot_id]})

    @route("GET", "/v2/services/{id}/current_state", op="current_state")
    def _current_state(self, request: FakeRequest) -> object:
        states = self._service(request).states
        busy = ("failed", "updating", "preparing", "online")
        return {
            "state": next((one for one in busy if one in states.values()), "offline"),
            "snapshots": [{"snapshot_id": id, "state": state} for id, state in states.items()],
        }

    @route("GET", "/v2/services/{id}/instances", op="instances")
    def _instances(self, request: FakeRequest) -> object:
        return self._service(request).instances

    def _service(self, request: FakeRequest) -> NannyService:
        if request.args["id"] not in self.state.services:
            raise Refusal(404, "not_found", f"no service {request.args['id']}")
        return self.state.services[request.args["id"]]

    def _check_comment(self, said: dict[str, Any]) -> None:
        if self.require_comment and not said.get("comment"):
            raise Refusal(400, "missing_field", "comment is missing", details={"field": "comment"})

    def _write(
        self, service: NannyService, kind: str, content: dict[str, Any], author: str, comment: str
    ) -> dict[str, Any]:
        self.state.last_id += 1
        created_at = self.now.isoformat().replace("+00:00", "Z")
        snapshot = {
            "snapshot_id": f"snapshot-{self.state.last_id}",
            "content": copy.deepcopy(content),
            "meta": {"author": author, "comment": comment, "created_at": created_at},
        }
        service.snapshots[kind].append(snapshot)
        if kind == "runtime_attrs":
            service.states[str(snapshot["snapshot_id"])] = "offline"
        return snapshot


def _object(request: FakeRequest) -> dict[str, Any]:
    if not isinstance(request.json, dict):
        raise Refusal(400, "bad_body", "the body is no JSON object")
    return request.json
