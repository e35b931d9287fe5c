"""Schedules: one target's trouble is its own. Real greenlets, probes that only pretend."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import gevent
import pytest

from lookout.counters import FORGOTTEN_AFTER, Counters, count
from lookout.judge import Rules, State
from lookout.records import History, Result
from lookout.store import Keeper, encode, load, save
from lookout.targets import Target
from lookout.watchdog import Watchdog
from sepelib.metrics import Registry
from sepelib.metrics.testing import assert_metric


def fine(target: Target) -> Result:
    return Result(datetime.now(UTC), 0.001, 200)


BAD = Result(datetime.now(UTC), 0.1, None, "connection refused")


class Watch:
    """A watchdog over targets *names*, each probed every 20 ms by *prober*."""

    def __init__(self, folder: Path, names: str, prober: Callable[[Target], Result]) -> None:
        self.path = folder / "history.json"
        self.history = History()
        self.keeper = Keeper(lambda: save(self.path, encode(self.history)), every=3600)
        self.heard: list[tuple[str, State]] = []
        self.targets = [
            Target(name, f"http://{name}/", 0.02, 1.0, Rules(2, 2)) for name in names.split()
        ]
        self.now = 0.0
        self.registry = Registry(clock=lambda: self.now)
        self.counters = Counters(self.registry)
        self.watchdog = Watchdog(
            self.history,
            self.keeper,
            self.counters,
            heard=self.hear,
            prober=prober,
            rng=random.Random(1),
        )

    def hear(self, target: Target) -> None:
        self.heard.append((target.name, self.history.record(target.name).standing.state))

    def count(self, name: str) -> int:
        return len(self.history.record(name).results)

    def run_until(self, condition: Callable[[], bool]) -> None:
        self.watchdog.watch(self.targets)
        try:
            with gevent.Timeout(20, AssertionError("it did not come true")):
                while not condition():
                    gevent.sleep(0.005)
        finally:
            self.watchdog.stop()
            assert self.keeper.close()


def test_a_target_that_hangs_delays_no_other(tmp_path: Path) -> None:
    def prober(target: Target) -> Result:
        if target.name == "stuck":
            gevent.sleep(3600)
        return fine(target)

    watch = Watch(tmp_path, "stuck a b", prober)
    watch.run_until(lambda: min(watch.count("a"), watch.count("b")) >= 10)

    assert watch.count("stuck") == 0


def test_a_mistake_in_a_probe_is_logged_counted_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def prober(target: Target) -> Result:
        nonlocal calls
        calls += target.name == "odd"
        if target.name == "odd" and calls == 1:
            raise ZeroDivisionError("while asking http://bob:sesame@odd/?token=t0ken")
        return fine(target)

    watch = Watch(tmp_path, "odd even", prober)
    watch.run_until(lambda: min(watch.count("odd"), watch.count("even")) >= 2)

    assert count(watch.counters.faults) == 1
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.getMessage().startswith("odd: lookout itself failed to probe it\nTraceback")
    assert "ZeroDivisionError" in record.getMessage()
    assert "sesame" not in record.getMessage()
    assert "t0ken" not in record.getMessage()


def test_each_result_is_told_with_where_it_puts_the_target_and_is_kept(tmp_path: Path) -> None:
    script = iter("--++")

    def prober(target: Target) -> Result:
        error = "connection refused" if next(script, "+") == "-" else None
        return Result(datetime.now(UTC), 0.001, None if error else 200, error)

    watch = Watch(tmp_path, "shop", prober)
    watch.run_until(lambda: len(watch.heard) >= 4)

    states = [State.SUSPECT, State.DOWN, State.RECOVERING, State.UP]
    assert watch.heard[:4] == [("shop", state) for state in states]
    kept = load(watch.path, max_results=300)
    assert kept.record("shop").standing == watch.history.record("shop").standing


def test_new_targets_are_taken_on_and_those_that_stay_are_not_disturbed(tmp_path: Path) -> None:
    asked: list[str] = []
    begun: list[str] = []
    ended: list[str] = []

    def prober(target: Target) -> Result:
        asked.append(target.url)
        if target.name == "stays" and not ended:
            begun.append(target.url)
            gevent.sleep(0.3)
            ended.append(target.url)
        return fine(target)

    watch = Watch(tmp_path, "stays changes goes", prober)
    watch.watchdog.watch(watch.targets)
    with gevent.Timeout(20, AssertionError("it did not come true")):
        while not {"http://stays/", "http://changes/", "http://goes/"}.issubset(asked):
            gevent.sleep(0.005)
    assert ended == []
    watch.targets[1:] = [
        Target("changes", "http://new/", 0.02),
        Target("more", "http://more/", 0.02),
    ]
    asked.clear()
    watch.run_until(lambda: watch.count("more") >= 2 and watch.count("stays") >= 1)

    assert begun == ended == ["http://stays/"]  # the probe that was under way
    assert set(asked) <= {"http://stays/", "http://new/", "http://more/"}
    assert "http://new/" in asked
    assert count(watch.counters.faults) == 0


def test_probes_are_counted_by_target_and_the_series_of_one_that_is_gone_are_dropped(
    tmp_path: Path,
) -> None:
    def prober(target: Target) -> Result:
        return fine(target) if target.name == "good" else BAD

    watch = Watch(tmp_path, "good bad", prober)
    watch.targets[1] = replace(watch.targets[1], rules=Rules(confirm=1000))
    watch.run_until(lambda: min(watch.count("good"), watch.count("bad")) >= 3)
    good, bad = watch.count("good"), watch.count("bad")

    assert_metric(watch.registry, "lookout_probes", {"target": "good", "result": "ok"}, value=good)
    labels = {"target": "bad", "result": "failed"}
    assert_metric(watch.registry, "lookout_probes", labels, value=bad)
    assert_metric(watch.registry, "lookout_probe_seconds", {"target": "bad"}, value=bad)
    assert watch.counters.probes == good + bad

    watch.watchdog.watch([])
    watch.now += FORGOTTEN_AFTER + 1
    document = watch.registry.dump("prometheus")[0]  # which sees that nothing has happened since
    watch.now += 1
    document = watch.registry.dump("prometheus")[0]
    assert b'target="good"' not in document
    assert b'target="bad"' not in document
    assert watch.counters.probes == 0


def test_beats_that_a_slow_answer_missed_are_not_made_up_for(tmp_path: Path) -> None:
    started: list[float] = []

    def prober(target: Target) -> Result:
        started.append(time.monotonic())
        if len(started) == 1:
            gevent.sleep(0.2)  # ten beats
        return fine(target)

    watch = Watch(tmp_path, "slow", prober)
    watch.run_until(lambda: len(started) >= 6)

    beats = (started[-1] - started[0]) / 0.02
    assert len(started) <= beats - 10 + 4
