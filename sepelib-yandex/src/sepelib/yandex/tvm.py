"""TVM: tickets by which services know one another, from the local daemon tvmtool.

    tvm = TvmClient()                                       # the environment says where it is
    blackbox = BlackboxClient(auth=TvmTicket(tvm, "blackbox"))

A ticket is got once and used for all requests: for 8 minutes as it is; then one call starts a
thread (a greenlet in a patched process) that gets the next one, and nobody waits. One of more than
10 minutes is waited for, and if tvmtool fails the old one is used, until it is 11 hours old.
"""

from __future__ import annotations

import enum
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

from sepelib.core.config import ConfigError
from sepelib.util import deadline
from sepelib.util.cache import TTLCache
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.secrets import Secret

from ._hidden import hidden, revealed, with_hidden
from ._shown import shown_text
from .auth import TokenSource, source_from_config
from .base import ApiClient, Response
from .contract import Card
from .errors import ApiProtocolError, CredentialsUnavailable, DeadlineExceeded, Where, YandexError
from .model import Record, key, record

__all__ = ["CARD", "Health", "ServiceTicketCheck", "Ticket", "TvmClient", "UserTicketCheck"]

CARD = Card(
    service="tvm",
    purpose="tickets by which services know one another",
    confidence="public-code",
    sources=("YDB-TVM", "YT-AUTH"),
    auth="the local token, as it is, in Authorization",
    endpoints=(
        "GET /tvm/tickets",
        "GET /tvm/checksrv",
        "GET /tvm/checkusr",
        "GET /tvm/ping",
    ),
    inferred=("how long tvmtool is left alone after it has failed",),
)

_REFRESH_AGE = 8 * 60.0  # seconds, as all of these
_FRESH_AGE = 10 * 60.0
_USABLE_AGE = 11 * 3600.0
_REST = 10.0  # after a failure, while there is an old ticket
_DESTINATIONS = 1000

_log = logging.getLogger(__name__)


class Health(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


_HEALTH = {200: Health.OK, 206: Health.WARNING, 500: Health.ERROR}


@record
class Ticket(Record):
    """A service ticket, or the *error* why there is none."""

    ticket: Secret[str] | None = key("ticket", of=hidden)
    tvm_id: int | None = None
    error: str = ""


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else ()


@record
class ServiceTicketCheck(Record):
    """Which service a ticket is from; `src` means nothing unless it is valid."""

    is_valid: bool = False
    src: int | None = None
    error: str = ""
    logging_string: str | None = None


@record
class UserTicketCheck(Record):
    """On behalf of which users a ticket is; they mean nothing unless it is valid."""

    is_valid: bool = False
    default_uid: int | None = None
    uids: tuple[int, ...] = key("uids", of=_items, default=())
    scopes: tuple[str, ...] = key("scopes", of=_items, default=())
    """Such as bb:sessionid."""
    error: str = ""
    logging_string: str | None = None


class _LocalToken:
    """Without a scheme."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def apply(self, headers: MutableMapping[str, str], /) -> None:
        headers["Authorization"] = self._source.token().reveal()

    def invalidate(self) -> None:
        self._source.invalidate()


class _Held(NamedTuple):
    ticket: Secret[str]
    since: float


class TvmClient(ApiClient):
    """Asks tvmtool, and keeps service tickets; is what `auth.TvmTicket` takes.

    *url*: by default what DEPLOY_TVM_TOOL_URL says. *token*: the local token; by default that of
    TVMTOOL_LOCAL_AUTHTOKEN. *src*: the alias of this service, where tvmtool knows several.
    The rest as in `ApiClient`; a call takes half a second at most. Threads and greenlets may
    share it. `close()` waits for a refresh that is under way.
    """

    service = "tvm"
    PATHS = {
        "tickets": "/tvm/tickets",
        "checksrv": "/tvm/checksrv",
        "checkusr": "/tvm/checkusr",
        "ping": "/tvm/ping",
    }
    OPTIONS = {"src": str}

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        token: str | Secret[str] | TokenSource | None = None,
        *,
        src: str | None = None,
        timeout: float | tuple[float | None, float | None] | None = (0.1, 0.5),
        total_timeout: float | None = 0.5,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] | None = None,
        **kwargs: Any,
    ) -> None:
        url = url or os.environ.get("DEPLOY_TVM_TOOL_URL")
        if not url:
            raise ValueError("no url= and no DEPLOY_TVM_TOOL_URL says where tvmtool is")
        if token is None:
            token = TokenSource.env("TVMTOOL_LOCAL_AUTHTOKEN")
        elif not isinstance(token, TokenSource):
            token = TokenSource(token)
        super().__init__(
            url,
            _LocalToken(token),
            timeout=timeout,
            total_timeout=total_timeout,
            retry=retry or RetryPolicy(YandexError, backoff=Backoff(0.05, cap=0.1)),
            clock=clock,
            **kwargs,
        )
        self._src = src
        self._held = TTLCache[str, _Held](
            _DESTINATIONS,
            _FRESH_AGE,
            stale_on_error=_USABLE_AGE - _FRESH_AGE,
            load_timeout=total_timeout,
            clock=clock,
        )
        self._rests: dict[str, float] = {}  # until when; of each that there was a ticket for
        self._permit = [None]  # to refresh, for one at a time
        self._refresher: threading.Thread | None = None

    @classmethod
    def from_config(cls, section: Mapping[str, Any], **kwargs: Any) -> Self:
        """As in `ApiClient`; in place of `auth` one of `token`, `token_env`, `token_file`, or none.

        ConfigError names what does not fit.
        """
        left = dict(section)
        if "auth" in left:
            raise ConfigError("tvm has the unknown key auth: its token is in token_file")
        if any(name in left for name in ("token", "token_env", "token_file")):
            kwargs.setdefault("token", source_from_config("tvm", left, "token"))
        if not left.get("url") and not os.environ.get("DEPLOY_TVM_TOOL_URL"):
            raise ConfigError("tvm.url is missing, and there is no DEPLOY_TVM_TOOL_URL")
        return super().from_config(left, **kwargs)

    def service_ticket(self, dst: str, /) -> Secret[str]:
        """A ticket for the service *dst*, mostly without asking tvmtool.

        Raises CredentialsUnavailable.
        """
        try:
            held = self._held.get_or_load(dst, lambda: self._got(dst))
        except YandexError:
            raise
        except deadline.DeadlineExceeded:
            # Of the caller, while another one is asking.
            raise DeadlineExceeded(
                "the deadline is over, waiting for a service ticket",
                where=Where(self.service, "tickets"),
            ) from None
        if _REFRESH_AGE <= self._now() - held.since < _FRESH_AGE:
            self._refresh_behind(dst)
        return held.ticket

    def forget(self, dst: str, /) -> None:
        """The ticket was refused: the next call asks tvmtool, and has the old one if it fails."""
        self._held.invalidate(dst)

    def tickets(self, dsts: Iterable[str], *, src: str | None = None) -> dict[str, Ticket]:
        """Tickets for all of *dsts* as tvmtool has them now, by their names."""
        params = {"dsts": ",".join(dsts), "src": src or self._src}
        answer = self.request("tickets", "GET", params=params).data
        return {
            str(dst): Ticket.from_dict(with_hidden(found, "ticket"))
            for dst, found in answer.items()
        }

    def checksrv(self, ticket: str | Secret[str], *, dst: str | None = None) -> ServiceTicketCheck:
        """Which service has sent *ticket* to us, in X-Ya-Service-Ticket.

        *dst*: our alias, by default the client's *src*, else self. A ticket that is not for us is
        a result with `is_valid` False.
        """
        secret = revealed(ticket)
        response = self.request(
            "checksrv",
            "GET",
            params={"dst": dst or self._src or "self"},
            headers={"X-Ya-Service-Ticket": secret},
            expect=(200, 403),
        )
        found = ServiceTicketCheck.from_dict(response.data)
        error = shown_text(str(found.error), [secret])
        return replace(found, is_valid=response.status == 200, error=error)

    def checkusr(
        self, ticket: str | Secret[str], *, override_env: str | None = None
    ) -> UserTicketCheck:
        """On behalf of whom *ticket* is, that came in X-Ya-User-Ticket; as `checksrv()`."""
        secret = revealed(ticket)
        response = self.request(
            "checkusr",
            "GET",
            params={"override_env": override_env},
            headers={"X-Ya-User-Ticket": secret},
            expect=(200, 403),
        )
        found = UserTicketCheck.from_dict(response.data)
        error = shown_text(str(found.error), [secret])
        return replace(found, is_valid=response.status == 200, error=error)

    def ping(self) -> Health:
        """How tvmtool is. Raises only when it does not say so."""
        response = self.request("ping", "GET", expect=_HEALTH, decode=False)
        return _HEALTH[response.status]

    def close(self) -> None:
        if self._refresher is not None:
            self._refresher.join(self._total_timeout)
        super().close()

    # Inside.

    def check(self, response: Response, /) -> None:
        if response.where.op != "ping" and not isinstance(response.data, dict):
            raise ApiProtocolError("the answer is no JSON object", status=response.status)

    def _now(self) -> float:
        return (self._clock or time.monotonic)()

    def _got(self, dst: str) -> _Held:
        since = self._now()
        if self._rests.get(dst, since) > since:
            raise CredentialsUnavailable(f"no service ticket for {dst}: tvmtool has just failed")
        try:
            found = self.tickets([dst]).get(dst) or Ticket.from_dict({})
            if not found.ticket:
                said = shown_text(str(found.error)) or "tvmtool gives none"
                raise CredentialsUnavailable(said, where=Where(self.service, "tickets"))
        except YandexError as error:
            if dst in self._rests:
                self._rests[dst] = self._now() + _REST
            raise CredentialsUnavailable(f"no service ticket for {dst}: {error}") from error
        self._rests[dst] = since
        return _Held(found.ticket, since)

    def _refresh_behind(self, dst: str) -> None:
        """By a thread of its own, unless there is one or tvmtool has just failed."""
        if self._rests.get(dst, 0.0) > self._now():
            return
        try:
            self._permit.pop()
        except IndexError:
            return
        self._refresher = threading.Thread(
            target=self._refresh, args=(dst,), name="tvm-refresh", daemon=True
        )
        try:
            self._refresher.start()
        except BaseException:
            self._refresher = None
            self._permit.append(None)
            raise

    def _refresh(self, dst: str) -> None:
        try:
            self._held.set(dst, self._got(dst))
        except CredentialsUnavailable as error:
            _log.warning("%s; the last one is used", error)
        finally:
            self._permit.append(None)
