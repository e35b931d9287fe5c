"""The judge of semaphores and conditions: good histories pass, each violation is found."""

from __future__ import annotations

import pytest

from soak.history import HARNESS
from soak.recipes import RECIPES
from soak.testing import LIMITS, History


def test_every_recipe_is_judged_and_a_history_without_lines_of_one_is_not_judged_by_it() -> None:
    for recipe in RECIPES:
        assert set(History(recipe).add(0.0, 0, "missed").judged().figures) == {recipe}


# Semaphore.


class Leases(History):
    def __init__(self) -> None:
        super().__init__("semaphore")
        self._token = 0

    def hold(
        self, asked: float, begin: float, end: float, worker: int, leases: int = 1, n: str = "1.1"
    ) -> Leases:
        self._token += 1
        token = self._token
        self.add(asked, worker, "acquire", n, leases=leases)
        self.add(begin, worker, "granted", n, token=token, leases=leases)
        for tenth in range(1, round((end - begin) * 10) + 1):
            self.add(begin + tenth / 10, worker, "claim", n, token=token, held=leases)
        self.add(end, worker, "release", n, token=token, took=0.0)
        return self

    def resize(self, begin: float, end: float | None, limit: int) -> Leases:
        self.add(begin, 9, "resize", f"r{begin}", limit=limit)
        if end is not None:
            self.add(end, 9, "resized", f"r{begin}", limit=limit)
        return self


def test_as_many_leases_as_the_limit_are_no_violation() -> None:
    h = Leases().hold(0.0, 0.1, 1.1, 0).hold(0.0, 0.2, 1.2, 1).hold(0.0, 0.3, 1.3, 2)
    h.hold(0.5, 1.1, 2.1, 3).hold(0.5, 1.2, 1.9, 4)
    report = h.judged()
    assert report.violations == []
    assert report.figures["semaphore"]["most at once"] == 3


def test_one_lease_more_than_the_limit_is_found_with_its_length() -> None:
    h = Leases().hold(0.0, 0.1, 1.1, 0).hold(0.0, 0.2, 1.2, 1).hold(0.0, 0.3, 1.3, 2)
    h.hold(0.5, 0.8, 1.8, 3)
    report = h.judged()
    assert [v.text for v in report.violations] == [
        "semaphore: 4 at once by workers 0, 1, 2, 3, 3 at most"
    ]
    assert report.figures["semaphore"]["longest"] == pytest.approx(0.3)


def test_several_leases_of_one_grant_count_each() -> None:
    assert Leases().hold(0.0, 0.1, 1.1, 0, 2).hold(0.0, 0.2, 1.2, 1, 1).kinds() == set()
    assert Leases().hold(0.0, 0.1, 1.1, 0, 2).hold(0.0, 0.2, 1.2, 1, 2).kinds() == {"over"}


def test_a_hold_ends_with_its_last_claim_that_says_so() -> None:
    h = Leases().hold(0.0, 0.1, 1.1, 0, 3)
    h.add(1.15, 0, "claim", token=1, held=0)
    assert h.hold(0.0, 1.12, 2.1, 1, 3).kinds() == set()
    assert Leases().hold(0.0, 0.1, 1.1, 0, 3).hold(0.0, 1.05, 2.1, 1, 3).kinds() == {"over"}


def test_a_grant_that_is_never_claimed_proves_nothing() -> None:
    h = Leases().hold(0.0, 0.1, 1.1, 0, 3)
    assert h.add(0.5, 1, "granted", token=7, leases=1).kinds() == set()


def test_a_higher_limit_counts_from_when_its_change_was_begun() -> None:
    def four(limit: int) -> set[str]:
        h = Leases().hold(0.0, 0.1, 2.1, 0, 3).resize(0.5, 1.5, limit)
        return h.hold(0.2, 0.6, 2.0, 1).kinds()

    assert four(4) == set()
    assert four(2) == {"over"}


def test_a_lower_limit_takes_nothing_away_and_counts_for_what_is_asked_for_after_it() -> None:
    def after(asked: float, granted: float) -> set[str]:
        h = Leases().hold(0.0, 0.1, 3.1, 0, 2).resize(0.5, 1.0, 2)
        return h.hold(asked, granted, 3.0, 1).kinds()

    assert after(0.2, 0.3) == set()
    assert after(0.9, 1.5) == set()  # it may have been granted at 0.9
    assert after(1.1, 1.5) == {"over"}


def test_a_limit_without_an_answer_may_come_into_force_late_and_not_at_all() -> None:
    def four(granted: float) -> Leases:
        h = Leases().resize(0.0, None, 4).add(0.5, 9, "unsure", "r0.0", error="")
        return h.hold(granted, granted, granted + 1, 0, 3).hold(granted, granted, granted + 1, 1)

    unknown_until = 0.5 + LIMITS.aftermath
    assert four(0.2).kinds() == four(unknown_until).kinds() == set()
    # A later one that was answered puts an end to it; before that, nobody knows.
    h = four(unknown_until + 2)
    assert h.kinds() == set()
    assert h.resize(unknown_until + 0.5, unknown_until + 1, 3).kinds() == {"over"}


def test_a_lower_limit_without_an_answer_may_never_come_into_force() -> None:
    h = Leases().resize(0.0, None, 2).add(0.5, 9, "unsure", "r0.0", error="")
    assert h.hold(30.0, 30.0, 31.0, 0, 3).kinds() == set()


def test_what_a_session_that_the_server_has_ended_believes_is_excused_for_a_time() -> None:
    def believed(until: float, **hit: int) -> set[str]:
        h = Leases().hold(0.0, 0.1, until, 0, 3).fault(1.0, "expire", **hit)
        return h.hold(0.5, 1.1, until + 0.5, 1).kinds()

    assert believed(2.5, hit=0) == set()
    assert believed(3.5, hit=0) == {"over"}
    assert believed(2.5, hit=5) == {"over"}


def test_a_token_of_two_leases_and_a_lease_without_a_node_are_found() -> None:
    h = Leases().hold(0.0, 0.1, 0.3, 0)
    assert h.add(1.0, 1, "granted", token=1, leases=1).kinds() == {"reused"}
    assert Leases().add(1.0, 1, "granted", token=0, leases=1).kinds() == {"no token"}


# Condition.


class Waits(History):
    def __init__(self) -> None:
        super().__init__("condition")

    def wait(
        self, t: float, worker: int, token: int, end: float | None, *, notified: bool, of: float
    ) -> Waits:
        self.add(t, worker, "wait", f"w{token}", token=token, timeout=of)
        if end is not None:
            self.add(end, worker, "woken", f"w{token}", notified=notified)
        return self

    def notify(self, locked: float, token: int, wanted: int, woken: int) -> Waits:
        begin, n = locked + 0.01, f"n{token}"
        self.add(begin, 5, "notify", n, token=token, locked=locked, wanted=wanted)
        self.add(begin + 0.05, 5, "notified", n, woken=woken)
        return self


def test_notifies_that_wake_whom_they_may_are_no_violation() -> None:
    h = Waits().wait(0.0, 0, 1, 2.1, notified=True, of=60.0)
    h.wait(0.5, 1, 2, 1.5, notified=False, of=1.0)  # was over before the notify
    h.wait(0.6, 2, 3, 4.6, notified=False, of=4.0)  # was behind the first one
    report = h.notify(2.0, 4, 1, 1).judged()
    assert report.violations == []
    figures = report.figures["condition"]
    assert (figures["waits"], figures["woken"], figures["timed out"]) == (3, 1, 2)


def test_who_has_given_up_or_is_not_yet_there_need_not_be_woken() -> None:
    given_up = Waits().wait(0.5, 1, 2, 1.6, notified=False, of=1.0)
    assert given_up.notify(2.0, 4, 1, 0).kinds() == set()
    too_late = Waits().wait(2.005, 1, 2, 6.1, notified=False, of=4.0)
    assert too_late.notify(2.0, 4, 1, 0).kinds() == set()


def test_a_notify_that_leaves_a_waiter_asleep_and_wakes_nobody_is_found() -> None:
    h = Waits().wait(0.6, 2, 3, 4.6, notified=False, of=4.0)
    assert h.notify(2.0, 4, 1, 1).texts() == [
        "condition: notify(1) woke 0, and worker 2 waited on in w3"
    ]


def test_a_gap_of_two_holders_that_were_hit_is_lawful_since_a_wake_up_takes_the_lock_too() -> None:
    def gap(until: float) -> set[str]:
        h = Waits().fault(0.5, "silence", 4.0, hit=0).notify(0.0, 1, 1, 0).notify(until, 2, 1, 0)
        return h.note(until + 1, HARNESS, "healed").kinds()

    assert "gap" not in gap(13.9)
    assert "gap" in gap(14.2)


def test_one_waiter_is_not_woken_by_two_notifies() -> None:
    h = Waits().wait(0.0, 0, 1, 2.5, notified=True, of=60.0)
    h.wait(0.6, 2, 3, 4.6, notified=False, of=4.0)
    assert h.notify(2.0, 4, 1, 1).kinds() == set()
    assert h.notify(2.2, 5, 1, 1).kinds() == {"unheard"}


def test_a_notify_of_two_that_wakes_one_is_found() -> None:
    def two(woken: int) -> set[str]:
        h = Waits().wait(0.0, 0, 1, 2.1, notified=True, of=60.0)
        h.wait(0.1, 1, 2, 2.2, notified=True, of=60.0)
        return h.wait(0.6, 2, 3, 4.6, notified=False, of=4.0).notify(2.0, 4, 2, woken).kinds()

    assert two(woken=2) == set()
    assert two(woken=1) == {"unheard"}


def test_a_notify_of_all_that_leaves_one_asleep_is_found() -> None:
    h = Waits().wait(0.0, 0, 1, 2.1, notified=True, of=60.0)
    assert h.notify(2.0, 4, 0, 1).kinds() == set()
    assert h.wait(0.6, 2, 3, 4.6, notified=False, of=4.0).kinds() == {"unheard"}


def test_a_waiter_that_came_after_the_notifiers_lock_or_had_lost_its_session_is_no_witness() -> (
    None
):
    late = Waits().wait(2.5, 2, 5, 4.6, notified=False, of=2.0)
    assert late.notify(2.0, 4, 1, 0).kinds() == set()
    lost = Waits().wait(0.6, 2, 3, 4.6, notified=False, of=4.0).notify(2.0, 4, 1, 0)
    assert lost.kinds() == {"unheard"}
    lost.note(1.0, 2, "session", state="LOST", epoch=1, id=1, password="")
    lost.note(1.5, 2, "session", state="CONNECTED", epoch=2, id=2, password="")
    assert lost.kinds() == set()


def test_a_dead_waiter_may_have_taken_the_notify_with_it_as_long_as_its_node_may_be_there() -> None:
    def killed(at: float, notified: float) -> set[str]:
        h = Waits().wait(0.0, 0, 1, None, notified=False, of=60.0).fault(at, "kill", hit=0)
        h.wait(0.6, 2, 3, 40.6, notified=False, of=40.0)
        return h.notify(notified, 4, 1, 1).kinds()

    assert killed(1.0, 2.0) == set()
    assert killed(1.0, 1.0 + LIMITS.aftermath + 1) == {"unheard"}


def test_a_waiter_that_was_struck_may_have_had_the_notify() -> None:
    h = Waits().add(0.0, 0, "wait", "w1", token=1, timeout=60.0)
    h.add(1.9, 0, "struck", "w1", how="timeout", took=0.0)
    h.wait(0.6, 2, 3, 4.6, notified=False, of=4.0)
    assert h.notify(2.0, 4, 1, 1).kinds() == set()


def test_who_waits_at_the_end_sleeps_for_ever() -> None:
    h = Waits().wait(0.0, 0, 1, None, notified=False, of=60.0)
    h.note(5.0, HARNESS, "stopped").note(6.0, 0, "idle", pending=0)
    assert h.kinds() == {"asleep"}
    assert h.fault(1.0, "kill", hit=0).kinds() == set()


def test_a_listener_that_has_not_seen_the_last_change_or_late_is_found() -> None:
    def heard(version: int, t: float) -> set[str]:
        h = Waits().notify(2.0, 4, 1, 0).add(t, 5, "heard", version=version)
        return h.add(9.5, HARNESS, "version", version=7).kinds()

    assert heard(7, 2.1) == set()
    assert heard(6, 2.1) == {"behind"}
    assert heard(7, 9.0) == {"behind"}
    h = Waits().notify(2.0, 4, 1, 0).add(9.5, HARNESS, "version", version=7)
    assert h.texts() == ["condition: the listener has seen nothing, the last is version 7"]
