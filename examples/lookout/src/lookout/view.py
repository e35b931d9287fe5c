"""What lookout shows, as plain JSON values: the API sends them, the page is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lookout.judge import State
from lookout.ledger import Ledger
from lookout.plot import percentile
from lookout.records import Incident, Record, Result
from lookout.silences import Silence, last_of
from lookout.targets import Target
from lookout.voices import Voices

__all__ = ["duration", "latency", "status"]

SHOWN_RESULTS = 60
SHOWN_INCIDENTS = 20

# The worst comes first.
_SEVERITY = [State.DOWN, State.RECOVERING, State.SUSPECT, State.UNKNOWN, State.UP]


def status(
    targets: Sequence[Target],
    voices: Voices,
    ledger: Ledger,
    *,
    silences: Sequence[Silence],
    origins: Mapping[str, str],
    now: datetime | None = None,
) -> dict[str, Any]:
    """Every target with its last results, and the incidents, newest first.

    silences: those of now. origins: where targets are from, by their names.
    """
    now = now or datetime.now(UTC)
    shown = [
        _target(target, voices, ledger, origins.get(target.name), last_of(silences, target))
        for target in targets
    ]
    incidents = [_incident(i, now) for i in reversed(ledger.incidents)]
    states = {State(target["state"]) for target in shown}
    return {
        "at": now.isoformat(timespec="milliseconds"),
        "state": next((s for s in _SEVERITY if s in states), State.UNKNOWN),
        "last_probe": max((t["results"][-1]["at"] for t in shown if t["results"]), default=None),
        "targets": shown,
        "open_incidents": [i for i in incidents if i["state"] == "open"],
        "incidents": incidents[:SHOWN_INCIDENTS],
        "silences": [_silence(silence) for silence in silences],
        "judged_by": ledger.judge,
    }


def _target(
    target: Target, voices: Voices, ledger: Ledger, origin: str | None, silence: Silence | None
) -> dict[str, Any]:
    record = voices.shown(target)
    fresh = voices.fresh(target)
    results = list(record.results)
    answered = [r.latency for r in results if r.status is not None]
    incident = ledger.open_incident(target.name)
    return {
        "name": target.name,
        "kind": target.kind,
        "url": target.shown_url,
        "tags": sorted(target.tags),
        "origin": origin,
        "silenced": None if silence is None else _silence(silence),
        "state": voices.state(target),
        "since": record.since.isoformat() if record.since else None,
        "incident": incident.id if incident else None,
        "interval": target.interval,
        "timeout": target.timeout,
        "max_latency": target.max_latency,
        "confirm": target.rules.confirm,
        "recover": target.rules.recover,
        "p50": percentile(answered, 0.5),
        "p95": percentile(answered, 0.95),
        "probes": len(results),
        "replicas": [
            _replica(name, record, name in fresh) for name, record in voices.known(target).items()
        ],
        "results": [_result(r) for r in results[-SHOWN_RESULTS:]],
    }


def _replica(name: str, record: Record, is_fresh: bool) -> dict[str, Any]:
    return {
        "name": name,
        "state": record.standing.state,
        "streak": record.standing.streak,
        "is_fresh": is_fresh,
        "last": _result(record.results[-1]),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "at": result.at.isoformat(timespec="milliseconds"),
        "ok": result.ok,
        "latency": round(result.latency, 4),
        "status": result.status,
        "error": result.error,
        "tries": result.tries,
    }


def _incident(incident: Incident, now: datetime) -> dict[str, Any]:
    return {
        "id": incident.id,
        "target": incident.target,
        "state": "open" if incident.is_open else "closed",
        "opened_at": incident.opened_at.isoformat(timespec="milliseconds"),
        "closed_at": incident.closed_at and incident.closed_at.isoformat(timespec="milliseconds"),
        "closed_because": incident.closed_because,
        "duration": round(incident.duration(now), 3),
        "cause": incident.cause,
    }


def _silence(silence: Silence) -> dict[str, Any]:
    return {
        "id": silence.id,
        "targets": sorted(silence.targets),
        "tags": sorted(silence.tags),
        "until": silence.until.isoformat(timespec="milliseconds"),
        "by": silence.by,
        "reason": silence.reason,
        "created_at": silence.created_at.isoformat(timespec="milliseconds"),
    }


def duration(seconds: float) -> str:
    """`3.2 s`, `4 min 10 s`, `3 h 5 min`, `2 d 7 h`: two units at most."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = int(seconds)
    days, left = divmod(left, 86400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    first = next(n for n, (value, _) in enumerate(parts) if value)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value)


def latency(seconds: float | None) -> str:
    """`12 ms`, `1.2 s`, or a dash where nothing was measured."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
