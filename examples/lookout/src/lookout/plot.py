"""The geometry and the words of one latency plot; the template draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lookout.records import Result

__all__ = ["HEIGHT", "WIDTH", "Plot", "percentile", "plot"]

WIDTH, HEIGHT = 300.0, 64.0
MARGIN = 4.0  # above and below, so that a thick line stays inside


@dataclass(frozen=True, slots=True)
class Plot:
    """In the units of a `viewBox` of WIDTH x HEIGHT, the newest probe at the right edge."""

    lines: list[str]  # `points` of polylines; a probe without an answer breaks the line
    failures: list[float]  # x of the probes that failed
    limit: float | None  # y of the highest latency that is still good
    top: float | None  # seconds at the upper edge; None: no answer, no scale
    description: str  # the same for who cannot see it


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank: a latency that was really measured; None without any."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def plot(results: Sequence[Result], slots: int, max_latency: float | None) -> Plot:
    """The last *slots* of *results*, drawn to the scale of the slowest answer among them."""
    results = results[-slots:]
    answered = [r.latency for r in results if r.status is not None]
    slowest = max(answered, default=0.0)
    # The limit is shown only where it does not squeeze all answers into a flat line below it.
    shows_limit = max_latency is not None and slowest > max_latency / 4
    top = _round_up(max(slowest, max_latency or 0.0) if shows_limit else slowest)

    def x(index: int) -> float:
        return round((slots - len(results) + index + 0.5) * WIDTH / slots, 1)

    def y(latency: float) -> float:
        return round(HEIGHT - MARGIN - latency / top * (HEIGHT - 2 * MARGIN), 1)

    runs: list[list[str]] = [[]]
    for index, result in enumerate(results):
        if result.status is None:
            runs.append([])
        else:
            runs[-1].append(f"{x(index):g},{y(result.latency):g}")
    return Plot(
        # Of a single point nothing would be drawn; twice the same is a dot.
        lines=[" ".join(run * 2 if len(run) == 1 else run) for run in runs if run],
        failures=[x(index) for index, result in enumerate(results) if not result.ok],
        limit=y(max_latency) if shows_limit and max_latency is not None else None,
        top=top if answered else None,
        description=_describe(results, answered),
    )


def _round_up(seconds: float) -> float:
    """The next 1, 2 or 5 times a power of ten, so that the scale rarely changes."""
    power = 10.0 ** math.floor(math.log10(max(seconds, 0.001)))
    # 1 % of grace: 10 ms measured as 10.0 is not worth an upper edge of 20.
    return next(n * power for n in (1, 2, 5, 10) if seconds <= n * power * 1.01)


def _describe(results: Sequence[Result], answered: Sequence[float]) -> str:
    if not results:
        return "No probe yet."
    failed = sum(not r.ok for r in results)
    words = f"Latency of the last {len(results)} probes: "
    if answered:
        words += f"{min(answered) * 1000:.0f} to {max(answered) * 1000:.0f} ms"
    else:
        words += "no answer"
    return f"{words}; {failed} failed." if failed else f"{words}; none failed."
