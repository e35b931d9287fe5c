"""What goes wrong, and when."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from ._request import Headers, Reply

__all__ = ["Faults", "Outcome"]

Reset = Literal["before-apply", "after-apply"]


class Outcome(NamedTuple):
    """What becomes of one request.

    *status* with *headers* and *body* (None: an error in the shape of the service) instead of the
    proper answer; *apply*: the service has done what was asked all the same. A *body* without a
    status replaces the body of the proper answer. *reset*: the connection is reset in place of an
    answer. *delay* and *drip*: seconds before the answer, and before each byte of its body.
    """

    status: int | None = None
    headers: Headers = ()
    body: bytes | None = None
    apply: bool = True
    reset: Reset | None = None
    delay: float = 0.0
    drip: float = 0.0

    @property
    def decides(self) -> bool:
        """Whether it is more than a matter of time."""
        return self.status is not None or self.body is not None or self.reset is not None

    @property
    def applies(self) -> bool:
        """Whether the service does what it was asked to do."""
        return self.reset != "before-apply" and (self.status is None or self.apply)


class _Rule:
    def __init__(self, op: str, outcome: Outcome, times: int | None) -> None:
        self.op = op
        self.outcome = outcome
        self.times = times


class _Limit:
    def __init__(self, op: str, count: int, per: float) -> None:
        self.op = op
        self.count = count
        self.per = per
        self.passed: list[float] = []


class Faults:
    """The faults of one fake. None at first.

        fake.faults.next(status=503, headers={"Retry-After": "1"}, times=2)
        fake.faults.on("issues.create", reset="after-apply")
        fake.faults.on("*", delay=0.5)
        fake.faults.rate_limit(5, per=1.0)

    *op* is the name of an operation or a pattern of names (`"issues.*"`). What is due `next` comes
    before what is `on`; delays of several rules add up, of the rest the first one counts.
    May be used by all threads and greenlets.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._mind = threading.Lock()
        self._next: list[_Rule] = []
        self._lasting: list[_Rule] = []
        self._limits: list[_Limit] = []

    def next(
        self,
        op: str = "*",
        *,
        times: int = 1,
        status: int | None = None,
        headers: Headers = (),
        body: bytes | str | None = None,
        json: object = ...,
        apply: bool = False,
        reset: Reset | None = None,
        delay: float = 0.0,
        drip: float = 0.0,
    ) -> None:
        """Let it strike the next *times* requests of *op*; for the rest see `on`."""
        outcome = _outcome(status, headers, body, json, apply, reset, delay, drip)
        self._add(self._next, op, outcome, times)

    def on(
        self,
        op: str,
        *,
        times: int | None = None,
        status: int | None = None,
        headers: Headers = (),
        body: bytes | str | None = None,
        json: object = ...,
        apply: bool = False,
        reset: Reset | None = None,
        delay: float = 0.0,
        drip: float = 0.0,
    ) -> None:
        """Let it strike each request of *op*, or the first *times* of them.

        *status*: this answer, with *headers*, and *body* or *json*, by default an error as the
        service writes it; nothing is applied, unless *apply*. *body* or *json* alone: the proper
        answer with another body. *reset*: a TCP reset, "before-apply" or "after-apply" the
        service did what it was asked to. *delay*: seconds from there to the answer; of real time:
        in-process, a delay beyond the read timeout ends at that, in a ReadTimeout. *drip*:
        seconds before each byte of the body.
        """
        outcome = _outcome(status, headers, body, json, apply, reset, delay, drip)
        self._add(self._lasting, op, outcome, times)

    def play(self, reply: Reply, op: str = "*", *, times: int = 1) -> None:
        """Answer the next *times* requests of *op* by *reply*; nothing is applied."""
        outcome = Outcome(reply.status, list(reply.headers), reply.body, apply=False)
        self._add(self._next, op, outcome, times)

    def rate_limit(self, count: int, *, per: float = 1.0, op: str = "*") -> None:
        """429 with Retry-After beyond *count* requests in *per* seconds of the fake's clock."""
        if count < 1 or per <= 0:
            raise ValueError("a rate limit is of at least one request in some time")
        with self._mind:
            self._limits.append(_Limit(op, count, per))

    def clear(self) -> None:
        """No faults any more. A delay under way goes on."""
        with self._mind:
            self._next, self._lasting, self._limits = [], [], []

    @property
    def pending(self) -> int:
        """How many more requests the faults of `next` wait for."""
        with self._mind:
            return sum(rule.times or 0 for rule in self._next)

    def take(self, op: str) -> Outcome:
        """What becomes of the request of *op* that came now. For the fake."""
        with self._mind:
            due = [rule for rule in self._next if fnmatchcase(op, rule.op)][:1]
            due += [rule for rule in self._lasting if fnmatchcase(op, rule.op)]
            for rule in due:
                if rule.times is not None:
                    rule.times -= 1
            self._next = [rule for rule in self._next if rule.times != 0]
            self._lasting = [rule for rule in self._lasting if rule.times != 0]
            outcomes = [rule.outcome for rule in due]
            if not any(outcome.decides for outcome in outcomes):
                outcomes += self._limited(op)
        decisive = next((outcome for outcome in outcomes if outcome.decides), Outcome())
        return decisive._replace(
            delay=sum(outcome.delay for outcome in outcomes),
            drip=sum(outcome.drip for outcome in outcomes),
        )

    def _add(self, rules: list[_Rule], op: str, outcome: Outcome, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError("a fault strikes at least once")
        with self._mind:
            rules.append(_Rule(op, outcome, times))

    def _limited(self, op: str) -> list[Outcome]:
        now = self._now()
        limits = [limit for limit in self._limits if fnmatchcase(op, limit.op)]
        for limit in limits:
            limit.passed = [then for then in limit.passed if then > now - limit.per]
            if len(limit.passed) >= limit.count:
                wait = max(1, math.ceil(limit.passed[0] + limit.per - now))
                return [Outcome(429, {"Retry-After": str(wait)}, apply=False)]
        for limit in limits:
            limit.passed.append(now)
        return []


def _outcome(
    status: int | None,
    headers: Headers,
    body: bytes | str | None,
    json: object,
    apply: bool,
    reset: Reset | None,
    delay: float,
    drip: float,
) -> Outcome:
    if json is not ...:
        body = Reply(json=json).body
    if isinstance(body, str):
        body = body.encode()
    outcome = Outcome(status, headers, body, apply, reset, delay, drip)
    if not outcome.decides and not delay and not drip:
        raise ValueError("a fault without an effect: say status, body, json, reset, delay or drip")
    if delay < 0 or drip < 0:
        raise ValueError("a delay is zero seconds or more")
    if reset is not None and (status is not None or body is not None):
        raise ValueError("a connection that is reset brings no answer")
    return outcome
