"""Proposed contract: auth.qe, the old check of who may do what in which project.

    if not auth_qe.is_allowed(login, "releases", "admin"):
        raise Forbidden

Fails closed: only a `true` of the service is a yes. An error is raised and never becomes an
answer; old answers are given in its place only where `stale_ttl` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepelib.util.cache import TTLCache

from .auth import Auth
from .base import Response
from .contract import Card
from .errors import ApiProtocolError, NotFound
from .operations import OperationsClient, declared, operation
from .paging import LinkHeader, Pager

__all__ = ["CARD", "AuthQeClient"]

CARD = Card(
    service="auth_qe",
    purpose="roles of people in projects",
    confidence="inferred",
    sources=("BRIEF",),
    auth="OAuth",
    endpoints=(
        "GET /v1/check",
        "GET /v1/users/{login}/roles",
        "GET /v1/projects/{project}/roles/{role}/users",
    ),
    base_url="https://auth.qe.yandex-team.ru",
    inferred=("everything but the name of the host",),
)


class AuthQeClient(OperationsClient):
    """Roles, and checks of them.

    *cache_ttl*: seconds for which `is_allowed` remembers an answer, 0: it always asks.
    *stale_ttl*: seconds after those, in which that answer is given when the service fails.
    """

    service = "auth_qe"
    OPTIONS = {"cache_ttl": (int, float), "stale_ttl": (int, float)}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        cache_ttl: float = 0.0,
        stale_ttl: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(url, auth, **options)
        if stale_ttl and not cache_ttl:
            raise ValueError("stale_ttl keeps what cache_ttl has remembered: give both")
        # Each caller asks for itself, within its own deadline and with the errors of this package.
        self._answers = TTLCache[tuple[str, str, str], bool](
            10_000,
            cache_ttl,
            stale_on_error=stale_ttl,
            single_flight=False,
            load_timeout=None,
            clock=self._clock,
        )

    @operation("GET", "/v1/check", of=lambda answer: answer["allowed"])
    def allowed(self, login: str, project: str, role: str) -> bool:
        """What the service says, now; see `is_allowed`."""
        return declared

    @operation("GET", "/v1/users/{login}/roles", of=lambda answer: frozenset(answer["roles"]))
    def roles(self, login: str, project: str) -> frozenset[str]:
        """The roles of a user in *project*; NotFound for a user that is not known."""
        return declared

    @operation(
        "GET", "/v1/projects/{project}/roles/{role}/users", pages=LinkHeader(items="users"), of=str
    )
    def users(self, project: str, role: str) -> Pager[str]:
        """The logins of all who have *role* in *project*."""
        return declared

    def is_allowed(self, login: str, project: str, role: str) -> bool:
        """Whether *login* has *role* in *project*; nobody has whom the service does not know.

        Raises when there is no answer, and none in the cache; ValueError for an empty name.
        """
        if not (login and project and role):
            raise ValueError("who is asked about, in which project and role, is not empty")

        def ask() -> bool:
            try:
                return self.allowed(login, project, role)
            except NotFound:
                return False

        return self._answers.get_or_load((login, project, role), ask)

    def roles_of(self, login: str, project: str) -> frozenset[str]:
        """As `roles`; empty for a user that is not known."""
        try:
            return self.roles(login, project)
        except NotFound:
            return frozenset()

    def check(self, response: Response, /) -> None:
        name, data = response.where.op, response.data
        said = data.get(name) if isinstance(data, dict) else None
        if (name == "allowed" and not isinstance(said, bool)) or (
            name == "roles"
            and not (isinstance(said, list) and all(isinstance(role, str) for role in said))
        ):
            raise ApiProtocolError(f"the answer does not say {name}", status=response.status)
