"""Proposed contract: GenCfg, static groups of instances on hosts, versioned by tags.

    gencfg = GencfgClient("https://gencfg.example", revision="tags/stable-7")
    gencfg.hosts("WEB_PROD")

Only the name of one path, `searcherlookup/groups/NAME/instances`, is known; the rest is a proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sepelib.util.cache import TTLCache

from ._cached import kept
from .auth import Auth
from .base import ApiClient, Response
from .contract import Card
from .errors import ApiProtocolError, Where
from .model import Record, record

__all__ = ["CARD", "GencfgClient", "Group", "Instance"]

CARD = Card(
    service="gencfg",
    purpose="static groups of instances on hosts, versioned by tags",
    confidence="brief",
    sources=("BRIEF", "YATOOL"),
    auth="none",
    endpoints=(
        "GET /{rev}/searcherlookup/groups/{group}/instances",
        "GET /{rev}/groups",
        "GET /{rev}/groups/{group}",
        "GET /tags",
    ),
    inferred=(
        "all paths but searcherlookup/groups/NAME/instances",
        "the prefix of a revision",
        "the names of all fields",
        "ETag of the head",
    ),
)

_KEPT = 256  # answers

T = TypeVar("T")


@record
class Instance(Record):
    """What listens on one port of a host."""

    hostname: str | None = None
    port: int | None = None
    weight: float | None = None
    location: str | None = None


@record
class Group(Record):
    """A group, as much of it as is not instances."""

    name: str | None = None


class _Answer(NamedTuple):
    data: Any
    etag: str | None


class GencfgClient(ApiClient):
    """Asks without a credential, unless one is given; never changes anything.

    *revision*: the prefix of the paths: that of a tag, or None for the head, which is not released
    yet. What a tag has never changes: it is asked for once and kept. What the head has is kept for
    *head_ttl* seconds, then asked for again with the ETag that it had.
    Answers are big and slow: 30 s without a byte are allowed by default, and two repetitions.
    """

    service = "gencfg"
    PATHS = {
        "instances": "/{rev:path}/searcherlookup/groups/{group}/instances",
        "groups": "/{rev:path}/groups",
        "group": "/{rev:path}/groups/{group}",
        "tags": "/tags",
    }
    OPTIONS = {"revision": str, "head_ttl": (int, float)}

    HEAD = "head"
    """The prefix of the revision that is not released."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        revision: str | None = None,
        head_ttl: float = 60.0,
        timeout: float | tuple[float | None, float | None] | None = (1.0, 30.0),
        total_timeout: float | None = 100.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(url, auth, timeout=timeout, total_timeout=total_timeout, **kwargs)
        if revision == "":
            raise ValueError("the revision is a prefix of paths, or None for the head")
        self.revision = revision
        clock = self._clock
        self._fresh = TTLCache[tuple[str, str, str], Any](
            _KEPT, head_ttl, load_timeout=total_timeout, clock=clock
        )
        # What the head had when it was last asked: a 304 makes it fresh again.
        self._known = TTLCache[tuple[str, str, str], _Answer](_KEPT, 0.0, clock=clock)

    def instances(self, group: str) -> list[Instance]:
        """NotFound for a group that the revision does not have."""
        return list(self._kept("instances", group, _listed("instances", Instance.from_dict)))

    def hosts(self, group: str) -> list[str]:
        """The hosts of the instances, each once, in their order."""
        found = dict.fromkeys(instance.hostname for instance in self.instances(group))
        return [host for host in found if host is not None]

    def groups(self) -> list[str]:
        """The names of all groups."""
        return list(self._kept("groups", "", _listed("groups", str)))

    def group(self, name: str) -> Group:
        """NotFound for a group that the revision does not have."""
        found: Group = self._kept("group", name, lambda answer: Group.from_dict(answer.data))
        return found

    def tags(self) -> list[str]:
        """The names of all tags; new ones come, so they are kept as the head is."""
        return list(self._kept("tags", "", _listed("tags", str)))

    def _kept(self, op: str, group: str, read: Callable[[Response], Any]) -> Any:
        revision = self.revision or self.HEAD
        constant = revision != self.HEAD and op != "tags"
        return kept(
            self._fresh,
            (revision, op, group),
            lambda: self._asked(revision, op, group, read),
            Where(self.service, op),
            ttl=math.inf if constant else None,
        )

    def _asked(self, revision: str, op: str, group: str, read: Callable[[Response], T]) -> T:
        known = self._known.get((revision, op, group))
        etag = None if known is None else known.etag
        answer = self.request(
            op,
            "GET",
            at={"rev": revision, "group": group},
            headers={} if etag is None else {"If-None-Match": etag},
            expect=(200,) if known is None else (200, 304),
        )
        if known is not None and answer.status == 304:
            data: T = known.data
            return data
        data = read(answer)
        etag = answer.headers.get("ETag")
        if etag is not None:
            self._known.set((revision, op, group), _Answer(data, etag), ttl=math.inf)
        return data


def _listed(name: str, of: Callable[[Any], T]) -> Callable[[Response], tuple[T, ...]]:
    def read(answer: Response) -> tuple[T, ...]:
        data = answer.data
        items = data.get(name) if isinstance(data, dict) else data
        if not isinstance(items, list):
            raise ApiProtocolError(f"the answer has no list {name}", where=answer.where)
        return tuple(of(item) for item in items)

    return read
