"""The metrics of a client's session and requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sepelib.zookeeper._lease import SessionState

if TYPE_CHECKING:
    from sepelib.util.instrument import Recorder
    from sepelib.zookeeper.session import Session

__all__ = ["RequestMeters", "SessionMeters", "described"]

_OPS = {
    -11: "close",
    1: "create",
    2: "delete",
    3: "exists",
    4: "get",
    5: "set",
    6: "get_acls",
    7: "set_acls",
    8: "get_children",
    9: "sync",
    12: "get_children",
    14: "transaction",
    15: "create",
    16: "reconfig",
    18: "remove_watches",
    19: "create_container",
    21: "create_ttl",
    100: "add_auth",
    106: "add_watch",
}


def _op_name(op: int) -> str:
    return _OPS.get(op, f"op_{op}")


def described(request: Any) -> str:
    """What *request* is called in messages, which have no values and no credentials."""
    name = _op_name(request.type)
    path = getattr(request, "path", None)
    return f"{name} {path}" if path else name


class RequestMeters:
    """Requests by operation; what is looked up once per operation is kept."""

    def __init__(self, recorder: Recorder) -> None:
        self._requests = recorder.counter(
            "zk_requests", "Requests by end: ok, error, lost, timeout.", labels=("op", "result")
        )
        self._seconds = recorder.histogram(
            "zk_request_seconds", "From the call to the answer.", labels=("op",)
        )
        self._answered: dict[tuple[int, bool], tuple[Callable[..., None], ...]] = {}

    def answered(self, op: int, ok: bool, seconds: float) -> None:
        """The server has answered; not *ok* means that it refused."""
        bound = self._answered.get((op, ok))
        if bound is None:
            bound = self._answered[op, ok] = self._bind(op, ok)
        count, observe = bound
        count()
        observe(seconds)

    def unanswered(self, op: int, result: str) -> None:
        """There will be no answer: *result* is "lost" or "timeout"."""
        self._requests.labels(_op_name(op), result).inc()

    def _bind(self, op: int, ok: bool) -> tuple[Callable[..., None], ...]:
        name = _op_name(op)
        count = self._requests.labels(name, "ok" if ok else "error").inc
        return count, self._seconds.labels(name).observe


class SessionMeters:
    """Gauges that ask the session, as long as the client runs."""

    def __init__(self, recorder: Recorder) -> None:
        self._state = recorder.gauge("zk_session_state", "Sessions by state.", labels=("state",))
        self._epoch = recorder.gauge("zk_session_epoch", "Epochs of the session so far.")
        self._lease = recorder.gauge(
            "zk_lease_remaining_seconds", "Until the session is lost if no answer comes."
        )
        self.reconnects = recorder.counter("zk_reconnects", "Connections after the first.")
        self._detach: list[Callable[[], None]] = []

    def start(self, session: Session) -> None:
        """Show *session*. Several of one process are summed."""
        self.stop()
        self._detach = [
            self._epoch.bind(lambda: float(session.epoch)),
            self._lease.bind(session.lease_remaining),
        ]
        for state in SessionState:
            shown = partial(_is_in, session, state)
            self._detach.append(self._state.labels(state.value).bind(shown))

    def stop(self) -> None:
        """Show it no more."""
        detach, self._detach = self._detach, []
        for each in detach:
            each()


def _is_in(session: Session, state: SessionState) -> float:
    return float(session.state is state)
