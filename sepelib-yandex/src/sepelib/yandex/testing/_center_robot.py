"""A fake of center-robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._crud import CrudFake
from ._operations import Command, Listing, Read, Table, number
from ._request import FakeRequest, Refusal
from ._routes import route

__all__ = ["FakeCenterRobot"]

_STATES = {"start": "running", "stop": "stopped", "switch": None}
"""By command: the state that it leads to, None: that in which the robot is."""


@dataclass(frozen=True, kw_only=True)
class _Command(Command):
    """As Command, to a robot that is there; when it is done, the robot has changed."""

    def run(self, fake: CrudFake, request: FakeRequest) -> object:
        fake.need("robots", request.args["robot"])
        command = self.fields(request, self.required)["command"]
        if not isinstance(command, str) or command not in _STATES:
            raise Refusal(400, "bad_command", f"{command!r} is none of {', '.join(_STATES)}")
        return super().run(fake, request)

    def added(self, fake: CrudFake, key: str) -> None:
        super().added(fake, key)
        item = fake.need(self.table, key)
        state = _STATES[item["command"]]
        if state is not None:
            seconds = sum(pause for pause, _ in self.walk)
            fake.later(seconds, "robots", item["robot"], {"state": state})


class FakeCenterRobot(CrudFake):
    """Robots, and commands that are done 15 s of `clock` after they are given."""

    service = "center_robot"
    tables = (
        Table("robots", key=("name",), changed="updated_at"),
        Table("builds", key=("robot", "build_id")),
        Table("commands", created="created_at"),
    )
    operations = (
        Listing("robots", "/v1/robots", "robots", bare=True, answer=("name", "state")),
        Read("state", "/v1/robots/{name}/state", "robots"),
        _Command(
            "command",
            "/v1/robots/{robot}/commands",
            "commands",
            required=("command",),
            answer=("id",),
            defaults={"status": "new"},
            walk=((5.0, "running"), (10.0, "done")),
        ),
        Read("get_command", "/v1/commands/{id}", "commands"),
    )

    def add_robot(self, name: str, state: str = "running", **fields: Any) -> None:
        """A robot; *fields*: stage, build_id, started_at."""
        self.add("robots", {"name": name, "state": state, **fields})

    def add_build(self, robot: str, build_id: str, **fields: Any) -> None:
        """A build of an index, the newest so far; *fields*: state, started_at, finished_at."""
        self.add("builds", {"robot": robot, "build_id": build_id, **fields})

    @route("GET", "/v1/robots/{name}/builds", op="builds", query=("limit",))
    def _builds(self, request: FakeRequest) -> object:
        robot = self.need("robots", request.args["name"])["name"]
        builds = [build for build in reversed(self.all("builds")) if build["robot"] == robot]
        return builds[: number(request, "limit", 100)]
