"""Contract cards: what is known of each service, from where, and what is only our proposal.

Every service module opens with its card:

    CARD = Card(
        service="staff",
        purpose="the directory of employees and their groups",
        confidence="brief",
        sources=("BRIEF", "YCONN", "Y360"),
        auth="OAuth",
        endpoints=("GET /v3/persons", "GET /v3/groups", "GET /v3/groupmembership"),
        inferred=("the names of all fields", "the grammar of _query"),
    )

    card("staff")       # that of one service; imports its module
    cards()             # of all, in the order of SERVICES
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

__all__ = ["SERVICES", "Card", "Confidence", "card", "cards"]

SERVICES = (
    "alemate",
    "auth_qe",
    "blackbox",
    "center_robot",
    "clustermaster",
    "cms",
    "gencfg",
    "iss",
    "its",
    "nanny",
    "oauth",
    "otrs",
    "passport",
    "sandbox",
    "shardtracker",
    "staff",
    "startrek",
    "timeline",
    "tvm",
)
"""Each service, by the name of its module in `sepelib.yandex`."""

Confidence = Literal["public-doc", "public-code", "3rd-party", "brief", "inferred"]
"""The best evidence for a contract, best first.

public-doc: published documentation. public-code: code published by the owner of the service.
3rd-party: reported from live use. brief: known by name only. inferred: our proposal.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of the contract of *service*.

    *confidence*: the best evidence. *sources*: short names of what was read. *auth*: how a caller
    shows who it is. *endpoints*: those that matter. *base_url*: the likely one, None when nobody
    published any. *inferred*: what is our proposal, in words; ("everything",) for a service of
    which nothing is public.
    """

    service: str
    purpose: str
    confidence: Confidence
    sources: tuple[str, ...]
    auth: str
    endpoints: tuple[str, ...]
    base_url: str | None = None
    inferred: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.service not in SERVICES:
            raise ValueError(f"a contract card for {self.service!r}, which is not in SERVICES")
        if self.confidence not in get_args(Confidence):
            raise ValueError(
                f"{self.service}: {self.confidence!r} is none of {get_args(Confidence)}"
            )
        if not (self.purpose and self.auth and self.endpoints):
            raise ValueError(f"{self.service}: a contract card needs purpose, auth and endpoints")
        if not (self.sources or self.inferred):
            raise ValueError(f"{self.service}: a contract without sources says what is inferred")

    @property
    def proposed(self) -> bool:
        """Whether the contract is our proposal: nothing of it is public."""
        return self.confidence in ("brief", "inferred")


def card(service: str) -> Card:
    """The card of *service*, by the name of its module."""
    if service not in SERVICES:
        raise ValueError(f"{service!r} is no service of sepelib.yandex: {', '.join(SERVICES)}")
    found = import_module(f"sepelib.yandex.{service}").CARD
    assert isinstance(found, Card)
    return found


def cards() -> list[Card]:
    """The cards of all services."""
    return [card(service) for service in SERVICES]
