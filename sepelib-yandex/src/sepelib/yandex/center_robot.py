"""Proposed contract: center-robot, the control centre of the search robots.

command = center_robot.command("web", "start", comment="after the upgrade")
center_robot.wait(command.id, timeout=600.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from .contract import Card
from .model import Record, key, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LinkHeader, Pager

__all__ = ["CARD", "Build", "CenterRobotClient", "Command", "Robot"]

CARD = Card(
    service="center_robot",
    purpose="states and builds of the search robots, and commands to them",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "GET /v1/robots",
        "GET /v1/robots/{name}/state",
        "GET /v1/robots/{name}/builds",
        "POST /v1/robots/{name}/commands",
        "GET /v1/commands/{id}",
    ),
    base_url="https://center-robot.yandex.net",
    inferred=("everything but the name of the host",),
)


@record
class Robot(Record):
    """*state*: running, stopped, failing, or whatever the service says."""

    name: str | None = None
    state: str | None = None
    stage: str | None = None
    build_id: str | None = None
    started_at: datetime | str | None = key("started_at", of=moment)
    updated_at: datetime | str | None = key("updated_at", of=moment)


@record
class Build(Record):
    """A build of an index."""

    build_id: str | None = None
    state: str | None = None
    started_at: datetime | str | None = key("started_at", of=moment)
    finished_at: datetime | str | None = key("finished_at", of=moment)


@record
class Command(Record):
    """Something a robot was told. *status*: new, running, done, failed, or another word."""

    id: str | None = None
    command: str | None = None
    status: str | None = None
    message: str | None = None


class CenterRobotClient(OperationsClient):
    service = "center_robot"
    FINAL: ClassVar[frozenset[str]] = frozenset({"done", "failed"})
    """States in which a command stays."""

    @operation("GET", "/v1/robots", pages=LinkHeader(), of=Robot.from_dict)
    def robots(self) -> Pager[Robot]:
        """All robots, with their names and states."""
        return declared

    @operation("GET", "/v1/robots/{name}/state", of=Robot.from_dict)
    def state(self, name: str) -> Robot:
        """What a robot does now."""
        return declared

    @operation("GET", "/v1/robots/{name}/builds", pages=LinkHeader(), of=Build.from_dict)
    def builds(self, name: str, *, limit: int | None = None) -> Pager[Build]:
        """The last builds of a robot."""
        return declared

    @operation("POST", "/v1/robots/{name}/commands", key="idempotency_key", of=Command.from_dict)
    def command(
        self,
        name: str,
        command: str,
        *,
        args: Mapping[str, Any] | None = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
    ) -> Command:
        """Tell a robot: start, stop, switch. The same *idempotency_key* is the same command."""
        return declared

    @operation("GET", "/v1/commands/{id}", of=Command.from_dict)
    def get_command(self, id: str) -> Command:
        """What has become of a command."""
        return declared

    def wait(self, id: str, timeout: float | None = 600.0, *, interval: float = 2.0) -> Command:
        """The command once it is over, however it ended; WaitTimeout after *timeout* seconds.

        *interval* seconds lie between the first two questions, later up to 60.
        """
        return self.wait_for(
            "wait",
            lambda: self.get_command(id),
            lambda command: str(command.status) in self.FINAL,
            timeout=timeout,
            interval=interval,
            state=lambda command: str(command.status),
        )
