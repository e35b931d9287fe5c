"""Proposed contract: ISS, which keeps instances running on hosts as a configuration wants them.

    iss = IssClient("https://iss.example", OAuthToken(TokenSource.env("ISS_TOKEN")))
    iss.set_target("web", revision="7", desired="running")
    iss.wait_state("web", "7", ratio=0.9, timeout=600.0)

Nothing of the coordinator is public. The read-only agent on each host is another service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .contract import Card
from .model import Record, key, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LimitOffset, Pager

__all__ = ["CARD", "ConfigurationState", "Instance", "IssClient"]

CARD = Card(
    service="iss",
    purpose="running instances on hosts as configurations want them",
    confidence="inferred",
    sources=("PORTO", "PERF", "YDB-POD", "BRIEF"),
    auth="OAuth",
    endpoints=(
        "GET /v1/hosts/{host}/instances",
        "GET /v1/configurations/{id}/state",
        "PUT /v1/configurations/{id}/target",
    ),
    inferred=("everything",),
)


@record
class Instance(Record):
    """An instance on a host: what it shall be (running, prepared or absent) and what it is."""

    host: str | None = None
    port: int | None = None
    revision: str | None = None
    desired: str | None = None
    actual: str | None = None
    message: str | None = None
    changed_at: datetime | str | None = key("changed_at", of=moment)


@record
class ConfigurationState(Record):
    """How many instances of *revision* are in which state; *total* is how many there shall be."""

    id: str | None = None
    revision: str | None = None
    total: int | None = None
    by_actual: Mapping[str, int] | None = None

    def share(self, actual: str) -> float:
        """The part of all instances that is in the state *actual*, 0 to 1.

        Of no instances at all each one is absent, and none is running.
        """
        counts = self.by_actual if isinstance(self.by_actual, Mapping) else {}
        there, total = _number(counts.get(actual)), _number(self.total)
        if total == 0:
            return float(actual == "absent")
        return 0.0 if there is None or total is None else min(there, total) / total


class IssClient(OperationsClient):
    """The coordinator of ISS."""

    service = "iss"

    @operation("GET", "/v1/hosts/{host}/instances", pages=LimitOffset(), of=Instance.from_dict)
    def instances(self, host: str) -> Pager[Instance]:
        """All instances on a host."""
        return declared

    @operation("GET", "/v1/configurations/{id}/state", of=ConfigurationState.from_dict)
    def state(self, id: str) -> ConfigurationState:
        """How far the instances of a configuration are."""
        return declared

    @operation("PUT", "/v1/configurations/{id}/target", expect=(200, 202))
    def set_target(
        self, id: str, *, revision: str, desired: str, hosts: Sequence[str] | None = None
    ) -> Any:
        """Say what the instances shall be: all, or those on *hosts*.

        *desired*: running, prepared or absent. Takes its time: see `wait_state`. May be repeated.
        """
        return declared

    def wait_state(
        self,
        id: str,
        revision: str,
        ratio: float = 1.0,
        timeout: float | None = 600.0,
        *,
        actual: str = "running",
        interval: float = 5.0,
    ) -> ConfigurationState:
        """The state once *ratio* of all instances are *actual* in *revision*; else WaitTimeout.

        *interval*: seconds between the first two questions; it grows to a minute.
        """
        if not 0 < ratio <= 1:
            raise ValueError(f"a ratio is above 0 and at most 1, not {ratio!r}")
        return self.wait_for(
            "wait_state",
            lambda: self.state(id),
            lambda found: found.revision == revision and found.share(actual) >= ratio,
            timeout=timeout,
            interval=interval,
            state=lambda found: f"{found.share(actual):.0%} {actual} in {found.revision}",
        )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
