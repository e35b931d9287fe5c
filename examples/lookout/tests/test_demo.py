"""The timetable of the demo: somebody who looks for half a minute sees all of it."""

import pytest

from lookout.demo import RULES, TIMETABLES, restarting
from lookout.judge import Rules, Standing


def answer(name: str, second: int) -> tuple[str, float]:
    if name == "supervisor":
        return ("200 OK" if restarting(second) == "RUNNING" else "a wrong answer"), 0.01
    return TIMETABLES[name](second)


def outages(name: str, seconds: int) -> list[tuple[int, int]]:
    """When incidents would open and close, probed each second."""
    standing, found, opened = Standing(), [], 0
    for second in range(seconds):
        status, delay = answer(name, second)
        before = standing.state.is_outage
        standing = standing.after(status == "200 OK" and delay <= RULES["max_latency"], Rules())
        if standing.state.is_outage and not before:
            opened = second
        if before and not standing.state.is_outage:
            found.append((opened, second))
    return found


def test_the_steady_one_never_fails() -> None:
    assert outages("steady", 600) == []


@pytest.mark.parametrize("name", ["flaky", "slow", "supervisor"])
def test_the_others_open_an_incident_within_ten_seconds_and_close_it_within_twenty(
    name: str,
) -> None:
    opened, closed = outages(name, 120)[0]

    assert 3 <= opened <= 10
    assert closed <= 20
    assert len(outages(name, 120)) >= 4


def test_at_its_slowest_the_slow_one_is_not_waited_for() -> None:
    delays = [TIMETABLES["slow"](second).delay for second in range(24)]

    assert max(delays) > RULES["timeout"]
    assert any(RULES["max_latency"] < delay < RULES["timeout"] for delay in delays)
