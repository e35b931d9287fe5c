"""What a request may cost, known to all that works for it: adapter, connection, socket, body.

requests and urllib3 hand a float for each socket operation downwards, which cannot say "by then".
So the call is a context variable: the session binds it, the connection finds it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sepelib.util.deadline import Deadline, deadline

from ._raised import DeadlineExceeded
from ._shown import shown_url

if TYPE_CHECKING:
    from requests import PreparedRequest

    from sepelib.util.retry import RetryPolicy

    from ._exchange import Backend

__all__ = ["Call", "Stage", "current_call", "under"]


class Stage(enum.Enum):
    """How far one attempt has come. The value is what it waits for.

    UNSENT ──send──► SENT ──first byte──► REPLIED
    """

    UNSENT = "connecting"
    SENT = "waiting for the reply"
    REPLIED = "reading the reply"


class Call:
    """One `session.request()`, its redirects and retries included; belongs to one greenlet.

    *idempotent*: None lets the method decide. *read_timeout*: of the attempt under way.
    """

    __slots__ = (
        "backend",
        "clipped",
        "deadline",
        "endpoint",
        "expired",
        "idempotent",
        "max_body",
        "policy",
        "read_timeout",
        "sent_before",
        "stage",
        "url",
    )

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy,
        *,
        max_body: int | None,
        endpoint: str | None = None,
        idempotent: bool | None = None,
    ) -> None:
        self.backend = backend
        self.policy = policy
        self.endpoint = endpoint
        self.idempotent = idempotent
        self.max_body = max_body
        self.url: str | None = None
        self.deadline: Deadline | None = None
        self.read_timeout: float | None = None
        self.stage = Stage.UNSENT
        self.sent_before = False
        self.clipped = False
        self.expired = False

    @property
    def maybe_sent(self) -> bool:
        """Whether a server may have seen this attempt, one before it, or where that led."""
        return self.sent_before or self.stage is not Stage.UNSENT

    def begin(self) -> None:
        """An attempt begins, under the deadline in force here."""
        self.deadline = Deadline.current()
        self.sent_before = self.maybe_sent
        self.stage = Stage.UNSENT
        self.clipped = self.expired = False

    def limit(self, timeout: float | None) -> float | None:
        """*timeout*, or what the deadline leaves; TimeoutError when nothing is left."""
        if self.deadline is None:
            return timeout
        left = self.deadline.remaining()
        self.clipped = timeout is None or left < timeout
        if not self.clipped:
            return timeout
        if left <= 0:
            self.expired = True
            raise TimeoutError("the deadline is over")
        return left

    def timed_out(self) -> None:
        """The wait that `limit()` was asked for has ended with a TimeoutError."""
        self.expired = self.clipped

    def exceeded(self, request: PreparedRequest) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{request.method} {shown_url(request.url or '')}: "
            f"deadline exceeded while {self.stage.value}",
            request=request,
            maybe_sent=self.maybe_sent,
        )


current_call: ContextVar[Call | None] = ContextVar("sepelib.http.call", default=None)


@contextmanager
def under(call: Call, total_timeout: float | None) -> Iterator[None]:
    """Bind *call*, and let the block and all that it calls end within *total_timeout*."""
    with deadline(total_timeout):
        token = current_call.set(call)
        try:
            yield
        finally:
            current_call.reset(token)
