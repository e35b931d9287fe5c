"""Proposed contract: clustermaster, the scheduler of targets over clusters of hosts.

    clustermaster.run("index/merge", hosts=["h1"])
    clustermaster.wait("index/merge", timeout=3600.0)

To run a target that is about to run changes nothing, but one that has just ended would run again:
so `run` is not repeated when its answer is lost, and the error says `maybe_applied`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from .contract import Card
from .model import Record, key, many, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LinkHeader, Pager

__all__ = ["CARD", "ClustermasterClient", "Target", "Task"]

CARD = Card(
    service="clustermaster",
    purpose="targets that run on clusters of hosts, in the order of their dependencies",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "GET /v1/targets",
        "GET /v1/targets/{name}",
        "GET /v1/targets/{name}/tasks",
        "POST /v1/targets/{name}/{run|run-with-deps|reset|cancel}",
        "GET /v1/hosts",
    ),
    inferred=("everything",),
)


@record
class Target(Record):
    """*state*: idle, pending, running, success, failed, blocked, canceled, or another word.

    *counts*: how many of its tasks are in each state.
    """

    name: str | None = None
    type: str | None = None
    state: str | None = None
    deps: tuple[str, ...] = key("deps", of=many(str), default=())
    hosts: tuple[str, ...] = key("hosts", of=many(str), default=())
    counts: Mapping[str, int] | None = None
    last_started: datetime | str | None = key("last_started", of=moment)
    last_finished: datetime | str | None = key("last_finished", of=moment)


@record
class Task(Record):
    """A target on one host."""

    host: str | None = None
    state: str | None = None


class ClustermasterClient(OperationsClient):
    service = "clustermaster"
    FINAL: ClassVar[frozenset[str]] = frozenset({"success", "failed", "blocked", "canceled"})
    """States in which a target that was run stays."""

    @operation("GET", "/v1/targets", pages=LinkHeader(), of=Target.from_dict)
    def targets(self) -> Pager[Target]:
        """All targets, what they depend on and where they run."""
        return declared

    @operation("GET", "/v1/targets/{name}", of=Target.from_dict)
    def target(self, name: str) -> Target:
        """The state of a target and of its tasks."""
        return declared

    @operation("GET", "/v1/targets/{name}/tasks", pages=LinkHeader(), of=Task.from_dict)
    def tasks(self, name: str, *, state: str | None = None) -> Pager[Task]:
        """The tasks of a target, those in *state* only."""
        return declared

    @operation("POST", "/v1/targets/{name}/run", of=Target.from_dict)
    def run(self, name: str, *, hosts: Sequence[str] | None = None) -> Target:
        """Run a target on *hosts*, by default on all of its own."""
        return declared

    @operation("POST", "/v1/targets/{name}/run-with-deps", of=Target.from_dict)
    def run_with_deps(self, name: str, *, hosts: Sequence[str] | None = None) -> Target:
        """Run a target after all that it depends on."""
        return declared

    @operation("POST", "/v1/targets/{name}/reset", idempotent=True, of=Target.from_dict)
    def reset(self, name: str, *, hosts: Sequence[str] | None = None) -> Target:
        """Forget how a target ended: it is idle."""
        return declared

    @operation("POST", "/v1/targets/{name}/cancel", idempotent=True, of=Target.from_dict)
    def cancel(self, name: str, *, hosts: Sequence[str] | None = None) -> Target:
        """End a target that runs or is about to."""
        return declared

    @operation("GET", "/v1/hosts", pages=LinkHeader(), of=str)
    def hosts(self) -> Pager[str]:
        """The names of all hosts."""
        return declared

    def wait(self, name: str, timeout: float | None = 600.0, *, interval: float = 5.0) -> Target:
        """The target once it is over, however it ended; WaitTimeout after *timeout* seconds.

        *interval* seconds lie between the first two questions, later up to 60.
        """
        return self.wait_for(
            "wait",
            lambda: self.target(name),
            lambda target: str(target.state) in self.FINAL,
            timeout=timeout,
            interval=interval,
            state=lambda target: str(target.state),
        )
