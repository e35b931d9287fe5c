"""Parties: after the heal all see the same members, and nobody believes long what is not so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set

from soak.checks.case import Case, Verdict, Violation
from soak.history import Event

__all__ = ["judge", "members"]


def judge(case: Case, recipe: str) -> Verdict:
    agreed, found = _agreed(case, recipe)
    absent = list(_absent(case, recipe))
    return [*found, *absent], {
        "joined": len(case.of(recipe, "joined")),
        "claims": len(case.of(recipe, "claim")),
        "views": len(case.of(recipe, "view")),
        "looks at the server": len(case.of(recipe, "truth")),
        "absent": len(absent),
        "agreed": agreed,
    }


def members(starts: Mapping[int, int]) -> Set[str]:
    """What these workers, each with its life, call themselves."""
    return {f"{worker}.{life}" for worker, life in starts.items()}


def _agreed(case: Case, recipe: str) -> tuple[float, list[Violation]]:
    """From the heal until the last worker saw for good who is there; -1: not all."""
    [stopped, *_] = [*case.by_kind["stopped"], None]
    if not case.by_kind["healed"] or stopped is None:
        return 0.0, []
    lives = {e.worker: e.life for e in case.by_kind["start"] if e.t <= stopped.t}
    expected = members(lives)
    limit = 2 * case.limits.timeout + case.limits.grace + case.stalled(case.healed, stopped.t)
    latest, found = 0.0, []
    views: dict[int, list[Event]] = defaultdict(list)
    for e in case.of(recipe, "view"):
        if case.healed <= e.t <= stopped.t:
            views[e.worker].append(e)
    for worker in case.workers:
        since = None
        for view in views[worker]:
            if set(view.members) != expected or len(view.members) != len(expected):
                since = None
            elif since is None:
                since = view.t
        if since is None or since > case.healed + limit:
            seen = f"{sorted(views[worker][-1].members)}" if views[worker] else "nothing"
            text = f"party: {limit:.0f} s after the heal {seen} is seen, not {sorted(expected)}"
            found.append(Violation("view", stopped.t, worker, text))
        latest = -1.0 if since is None or latest < 0 else max(latest, since - case.healed)
    return latest, found


def _absent(case: Case, recipe: str) -> Iterator[Violation]:
    """Who says to be a member long after the server does not know it any more, and before it does.

    Any session that the worker ever had counts.
    """
    sessions: dict[int, set[int]] = defaultdict(set)
    for e in case.by_kind["session"]:
        sessions[e.worker].add(e.id)
    bound = case.limits.timeout + case.limits.grace
    looks = case.of(recipe, "truth")
    for worker in case.workers:
        claims = [e for e in case.of(recipe, "claim") if e.worker == worker and e.held]
        for since, until in _times_without(looks, sessions[worker]):
            limit = bound + case.stalled(since, until)
            late = [e for e in claims if since + limit < e.t <= until]
            if late:
                text = (
                    f"party: believes to be a member {late[-1].t - since:.1f} s after the server"
                    f" was seen without it, {len(late)} claims"
                )
                yield Violation("absent", late[0].t, worker, text)


def _times_without(looks: Sequence[Event], sessions: Set[int]) -> Iterator[tuple[float, float]]:
    """From the end of the first look that misses it to the beginning of the last in a row."""
    since = until = None
    for look in looks:
        if sessions.isdisjoint(look.sessions):
            since = look.t + look.took if since is None else since
            until = look.t
        elif since is not None and until is not None:
            yield since, until
            since = until = None
    if since is not None and until is not None:
        yield since, until
