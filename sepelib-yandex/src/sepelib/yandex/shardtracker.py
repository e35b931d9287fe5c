"""Proposed contract: shardtracker, which hosts hold which shards of the search index.

for shard, hosts in shardtracker.lookup_all(shards).items():
    ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar

from ._arguments import several
from .base import Response
from .contract import Card
from .errors import ApiProtocolError
from .model import Record, key, moment, record
from .operations import OperationsClient, declared, operation
from .paging import LimitOffset, LinkHeader, Pager

__all__ = ["CARD", "Place", "Shard", "ShardtrackerClient"]

CARD = Card(
    service="shardtracker",
    purpose="which hosts hold which shards of the index",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "GET /v1/shards",
        "GET /v1/shards/{shard}/hosts",
        "GET /v1/hosts/{host}/shards",
        "POST /v1/shards/{shard}/register",
        "POST /v1/lookup",
    ),
    base_url="https://shardtracker.search.yandex.net",
    inferred=("everything but the name of the host",),
)


@record
class Shard(Record):
    """A shard; *state* is that on the host which was asked for."""

    shard: str | None = None
    state: str | None = None


@record
class Place(Record):
    """A host that has a shard. *state*: ready, downloading, broken, or another word."""

    host: str | None = None
    state: str | None = None
    updated_at: datetime | str | None = key("updated_at", of=moment)


class ShardtrackerClient(OperationsClient):
    service = "shardtracker"
    LOOKUP_LIMIT: ClassVar[int] = 1000
    """Names that the service takes in one lookup."""

    @operation("GET", "/v1/shards", pages=LimitOffset(), of=Shard.from_dict)
    def shards(self, *, prefix: str | None = None) -> Pager[Shard]:
        """The shards whose names begin with *prefix*."""
        return declared

    @operation(
        "GET", "/v1/shards/{shard}/hosts", pages=LinkHeader(items="hosts"), of=Place.from_dict
    )
    def hosts(self, shard: str) -> Pager[Place]:
        """The hosts that hold a shard; NotFound for one that is not known."""
        return declared

    @operation("GET", "/v1/hosts/{host}/shards", pages=LinkHeader(), of=Shard.from_dict)
    def shards_of(self, host: str) -> Pager[Shard]:
        """The shards that a host holds."""
        return declared

    @operation("POST", "/v1/shards/{shard}/register", idempotent=True, of=Place.from_dict)
    def register(self, shard: str, host: str, path: str, *, checksum: str | None = None) -> Place:
        """Tell that *host* has a shard at *path*; again for the same host: changes it."""
        return declared

    @operation("POST", "/v1/lookup", idempotent=True)
    def lookup(self, shards: Sequence[str]) -> dict[str, list[str]]:
        """The hosts of each of at most `LOOKUP_LIMIT` shards; see `lookup_all`."""
        return declared

    def lookup_all(self, shards: Iterable[str]) -> dict[str, list[str]]:
        """The hosts of each shard, however many; one request for each `LOOKUP_LIMIT` of them."""
        names = list(dict.fromkeys(several(shards, "shards")))
        found: dict[str, list[str]] = {}
        for start in range(0, len(names), self.LOOKUP_LIMIT):
            found |= self.lookup(names[start : start + self.LOOKUP_LIMIT])
        return found

    def check(self, response: Response, /) -> None:
        if response.where.op == "lookup" and not isinstance(response.data, dict):
            raise ApiProtocolError("the answer is no object", status=response.status)
