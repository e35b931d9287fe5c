"""What each replica says of a target, for how long it counts, and how it comes to the others."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import gevent
import pytest

from lookout import store
from lookout.database import Database
from lookout.judge import Rules, State
from lookout.records import History, Result
from lookout.results import Exchange, PublishedResults
from lookout.sharing import Everything
from lookout.targets import Target
from lookout.voices import KEEP_GONE, ON_THE_WAY, PUBLISHED, Voices
from sepelib.mongo import MockDatabase

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(2, 2)
SHOP = Target("shop", "http://shop/", interval=10.0, timeout=5.0, rules=RULES)
SILENCE = 3 * 10.0 + 5.0 + ON_THE_WAY


def add(history: History, probes: str, target: str = "shop", at: datetime = NOON) -> None:
    """Add a result per second; `+` is a good one."""
    for n, probe in enumerate(probes):
        error = None if probe == "+" else "connection refused"
        result = Result(at + timedelta(seconds=n), 0.01, None if error else 200, error)
        history.add(target, result, RULES)


class Listener:
    """The voices as r1 hears them, with a clock that stands still."""

    def __init__(self, *sharers: str) -> None:
        self.now = 1000.0
        self.sharers = sharers
        self.history = History()
        self.voices = Voices(self.history, "r1", lambda _: self.sharers, clock=lambda: self.now)
        self.others: dict[str, History] = {}

    def see(self, probes: str) -> None:
        add(self.history, probes)
        self.voices.heard("shop")

    def hear(self, replica: str, probes: str, at: datetime = NOON) -> set[str]:
        history = self.others.setdefault(replica, History())
        add(history, probes, at=at)
        return self.voices.take(replica, history)

    def fresh(self) -> list[str]:
        return list(self.voices.fresh(SHOP))


def test_those_who_share_a_target_have_a_say_and_no_others() -> None:
    r1 = Listener("r2", "r1")
    r1.see("+")
    for replica in ("r2", "r3"):
        r1.hear(replica, "+")
        r1.hear(replica, "+", NOON + timedelta(seconds=9))

    assert r1.fresh() == ["r2", "r1"]
    r1.sharers = ("r3",)
    assert r1.fresh() == ["r3"]


def test_what_is_there_at_the_first_look_may_be_old_and_counts_once_it_changes() -> None:
    r1 = Listener("r1", "r2")
    assert r1.hear("r2", "--") == set()
    assert r1.fresh() == []
    assert r1.voices.state(SHOP) is State.DOWN  # better shown than nothing

    assert r1.hear("r2", "") == set()
    assert r1.hear("r2", "-", NOON + timedelta(seconds=10)) == {"shop"}
    assert r1.fresh() == ["r2"]


def test_a_target_that_another_one_begins_to_probe_counts_at_once() -> None:
    r1 = Listener("r2")
    r1.voices.take("r2", History())

    assert r1.hear("r2", "+") == {"shop"}
    assert r1.fresh() == ["r2"]


@pytest.mark.parametrize("skew", [timedelta(days=-400), timedelta(0), timedelta(days=400)])
def test_a_voice_is_heard_for_three_intervals_whatever_the_clock_of_its_host(
    skew: timedelta,
) -> None:
    r1 = Listener("r2")
    r1.hear("r2", "+", NOON + skew)
    r1.hear("r2", "+", NOON + skew + timedelta(seconds=9))

    r1.now += SILENCE
    assert r1.fresh() == ["r2"]
    r1.now += 0.001
    assert r1.fresh() == []


def test_the_own_voice_ages_as_well() -> None:
    r1 = Listener("r1")
    r1.see("--")
    assert r1.fresh() == ["r1"]

    r1.now += SILENCE + 0.001
    assert r1.fresh() == []


def test_a_replica_that_lost_a_target_and_has_it_again_says_nothing_before_its_first_probe() -> (
    None
):
    r1 = Listener("r1")
    r1.see("--")
    r1.history.watch_only([], NOON)

    assert r1.fresh() == []
    assert r1.voices.published().records == {}
    r1.see("+")
    assert r1.fresh() == ["r1"]
    assert r1.voices.state(SHOP) is State.UP


def test_the_results_of_another_one_are_put_together_for_the_page() -> None:
    r1 = Listener("r2")
    for n in range(30):
        r1.others["r2"] = published = History(max_results=PUBLISHED)
        add(published, "+" * PUBLISHED, at=NOON + timedelta(seconds=5 * n))
        r1.hear("r2", "")

    shown = [result.at for result in r1.voices.shown(SHOP).results]
    assert len(shown) == 60
    assert shown == [NOON + timedelta(seconds=n) for n in range(95, 155)]


def test_one_that_is_gone_or_probes_a_target_no_more_is_forgotten() -> None:
    r1 = Listener("r2")
    r1.hear("r2", "+")
    r1.others["r2"] = History()
    r1.hear("r2", "")
    assert r1.voices.known(SHOP) == {}

    r1.hear("r2", "+")
    r1.voices.keep(["r1"], ["shop"])
    assert r1.fresh() == ["r2"]  # it may be back in a moment
    r1.now += KEEP_GONE
    r1.voices.keep(["r1"], ["shop"])
    assert r1.voices.known(SHOP) == {}
    assert r1.hear("r2", "+") == set()  # the first look, again


def test_only_what_was_probed_since_the_start_is_published_and_no_more_than_is_needed() -> None:
    r1 = Listener("r1")
    add(r1.history, "+++", "blog")  # of the process before
    r1.see("+" * 50 + "--")

    published = r1.voices.published()
    assert list(published.records) == ["shop"]
    assert len(published.records["shop"].results) == PUBLISHED
    assert published.records["shop"].standing == r1.history.record("shop").standing
    r1.see("+")
    assert published.records["shop"].standing.state is State.DOWN  # a copy


# The database


@pytest.fixture
def published(database: Database) -> Callable[[str], PublishedResults]:
    return partial(PublishedResults, database)


def history(probes: str) -> History:
    found = History()
    add(found, probes)
    return found


def test_what_one_publishes_the_others_read_once(
    published: Callable[[str], PublishedResults],
) -> None:
    r1, r2 = published("r1"), published("r2")
    assert r2.news(["r1"]) == {}

    r1.publish(history("+--"))
    (news,) = r2.news(["r1", "r3"]).values()
    assert store.encode(news) == store.encode(history("+--"))
    assert r2.news(["r1", "r3"]) == {}
    r1.publish(history("+--+"))
    assert list(r2.news(["r1"])) == ["r1"]
    assert r2.news([]) == {}
    assert list(r2.news(["r1"])) == ["r1"]  # it was gone and is there again


def test_whatever_a_server_has_said_can_be_published(
    published: Callable[[str], PublishedResults],
) -> None:
    odd = History()
    odd.add("shop", Result(NOON, 0.1, None, "half \ud800 and \0"), RULES)
    published("r1").publish(odd)

    (news,) = published("r2").news(["r1"]).values()
    assert news.records["shop"].results[0].error == "half ? and \0"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, "not a history"),
        ({"version": "2", "records": []}, "not a history"),
        ({"version": 2, "records": 5}, "not a history"),
        ({"version": 2, "records": ["shop"]}, "not a history"),
        ({"version": 2, "records": [{"target": "shop", "results": 5}]}, "not a history"),
        ({"version": 3, "records": []}, "written by a later lookout"),
    ],
)
def test_results_that_cannot_be_read_are_refused_until_there_are_others(
    row: dict[str, Any],
    why: str,
    published: Callable[[str], PublishedResults],
    mongo: MockDatabase,
) -> None:
    r1, r2 = published("r1"), published("r2")
    mongo.db.results.insert_one({"_id": "r1", "at": NOON, **row})

    assert r2.news(["r1"]) == r2.news(["r1"]) == {}
    assert why in r2.refused["r1"]

    r1.publish(history("+"))
    assert list(r2.news(["r1"])) == ["r1"]
    assert r2.refused == {}


def test_the_refused_results_of_one_that_is_gone_are_no_trouble_any_more(
    published: Callable[[str], PublishedResults], mongo: MockDatabase
) -> None:
    r2 = published("r2")
    mongo.db.results.insert_one({"_id": "r1", "at": NOON})
    r2.news(["r1"])
    r2.news([])

    assert r2.refused == {}


def test_the_results_of_one_that_is_gone_go_a_day_later_by_the_clock_of_the_server(
    published: Callable[[str], PublishedResults], mongo: MockDatabase
) -> None:
    published("r1").publish(history("+"))

    (index,) = (i for i in mongo.db.results.index_information().values() if "at" in dict(i["key"]))
    assert index["expireAfterSeconds"] == 86400
    row = mongo.db.results.find_one({"_id": "r1"})
    assert row is not None and abs(datetime.now(UTC) - row["at"]) < timedelta(minutes=1)


# The exchange


class Two(Everything):
    """r1 and r2 probe everything."""

    def __init__(self, replica: str) -> None:
        super().__init__(replica)
        self.replicas = ("r1", "r2")
        self.others = tuple(name for name in self.replicas if name != replica)


class Replica:
    """An exchange, with a history and no probes."""

    def __init__(self, name: str, results: PublishedResults) -> None:
        self.history = History()
        self.voices = Voices(self.history, name, lambda _: ("r1", "r2"))
        self.news: list[set[str]] = []
        self.exchange = Exchange(self.voices, results, Two(name), news=self.news.append)
        self.number = 0

    def see(self, probes: str) -> None:
        for probe in probes:
            self.number += 1
            add(self.history, probe, at=NOON + timedelta(seconds=self.number))
            self.voices.heard("shop")
            self.exchange.heard(SHOP)

    def states(self) -> dict[str, State]:
        return {n: record.standing.state for n, record in self.voices.fresh(SHOP).items()}


@pytest.fixture
def pair(
    published: Callable[[str], PublishedResults], mongo: MockDatabase
) -> Iterator[list[Replica]]:
    mongo.db.create_collection("results")
    both = [Replica(name, published(name)) for name in ("r1", "r2")]
    for each in both:
        each.exchange.start()
    try:
        yield both
    finally:
        for each in both:
            each.exchange.stop()


def until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(20, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def test_each_hears_what_the_other_one_finds(pair: list[Replica]) -> None:
    r1, r2 = pair
    r1.see("+")
    r2.see("+")
    until(lambda: "r1" in r2.voices.known(SHOP) and "r2" in r1.voices.known(SHOP))
    r1.see("--")
    until(lambda: r2.states() == {"r1": State.DOWN, "r2": State.UP})
    assert {"shop"} in r2.news
    r2.see("+")
    until(lambda: r1.states() == r2.states())


def test_results_that_cannot_be_published_are_complained_of_once_and_later_are(
    mongo: MockDatabase, pair: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    r1, r2 = pair
    mongo.db.command("collMod", "results", validator={"version": "none"})
    r1.see("+")
    until(lambda: r1.exchange.complaints)
    r1.see("-+-+")
    gevent.sleep(1.1)  # some tries
    (said,) = r1.exchange.complaints
    assert said.startswith("Results cannot be exchanged with other replicas: ")
    mongo.db.command("collMod", "results", validator={})

    until(lambda: "r1" in r2.voices.known(SHOP))
    until(lambda: not r1.exchange.complaints)
    assert len(errors(caplog)) == 1


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.ERROR]


def test_damaged_results_of_another_one_are_told_of_and_do_no_harm(
    mongo: MockDatabase, pair: list[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    r1, _ = pair
    row = {"version": 2, "records": [{"target": "shop", "results": 5}]}
    mongo.db.results.replace_one({"_id": "r2"}, {"at": NOON, **row}, upsert=True)
    until(lambda: r1.exchange.complaints)

    r1.see("+")
    assert r1.states() == {"r1": State.UP}
    (said,) = r1.exchange.complaints
    assert said.startswith("The results of r2 are not listened to: not a history")
    assert len(errors(caplog)) == 1
