"""A fake of tvmtool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FakeTvmTool", "TvmState"]

SELF = "self"


@dataclass
class ServiceTicket:
    src: int
    dst: str


@dataclass
class UserTicket:
    uids: tuple[int, ...]
    scopes: tuple[str, ...]


@dataclass
class TvmState:
    destinations: dict[str, int] = field(default_factory=dict)
    """tvm_id by alias."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why there is no ticket, by alias."""
    generation: int = 1
    """Part of each ticket, so that a new one can be told from an old one."""
    service_tickets: dict[str, ServiceTicket] = field(default_factory=dict)
    """Of others, for us."""
    user_tickets: dict[str, UserTicket] = field(default_factory=dict)
    health: str = "ok"
    """ok, warning or error."""


class FakeTvmTool(FakeService[TvmState]):
    """tvmtool, with the tickets of a service whose alias is "self".

        tvm = FakeTvmTool()
        tvm.add_destination("blackbox", 222)
        tvm.ticket("blackbox")          # what a client is given
        tvm.rotate()                    # from now on another one

    A service that was not added is a 400.
    """

    service = "tvm"

    def new_state(self) -> TvmState:
        return TvmState()

    def config(self) -> dict[str, Any]:
        return {"url": self.url, "token": self.token}

    def add_destination(self, alias: str, tvm_id: int, *, error: str = "") -> None:
        """A service that tickets can be had for; with *error*, that instead."""
        self.state.destinations[alias] = tvm_id
        self.state.errors.pop(alias, None)
        if error:
            self.state.errors[alias] = error

    def ticket(self, alias: str) -> str:
        """The service ticket that is given for *alias* now."""
        tvm_id = self.state.destinations[alias]
        return f"3:serv:to-{tvm_id}-no-{self.state.generation}:signed"

    def rotate(self) -> None:
        """Give new tickets."""
        self.state.generation += 1

    def add_service_ticket(self, ticket: str, *, src: int, dst: str = SELF) -> None:
        """A ticket with which the service *src* comes to *dst*."""
        self.state.service_tickets[ticket] = ServiceTicket(src, dst)

    def add_user_ticket(self, ticket: str, *uids: int, scopes: tuple[str, ...] = ()) -> None:
        """A ticket of users, the first one of *uids* is the default."""
        self.state.user_tickets[ticket] = UserTicket(uids, scopes or ("bb:sessionid",))

    # The service.

    def authorize(self, request: FakeRequest) -> None:
        if request.headers.get("Authorization") not in self.tokens:
            raise Refusal(401, "unauthorized", "Invalid authentication token")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        return Reply(refusal.status, body=refusal.message, headers=refusal.headers)

    @route("GET", "/tvm/tickets", op="tickets", query=("dsts", "src"))
    def _tickets(self, request: FakeRequest) -> object:
        wanted = [dst for dst in request.query.get("dsts", "").split(",") if dst]
        if not wanted:
            raise Refusal(400, "bad_request", "missing parameter dsts")
        answer = {}
        for alias in wanted:
            tvm_id = self.state.destinations.get(alias)
            if tvm_id is None:
                raise Refusal(400, "bad_request", f"no destination {alias} in the configuration")
            error = self.state.errors.get(alias, "")
            ticket = "" if error else self.ticket(alias)
            answer[alias] = {"ticket": ticket, "tvm_id": tvm_id, "error": error}
        return answer

    @route("GET", "/tvm/checksrv", op="checksrv", query=("dst",))
    def _checksrv(self, request: FakeRequest) -> object:
        ticket = request.headers.get("X-Ya-Service-Ticket")
        if not ticket or "dst" not in request.query:
            raise Refusal(400, "bad_request", "missing dst or X-Ya-Service-Ticket")
        found = self.state.service_tickets.get(ticket)
        strings = {"debug_string": "ticket_type=serv", "logging_string": _logging(ticket)}
        if found is None:
            return Reply(403, json={"error": "invalid ticket", **strings})
        if found.dst != request.query["dst"]:
            return Reply(403, json={"src": found.src, "error": "wrong dst", **strings})
        return {"src": found.src, **strings}

    @route("GET", "/tvm/checkusr", op="checkusr", query=("override_env",))
    def _checkusr(self, request: FakeRequest) -> object:
        ticket = request.headers.get("X-Ya-User-Ticket")
        if not ticket:
            raise Refusal(400, "bad_request", "missing X-Ya-User-Ticket")
        found = self.state.user_tickets.get(ticket)
        strings = {"debug_string": "ticket_type=user", "logging_string": _logging(ticket)}
        if found is None:
            return Reply(403, json={"error": "invalid ticket", **strings})
        users = {"default_uid": found.uids[0], "uids": list(found.uids)}
        return {**users, "scopes": list(found.scopes), **strings}

    @route("GET", "/tvm/ping", op="ping", auth=False)
    def _ping(self, request: FakeRequest) -> Reply:
        health = self.state.health
        return Reply({"ok": 200, "warning": 206, "error": 500}[health], body=health)


def _logging(ticket: str) -> str:
    """Without the signature."""
    return ticket.rpartition(":")[0]
