"""A fake of ISS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sepelib.util.testing import Clock

from ._operations import page
from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FakeIss", "IssConfiguration", "IssState"]

_STATES = ("running", "prepared", "absent")


@dataclass
class IssConfiguration:
    revision: str
    instances: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class IssState:
    configurations: dict[str, IssConfiguration] = field(default_factory=dict)
    due: list[tuple[float, dict[str, Any], str]] = field(default_factory=list)
    """When which instance gets to which revision, and so to what it shall be."""
    stuck: dict[str, str] = field(default_factory=dict)
    """Hosts where nothing gets anywhere, and why."""


class FakeIss(FakeService[IssState]):
    """An instance is what it shall be *step* seconds of the fake's clock after that was said."""

    service = "iss"

    def __init__(
        self, *, step: float = 10.0, strict: bool = True, clock: Clock | None = None
    ) -> None:
        self.step = step
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> IssState:
        return IssState()

    # What a test says.

    def add_configuration(
        self, id: str, *hosts: str, revision: str = "1", port: int = 8080, state: str = "running"
    ) -> list[dict[str, Any]]:
        """A configuration with an instance on each host, all of them in *state*."""
        configuration = IssConfiguration(revision)
        configuration.instances = [
            {
                "host": host,
                "port": port,
                "revision": revision,
                "desired": state,
                "actual": state,
                "message": "",
                "changed_at": self._timestamp(),
            }
            for host in hosts
        ]
        self.state.configurations[id] = configuration
        return configuration.instances

    def stick(self, host: str, message: str = "stuck") -> None:
        """Let nothing on the host get anywhere from now on."""
        self.state.stuck[host] = message

    def catch_up(self) -> None:
        for entry in list(self.state.due):
            at, instance, revision = entry
            if at > self.clock.now:
                continue
            if instance["host"] in self.state.stuck:
                instance["message"] = self.state.stuck[instance["host"]]
                continue
            self.state.due.remove(entry)
            instance |= {
                "revision": revision,
                "actual": instance["desired"],
                "message": "",
                "changed_at": self._timestamp(),
            }

    # What a client asks.

    @route("GET", "/v1/hosts/{host}/instances", op="instances", query=("limit", "offset"))
    def _instances(self, request: FakeRequest) -> object:
        found = [
            instance
            for configuration in self.state.configurations.values()
            for instance in configuration.instances
            if instance["host"] == request.args["host"]
        ]
        if not found:
            raise Refusal(404, "not_found", f"no host {request.args['host']}")
        return page(found, request)

    @route("GET", "/v1/configurations/{id}/state", op="state")
    def _state(self, request: FakeRequest) -> object:
        configuration = self._configuration(request)
        counts = Counter(
            instance["actual"]
            for instance in configuration.instances
            if instance["revision"] == configuration.revision
        )
        return {
            "id": request.args["id"],
            "revision": configuration.revision,
            "total": len(configuration.instances),
            "by_actual": dict(counts),
        }

    @route("PUT", "/v1/configurations/{id}/target", op="set_target", body="json")
    def _set_target(self, request: FakeRequest) -> object:
        configuration, said = self._configuration(request), request.json
        if not isinstance(said, dict) or not isinstance(said.get("revision"), str):
            raise Refusal(400, "missing_field", "revision is missing")
        if said.get("desired") not in _STATES:
            raise Refusal(400, "bad_state", f"desired is one of {', '.join(_STATES)}")
        hosts = said.get("hosts")
        known = [instance["host"] for instance in configuration.instances]
        if hosts is not None and (
            not isinstance(hosts, list) or any(host not in known for host in hosts)
        ):
            raise Refusal(400, "bad_hosts", "hosts are those of the configuration")
        configuration.revision = said["revision"]
        for instance in configuration.instances:
            if hosts is None or instance["host"] in hosts:
                self._aim(instance, said["revision"], said["desired"])
        return Reply(202, json={"id": request.args["id"], "revision": configuration.revision})

    def _aim(self, instance: dict[str, Any], revision: str, desired: str) -> None:
        aims = [entry[2] for entry in self.state.due if entry[1] is instance]
        if (desired, revision) == (instance["desired"], (aims or [instance["revision"]])[-1]):
            return  # said again
        self.state.due = [entry for entry in self.state.due if entry[1] is not instance]
        self.state.due.append((self.clock.now + self.step, instance, revision))
        instance["desired"] = desired

    def _configuration(self, request: FakeRequest) -> IssConfiguration:
        if request.args["id"] not in self.state.configurations:
            raise Refusal(404, "not_found", f"no configuration {request.args['id']}")
        return self.state.configurations[request.args["id"]]

    def _timestamp(self) -> str:
        return self.now.isoformat().replace("+00:00", "Z")
