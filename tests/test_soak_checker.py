"""The judge of the long runs: good histories pass, and each kind of violation is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from soak.checker import Limits, Report, Violation, check
from soak.excerpt import excerpt
from soak.history import HARNESS, Event, Journal, Tail, read, save
from soak.schedule import schedule

LIMITS = Limits(timeout=2.0, acquire=5.0, revive=30.0, grace=2.0)


class History:
    """Hand-made: each method adds what a worker or the harness would have written."""

    def __init__(self, recipe: str = "lock") -> None:
        self.recipe = recipe
        self.events: list[Event] = []

    def add(self, t: float, worker: int, kind: str, **fields: object) -> History:
        self.events.append(Event(t, worker, kind, fields))
        return self

    def granted(self, t: float, worker: int, token: int, n: str = "") -> History:
        n = n or f"1.{token}"
        return self.add(t, worker, "granted", recipe=self.recipe, n=n, token=token)

    def claim(self, t: float, worker: int, token: int, held: bool = True, n: str = "") -> History:
        n = n or f"1.{token}"
        return self.add(t, worker, "claim", recipe=self.recipe, n=n, token=token, held=held)

    def release(self, t: float, worker: int, token: int, took: float = 0.0) -> History:
        n = f"1.{token}"
        return self.add(t, worker, "release", recipe=self.recipe, n=n, token=token, took=took)

    def hold(self, begin: float, end: float, worker: int, token: int) -> History:
        self.granted(begin, worker, token)
        for hundredth in range(round(begin * 100) + 1, round(end * 100)):
            self.claim(hundredth / 100, worker, token)
        return self.release(end, worker, token)

    def fault(self, t: float, name: str, lasted: float = 0.0, **target: int) -> History:
        return self.add(t, HARNESS, "fault", name=name, detail="", lasted=lasted, **target)

    def healed(self, t: float) -> History:
        return self.add(t, HARNESS, "healed")

    def judged(self) -> Report:
        return check(self.events, LIMITS)

    def kinds(self) -> set[str]:
        return set(self.judged().kinds)


def good(recipe: str = "lock") -> History:
    """Two workers in turn, the first one is cut off while it holds and notices in time."""
    h = History(recipe)
    h.hold(0.0, 0.3, 0, 10).hold(0.4, 0.7, 1, 20)
    h.fault(1.0, "silence", 4.0, hit=0).granted(0.9, 0, 30).claim(0.95, 0, 30)
    h.claim(2.6, 0, 30).claim(2.7, 0, 30, held=False).release(2.7, 0, 30)
    h.hold(3.0, 3.5, 1, 40)
    h.healed(5.0).hold(5.5, 5.7, 0, 50).hold(5.8, 6.0, 1, 60)
    h.add(7.0, HARNESS, "stopped")
    h.add(7.5, 0, "idle", pending=1).add(7.5, 1, "idle", pending=0).add(7.7, 0, "idle", pending=0)
    h.add(9.0, HARNESS, "left", recipe=recipe, names=[])
    return h


def test_a_good_history_has_no_violation_and_its_figures_are_told() -> None:
    report = good().judged()
    assert report.violations == []
    figures = report.figures["lock"]
    assert (figures["granted"], figures["losses noticed"], figures["stale"]) == (6, 1, 0)
    assert figures["without a fault"] == 0
    assert figures["gap"] == 3.0 - 0.9
    assert figures["gap limit"] == 2.0 + 4.0 + 2.0
    assert round(figures["all alive"], 6) == 0.8
    assert report.faults == {"silence": 1}


def test_a_good_history_of_a_singleton_has_no_violation() -> None:
    assert good("singleton").judged().violations == []


def test_a_claim_after_a_newer_grant_to_another_is_stale() -> None:
    report = good().claim(3.25, 0, 30).judged()
    assert set(report.kinds) == {"stale", "refused"}
    figures = report.figures["lock"]
    assert (figures["stale"], round(figures["latest"], 6)) == (1, 0.25)
    assert report.violations[0] == Violation(
        "stale", 3.25, 0, "lock: token 30 0.250 s after 40 was granted to worker 1", "lock"
    )


def test_a_claim_that_says_not_held_is_never_stale() -> None:
    assert good().claim(3.25, 0, 30, held=False).kinds() == set()


def test_a_claim_at_the_instant_of_the_newer_grant_is_no_proof() -> None:
    h = History().hold(0.0, 1.0, 0, 10).claim(1.0, 0, 10).granted(1.0, 1, 20)
    assert h.kinds() == set()


def test_a_session_that_the_server_ends_by_itself_is_excused_until_its_lease_is_over() -> None:
    def claimed(until: float, **hit: int) -> Report:
        h = History().hold(0.0, 1.0, 0, 10).fault(0.98, "expire", **hit)
        h.granted(1.0, 1, 20).claim(1.1, 1, 20)
        return h.claim(until, 0, 10).judged()

    assert claimed(1.2, hit=0).violations == []
    assert claimed(1.2, hit=0).figures["lock"]["untold of an expiry"] == 1
    assert round(claimed(1.2, hit=0).figures["lock"]["untold for"], 6) == 0.2
    assert set(claimed(3.0, hit=0).kinds) == {"stale", "refused"}
    assert set(claimed(1.2, hit=1).kinds) == {"stale", "refused"}


def test_a_first_claim_and_a_target_are_excused_by_such_an_end_too() -> None:
    h = History().granted(0.0, 0, 10).fault(0.9, "expire", hit=0).hold(1.0, 1.5, 1, 20)
    assert h.claim(1.2, 0, 10).kinds() == set()
    h = History("singleton").hold(0.0, 1.0, 0, 10).fault(0.9, "expire", hit=0)
    assert h.granted(0.95, 1, 20).kinds() == set()


def test_what_was_granted_after_the_servers_own_expiry_is_not_excused() -> None:
    h = History().fault(0.0, "expire", hit=0).granted(0.5, 0, 10).granted(1.0, 1, 20)
    assert h.claim(1.2, 0, 10).kinds() == {"stale"}


def test_a_worker_does_not_supersede_itself() -> None:
    h = History().granted(0.0, 0, 10).granted(1.0, 0, 20).claim(1.5, 0, 10, n="1.10")
    assert "stale" not in h.kinds()


def test_a_late_grant_with_an_older_token_that_is_never_claimed_is_fine() -> None:
    # Granted, stopped for long before the next line, and told the truth by the lock.
    h = History().hold(0.0, 1.0, 1, 20).granted(2.0, 0, 10).claim(2.0, 0, 10, held=False)
    assert h.kinds() == set()


def test_tokens_that_go_down_from_holder_to_holder_are_found() -> None:
    # In the same worker: not stale, but no store could tell the two apart in the right order.
    assert History().hold(0.0, 1.0, 0, 20).hold(1.0, 2.0, 0, 10).kinds() == {"order", "refused"}


def test_a_token_granted_twice_is_found() -> None:
    h = History().granted(0.0, 0, 10).release(1.0, 0, 10).granted(2.0, 1, 10)
    assert h.kinds() == {"reused"}


def test_a_grant_without_a_node_is_found() -> None:
    assert History().granted(0.0, 0, 0).kinds() == {"no token"}


def test_a_fenced_write_after_one_with_a_newer_token_is_found() -> None:
    def wrote(*tokens: int) -> set[str]:
        h = History()
        for version, token in enumerate(tokens):
            h.add(token / 10, 0, "wrote", recipe="lock", n="1.1", token=token, version=version)
        return h.kinds()

    assert wrote(10, 10, 20) == set()
    assert wrote(10, 20, 10) == {"fence"}


def test_two_fenced_writes_of_one_version_are_found() -> None:
    h = History()
    for worker, token in ((0, 10), (1, 20)):
        h.add(token / 10, worker, "wrote", recipe="lock", n="1", token=token, version=7)
    assert h.kinds() == {"fence"}


def test_a_lock_that_is_held_after_its_acquire_was_struck_is_found() -> None:
    def struck(held: bool) -> set[str]:
        h = History()
        h.add(0.0, 0, "acquire", recipe="lock", n="1.1")
        h.add(0.1, 0, "struck", recipe="lock", n="1.1", how="kill", took=0.0, held=held)
        return h.kinds()

    assert struck(False) == set()
    assert struck(True) == {"kept"}


def test_a_blind_target_that_runs_beside_a_newer_one_is_found() -> None:
    h = good("singleton")
    for hundredth in range(261, 320):  # it knows when it has lost, and runs on
        h.claim(hundredth / 100, 0, 30, held=hundredth < 270)
    report = h.judged()
    assert set(report.kinds) == {"overlap"}
    assert report.kinds["overlap"] == 19


def test_a_target_that_only_ends_after_a_newer_one_began_is_found() -> None:
    h = History("singleton").hold(0.0, 1.0, 0, 10)
    h.granted(0.95, 1, 20)
    assert "overlap" in h.kinds()


def test_the_first_moment_after_a_pause_is_no_overlap_since_nothing_can_end_it() -> None:
    h = good("singleton")
    h.claim(3.3, 0, 30, held=False)  # 0.6 s after the one before
    assert h.kinds() == set()
    for hundredth in range(331, 375):
        h.claim(hundredth / 100, 0, 30, held=False)
    assert h.kinds() == {"overlap"}


def test_a_claim_of_leadership_after_a_pause_is_stale_all_the_same() -> None:
    assert "stale" in good("singleton").claim(3.3, 0, 30).kinds()


def test_a_gap_longer_than_a_session_a_fault_and_the_grace_is_found() -> None:
    def gap(until: float) -> Report:
        h = History().hold(0.0, 0.5, 0, 10).fault(1.0, "silence", 4.0, hit=0)
        return h.granted(until, 0, 20).healed(until + 1).granted(until + 2, 0, 30).judged()

    assert gap(7.9).violations == []
    report = gap(8.1)
    assert set(report.kinds) == {"gap"}
    assert report.figures["lock"]["gap"] == 8.1


def test_a_servers_fault_makes_a_longer_gap_lawful_since_it_renews_the_sessions() -> None:
    h = History().granted(0.0, 0, 10).healed(7.0).granted(7.1, 0, 20)
    assert h.kinds() == {"gap"}
    h.fault(2.0, "pause", 1.5, server=2)
    assert h.judged().figures["lock"]["gap limit"] == 7.5
    assert h.kinds() == set()


def test_no_grant_up_to_the_heal_is_a_gap_too() -> None:
    assert History().granted(0.0, 0, 10).healed(9.0).granted(9.5, 0, 20).kinds() == {"gap"}


def test_what_the_machine_was_late_by_is_no_gap() -> None:
    h = History().granted(0.0, 0, 10).healed(9.0).granted(9.5, 0, 20)
    assert h.add(5.0, HARNESS, "stalled", seconds=6.0).kinds() == set()


def test_a_worker_that_does_not_come_back_after_the_heal_is_found() -> None:
    h = good()
    h.events = [e for e in h.events if e.t < 5.0 or e.worker != 1] + [Event(7.2, 1, "start")]
    h.add(7.5, 1, "idle", pending=0)
    report = h.judged()
    assert [(v.kind, v.worker) for v in report.violations] == [("not alive", 1)]
    assert report.figures["lock"]["all alive"] == -1


def attempt(took: float, end: str = "missed") -> History:
    h = History().add(0.0, 0, "acquire", recipe="lock", n="1.1")
    if end:
        h.add(took, 0, end, recipe="lock", n="1.1", how="", took=0.0, held=False, token=1)
    return h.add(100.0, 0, "acquire", recipe="lock", n="1.2")


def test_an_acquire_that_takes_longer_than_its_timeout_is_found() -> None:
    assert attempt(6.9).kinds() == set()
    assert attempt(7.1).kinds() == {"late"}
    assert attempt(7.1, "granted").kinds() >= {"late"}


def test_an_acquire_that_never_returns_is_found() -> None:
    assert attempt(0.0, end="").kinds() == {"late"}


def test_an_acquire_ends_with_its_process() -> None:
    assert attempt(0.0, end="").fault(3.0, "kill", hit=0).kinds() == set()
    assert attempt(0.0, end="").fault(3.0, "kill", hit=1).kinds() == {"late"}
    assert attempt(0.0, end="").fault(3.0, "kill", server=0).kinds() == {"late"}


def test_an_acquire_that_was_begun_while_its_process_was_being_killed_ends_with_it_too() -> None:
    late = attempt(0.0, end="").fault(-0.01, "kill", 1.0, hit=0)
    assert late.kinds() == {"late"}
    late.add(1.0, 0, "start", pid=2, life=2)
    late.add(1.1, 0, "session", state="CONNECTED", epoch=1, id=1, password="")
    assert late.kinds() == set()


def test_a_worker_that_stands_still_is_given_that_time() -> None:
    assert attempt(9.0).fault(1.0, "pause", 3.0, hit=0).kinds() == set()
    assert attempt(9.0).fault(1.0, "pause", 3.0, hit=1).kinds() == {"late"}
    assert attempt(9.0).fault(1.0, "silence", 3.0, hit=0).kinds() == {"late"}


def test_a_release_that_waits_for_the_server_is_found() -> None:
    assert History().granted(0.0, 0, 10).release(1.0, 0, 10, took=1.9).kinds() == set()
    assert History().granted(0.0, 0, 10).release(1.0, 0, 10, took=2.1).kinds() == {"late"}


def test_a_struck_acquire_that_does_not_leave_at_once_is_found() -> None:
    h = History().add(0.0, 0, "acquire", recipe="lock", n="1.1")
    h.add(3.0, 0, "struck", recipe="lock", n="1.1", how="timeout", took=2.9, held=False)
    assert h.kinds() == {"late"}


def away(until: float) -> History:
    h = History().add(0.0, 0, "session", state="SUSPENDED", epoch=1, id=1, password="")
    h.add(1.0, 0, "session", state="LOST", epoch=1, id=1, password="")
    return h.add(until, 0, "session", state="CONNECTED", epoch=2, id=2, password="")


def test_a_worker_that_does_not_come_back_without_a_fault_is_found() -> None:
    assert away(3.9).kinds() == set()
    report = away(4.1).judged()
    assert [v.text for v in report.violations] == ["not connected for 4.1 s that had no fault"]


def test_a_worker_may_stay_away_as_long_as_something_is_wrong() -> None:
    assert away(8.0).fault(0.5, "silence", 3.6, hit=0).kinds() == set()
    assert away(8.0).fault(0.5, "silence", 3.6, hit=1).kinds() == {"away"}
    assert away(8.0).fault(0.5, "pause", 3.6, server=1).kinds() == set()
    assert away(8.2).fault(0.5, "silence", 3.6, hit=0).kinds() == {"away"}
    assert away(8.2).fault(4.1, "cut", hit=0).kinds() == {"away"}
    assert away(7.0).fault(4.1, "cut", hit=0).kinds() == {"away"}


def test_a_worker_that_never_comes_back_is_found() -> None:
    h = History().add(0.0, 0, "session", state="LOST", epoch=1, id=1, password="")
    assert h.healed(10.0).kinds() >= {"away"}


def test_an_error_that_nobody_provided_for_is_found() -> None:
    h = good().add(3.0, 0, "raised", recipe="lock", n="1.9", where="acquire", error="ValueError: x")
    assert [v.text for v in h.judged().violations] == ["lock: acquire: ValueError: x"]


def test_a_worker_that_ended_by_itself_is_found() -> None:
    h = good().add(3.0, HARNESS, "died", hit=1, status=1, log="Traceback")
    assert [(v.kind, v.worker) for v in h.judged().violations] == [("died", 1)]


def test_a_worker_that_does_not_come_to_rest_is_found() -> None:
    h = good()
    h.events = [e for e in h.events if (e.kind, e.worker) != ("idle", 0)]
    assert [(v.kind, v.worker) for v in h.judged().violations] == [("hung", 0)]


def test_a_node_that_is_left_is_found() -> None:
    h = good().add(9.1, HARNESS, "left", recipe="lock", names=["x__lock__7"])
    assert [v.text for v in h.judged().violations] == [
        "lock: 1 left when all was quiet: x__lock__7"
    ]


def test_a_delete_that_the_janitor_never_gets_done_is_found() -> None:
    assert good().add(8.0, 0, "idle", pending=2).kinds() == {"janitor"}


def test_a_loss_without_a_fault_nearby_is_counted_but_is_no_violation() -> None:
    h = History().granted(20.0, 0, 10).claim(20.1, 0, 10, held=False)
    assert h.fault(19.0, "cut", hit=1).judged().figures["lock"]["without a fault"] == 1
    assert h.fault(19.0, "cut", hit=0).judged().figures["lock"]["without a fault"] == 0
    assert h.judged().violations == []


# What the judge is given.


def test_a_history_that_was_kept_is_judged_the_same(tmp_path: Path) -> None:
    h = good().claim(3.25, 0, 30)
    save(h.events, tmp_path)
    assert check(read(tmp_path), LIMITS) == h.judged()


def test_a_line_torn_by_a_kill_is_dropped_and_the_next_life_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.jsonl"
    Journal(path).write("start", pid=1, life=1)
    with path.open("ab") as file:
        file.write(b'{"t": 1.0, "ki')
    tail = Tail(path, 0)
    assert [e.life for e in tail.events()] == [1]
    Journal(path).write("start", pid=2, life=2)
    assert [e.life for e in tail.events()] == [2]
    assert tail.torn == 1
    assert list(tail.events()) == []


def test_an_excerpt_shows_the_claim_the_grant_and_the_fault_that_made_it() -> None:
    h = good().claim(3.25, 0, 30)
    [violation] = [v for v in h.judged().violations if v.kind == "stale"]
    lines = excerpt(h.events, violation)
    assert any("name=silence" in line for line in lines)
    assert any("worker 1  granted" in line and "token=40" in line for line in lines)
    assert not any("token=20" in line and "claim" in line for line in lines)


def plan(seed: int) -> Sequence[object]:
    return schedule(seed, 600.0, timeout=2.0, workers=6, servers=3, recipes=2)


def test_one_seed_makes_one_plan() -> None:
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_plan_holds_each_fault_at_about_the_rate_and_more_than_half_at_the_holder() -> None:
    faults = schedule(1, 600.0, timeout=2.0, workers=6, servers=3, recipes=2)
    assert 600 < len(faults) < 1000
    assert {f.kind for f in faults if not f.server} == {
        "kill",
        "pause",
        "cut",
        "silence",
        "mute",
        "refuse",
        "lose",
        "expire",
    }
    assert {f.kind for f in faults if f.server} == {"kill", "pause"}
    at_workers = [f for f in faults if not f.server]
    assert 0.5 < sum(f.holder_of is not None for f in at_workers) / len(at_workers) < 0.7
    assert {f.seconds for f in faults if f.kind == "silence"} == {0.6, 2.0, 4.0}
    assert all(f.seconds <= 3.0 for f in faults if f.server)
