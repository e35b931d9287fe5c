"""The judge: its terms, and what comes of it when ZooKeeper, database or process stand still.

First in this process, with a leadership that only pretends; then whole replicas on a ZooKeeper.
"""

import json
import logging
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from examples.lookout.tests.daemon import Lookout, until
from examples.lookout.tests.daemon import Target as Upstream
from lookout import store
from lookout.chair import Chair
from lookout.counters import Counters, count
from lookout.database import Database
from lookout.judge import Rules
from lookout.ledger import Deposed, Epoch, LedgerStore
from lookout.records import History, Incident, Result
from lookout.settings import SHIPPED, MongoSettings
from lookout.targets import Target
from lookout.voices import Voices
from sepelib.metrics import Registry
from sepelib.mongo import MockDatabase
from sepelib.util.secrets import Secret
from sepelib.util.testing import FlakyProxy, SmtpServer
from sepelib.zookeeper.testing import Zookeeper

BAD = Result(datetime.now(UTC), 0.1, None, "connection refused")
GOOD = Result(datetime.now(UTC), 0.1, 200)


class Lost(Exception):
    pass


class Lead:
    """A leadership that ends when the test says so."""

    def __init__(self) -> None:
        self.is_leader = True
        self.stopping = Event()

    def check(self) -> None:
        if not self.is_leader:
            raise Lost


class Replica:
    """A chair, with a history and no probes; `see()` takes a result."""

    def __init__(
        self, database: Database, path: Path, name: str = "r1", sharers: tuple[str, ...] = ()
    ) -> None:
        self.history = History()
        self.path = path / f"{name}.json"
        self.store = LedgerStore(database)
        self.told: list[Incident] = []
        self.counters = Counters(Registry())
        self.keeper = store.Keeper(
            lambda: store.save(self.path, store.encode(self.history)), every=3600
        )
        self.voices = Voices(self.history, name, lambda target: sharers or (name,))
        self.others: dict[str, History] = {}
        self.chair = Chair(
            self.voices,
            self.keeper,
            database,
            self.counters,
            replica=name,
            announce=self.announce,
            mail=None,
            max_incidents=200,
            save_every=0.1,
        )
        self.chair.watch(["shop"])

    def announce(self, incident: Incident) -> None:
        assert incident in self.store.read().incidents
        self.told.append(incident)

    def see(self, probes: str, target: str = "shop") -> None:
        rules = Rules(2, 2)
        for probe in probes:
            self.history.add(target, GOOD if probe == "+" else BAD, rules)
            self.voices.heard(target)
            self.chair.heard(Target(target, f"http://{target}/", rules=rules))

    def hear(self, other: str, probes: str) -> None:
        """As `see()`, of what another replica publishes."""
        target = Target("shop", "http://shop/", rules=Rules(2, 2))
        history = self.others.setdefault(other, History())
        for probe in probes:
            self.voices.take(other, history)
            result = replace(GOOD if probe == "+" else BAD, at=datetime.now(UTC))
            history.add(target.name, result, target.rules)
            assert self.voices.take(other, history) == {target.name}
            self.chair.heard(target)

    @contextmanager
    def term(self, token: int | None) -> Iterator[Lead]:
        """A term in a greenlet, which ends with the block if not before."""
        lead = Lead()
        epoch = None if token is None else Epoch(1, token)
        serving = gevent.spawn(self.chair.serve, lead, epoch)
        with gevent.Timeout(20, AssertionError("it did not come true")):
            while self.chair.postman is None:
                gevent.sleep(0.005)
            yield lead
            lead.stopping.set()
            serving.join()

    def until(self, condition: Callable[[], object]) -> None:
        with gevent.Timeout(20, AssertionError("it did not come true")):
            while not condition():
                gevent.sleep(0.005)


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Callable[..., Replica]:
    return partial(Replica, database, tmp_path)


def test_an_incident_is_saved_before_it_is_announced(make: Callable[..., Replica]) -> None:
    replica = make()
    with replica.term(1):
        replica.see("--")
        replica.until(lambda: replica.told)  # announce() looks into the database
        replica.see("++")

    assert [i.is_open for i in replica.told] == [True, False]  # the last one at the end of the term
    assert (count(replica.counters.opened), count(replica.counters.closed)) == (1, 1)
    kept = store.load(replica.path, max_results=9)
    assert kept.record("shop").standing == replica.history.record("shop").standing


def test_a_judge_goes_by_what_those_find_who_probe_the_target(make: Callable[..., Replica]) -> None:
    replica = make("r1", sharers=("r2", "r3"))
    with replica.term(1):
        replica.see("----")  # its own opinion does not matter
        replica.hear("r3", "+++")
        replica.hear("r2", "---")
        assert replica.chair.ledger().incidents == []
        replica.hear("r3", "--")
        replica.until(lambda: replica.told)
        replica.hear("r2", "++")
        replica.hear("r3", "+")
        gevent.sleep(0.05)
        assert len(replica.told) == 1
        replica.hear("r3", "+")
        replica.until(lambda: len(replica.told) == 2)

    assert [i.is_open for i in replica.told] == [True, False]


def test_an_outage_that_one_of_two_sees_opens_late_and_closes_once_both_find_it_over(
    make: Callable[..., Replica],
) -> None:
    replica = make("r1", sharers=("r1", "r2"))
    with replica.term(1):
        replica.hear("r2", "++")
        replica.see("---")
        assert replica.chair.ledger().incidents == []
        replica.see("-")
        replica.until(lambda: replica.told)
        replica.hear("r2", "+++")
        replica.see("+--+")
        assert replica.chair.ledger().open_incident("shop") is not None
        replica.see("+")
        replica.until(lambda: len(replica.told) == 2)

    assert [i.is_open for i in replica.told] == [True, False]


def test_between_two_terms_nothing_is_judged_and_the_next_probe_makes_up_for_it(
    make: Callable[..., Replica],
) -> None:
    replica = make()
    with replica.term(1):
        pass
    replica.see("--")
    assert replica.chair.ledger().incidents == []

    with replica.term(2):
        assert replica.chair.ledger().incidents == []  # perhaps somebody has judged that already
        replica.see("-")
        replica.until(lambda: replica.told)
    assert [i.id for i in replica.chair.ledger().incidents] == ["INC-1"]


def test_the_heir_goes_on_with_what_is_open(make: Callable[..., Replica]) -> None:
    first, heir = make("r1"), make("r2")
    with first.term(1):
        first.see("--")
    with heir.term(2):
        heir.see("--")
        heir.see("++")

    assert [(i.id, i.is_open) for i in heir.told] == [("INC-1", False)]
    assert heir.store.read().judge == "r2"
    first.until(lambda: first.chair.ledger().incidents == heir.told)  # all show the same


def test_what_nobody_watches_any_more_is_closed_by_the_judge_alone(
    make: Callable[..., Replica],
) -> None:
    judge, other = make("r1"), make("r2")
    with judge.term(1):
        judge.see("--")
        judge.until(lambda: judge.told)
        other.chair.watch([])
        judge.chair.watch(["blog"])

    assert other.told == []
    assert [i.closed_because for i in judge.told] == [None, "no longer watched"]


def test_a_deposed_judge_writes_nothing_and_says_nothing(
    make: Callable[..., Replica], caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make("r1"), make("r2")
    with old.term(1):
        with new.term(2):
            new.see("--")
        before = old.store.read()
        old.see("--")
        old.until(lambda: old.chair.postman is None)  # the term has ended

    assert old.told == []
    assert new.store.read().incidents == before.incidents == new.told
    assert count(old.counters.deposed) == 1
    assert count(old.counters.opened) == 0
    assert "r2 has the incidents since: epoch 1/2, ours is 1/1" in caplog.text


def test_a_judge_that_has_lost_the_lead_judges_no_more(make: Callable[..., Replica]) -> None:
    replica = make()
    with replica.term(1) as lead:
        lead.is_leader = False
        replica.see("--")
        replica.until(lambda: replica.chair.postman is None)

    assert replica.told == replica.store.read().incidents == []


def test_a_claim_that_comes_too_late_is_refused(make: Callable[..., Replica]) -> None:
    old, new = make("r1"), make("r2")
    with new.term(2):
        pass

    with pytest.raises(Deposed):
        old.chair.serve(Lead(), Epoch(1, 1))

    assert count(old.counters.deposed) == 1
    assert old.chair.error is not None
    with new.term(3):
        old.chair.ledger()
    assert old.chair.error is None  # others could


def test_two_without_zookeeper_on_one_database_say_so(make: Callable[..., Replica]) -> None:
    one, other = make("r1"), make("r2")
    with one.term(None), other.term(None):
        one.see("--")
        one.until(lambda: one.chair.postman is None)

    assert "r2 has the incidents since: epoch 0/0, ours is 0/0" in str(one.chair.error)
    assert "no zookeeper?" in str(one.chair.error)


def test_what_the_database_refuses_is_shown_and_announced_once_it_is_saved(
    make: Callable[..., Replica], mongo: MockDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    mongo.db.create_collection("incidents", validator={"target": "blog"})
    replica = make()
    with replica.term(1):
        replica.see("--")
        replica.until(lambda: replica.chair.error)
        assert [i.id for i in replica.chair.ledger().incidents] == ["INC-1"]
        gevent.sleep(0.3)  # some tries
        assert replica.told == []
        mongo.db.command("collMod", "incidents", validator={})
        replica.until(lambda: replica.told)
        assert replica.chair.error is None

    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("incidents not saved, trying on: ")


def test_a_page_of_one_that_does_not_judge_waits_for_a_database_once(
    mongo: MockDatabase, proxy: FlakyProxy, tmp_path: Path
) -> None:
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    database = Database(MongoSettings(Secret(uri), mongo.name))
    replica = Replica(database, tmp_path)
    with replica.term(1):
        replica.see("--")
        replica.until(lambda: replica.told)
    proxy.refuse()
    proxy.cut()
    replica.until(lambda: replica.chair.ledger() and database.error)

    asked = time.monotonic()
    for _ in range(20):
        assert replica.chair.ledger().incidents == replica.told
    assert time.monotonic() - asked < 2
    database.close()


# Whole replicas


@pytest.fixture
def replica(
    target: Upstream, zookeeper: Zookeeper, mongo: MockDatabase, tmp_path: Path
) -> Callable[..., Lookout]:
    """`replica("r1")`: a daemon that watches `target` ten times a second."""

    def make(name: str, mailbox: SmtpServer | None = None, uri: str = "") -> Lookout:
        values = {
            "zookeeper": zookeeper.hosts,
            "mongo": uri or mongo.uri,
            "database": mongo.name,
            "session_timeout": "2s",
            "replica": name,
            "state": str(tmp_path / name),
            "port": 0,
            "drain_delay": 0,
            "save_every": "100ms",
            "mail_port": mailbox.port if mailbox else None,
            "recipients": ["ann@example.org"] if mailbox else [],
            "targets": [{"name": "t0", "url": target.url, "interval": 0.1, "timeout": 2}],
        }
        options = [f"-V{name}={json.dumps(value)}" for name, value in values.items()]
        return Lookout("serve", "-c", SHIPPED, *options, cwd=tmp_path)

    return make


def judges(lookout: Lookout) -> bool:
    return bool(lookout.status()["judge"]["here"])


def metric(lookout: Lookout, name: str) -> float:
    text = lookout.get("metrics?fmt=prometheus")
    return sum(float(n) for n in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def incidents(lookout: Lookout) -> list[tuple[str, str]]:
    return [(i["id"], i["state"]) for i in lookout.status()["incidents"]]


def test_a_judge_that_stood_still_is_refused_and_its_heir_has_the_one_incident(
    target: Upstream, replica: Callable[..., Lookout], proxy: FlakyProxy
) -> None:
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    with SmtpServer() as mailbox, replica("r1", mailbox, uri) as old:
        until(lambda: judges(old))
        with replica("r2", mailbox) as heir:
            until(lambda: heir.target("t0")["state"] == "up")
            proxy.hold_requests()
            target.status = "500 Oops"
            until(lambda: incidents(old) == [("INC-?", "open")])  # the write is on its way
            old.signal(signal.SIGSTOP)
            until(lambda: judges(heir))
            until(lambda: incidents(heir) == [("INC-1", "open")])
            mailbox.wait_for(lambda: mailbox.messages, timeout=30)
            proxy.resume()
            old.signal(signal.SIGCONT)

            until(lambda: metric(old, "lookout_deposed_total") == 1)
            until(lambda: old.target("t0")["state"] == "down")
            until(lambda: incidents(old) == incidents(heir) == [("INC-1", "open")])
            assert not judges(old) and judges(heir)
            assert metric(heir, "lookout_deposed_total") == 0
            target.status = "200 OK"
            until(lambda: incidents(old) == incidents(heir) == [("INC-1", "closed")])
            until(lambda: len(mailbox.messages) == 2)
            cluster = json.loads(old.get("api/v1/cluster"))
            assert (cluster["judge"], cluster["is_current"]) == ("r2", True)
            assert cluster["replicas"] == [
                {"name": "r1", "url": old.url},
                {"name": "r2", "url": heir.url},
            ]
            assert set(cluster["shares"]["t0"]) == {"r1", "r2"}
    assert len({mail.message["Message-ID"] for mail in mailbox.messages}) == 2


def test_without_zookeeper_it_probes_on_and_judges_once_it_is_back(
    target: Upstream, replica: Callable[..., Lookout], zookeeper: Zookeeper
) -> None:
    with replica("r1") as lookout:
        until(lambda: judges(lookout))
        assert lookout.status()["complaints"] == []
        with zookeeper.stop():
            until(lambda: lookout.status()["judge"]["state"] == "waiting")
            probes = lookout.target("t0")["probes"]
            target.status = "500 Oops"
            until(lambda: lookout.target("t0")["state"] == "down")
            until(lambda: lookout.target("t0")["probes"] >= probes + 5)

            said = "ZooKeeper is away: probing goes on, nobody judges here"
            assert lookout.status()["complaints"] == [said]
            assert said in lookout.get()
            report = json.loads(lookout.get("ping?verbose=1"))
            assert report["checks"]["zookeeper"]["problem"].endswith(said)
            assert lookout.get("ping") == "pong"
            assert metric(lookout, "lookout_degraded") == 1
            assert incidents(lookout) == []
            cluster = json.loads(lookout.get("api/v1/cluster"))
            assert (cluster["judge"], cluster["is_current"]) == (None, False)
            assert cluster["shares"] == {"t0": ["r1"]}
        until(lambda: incidents(lookout) == [("INC-1", "open")])
        until(lambda: metric(lookout, "lookout_degraded") == 0)
        assert lookout.status()["complaints"] == []
        assert lookout.process.stop() == 0
        assert "Traceback" not in lookout.log


def test_a_replica_that_starts_without_zookeeper_judges_once_it_comes(
    target: Upstream, replica: Callable[..., Lookout], zookeeper: Zookeeper
) -> None:
    target.status = "500 Oops"
    with zookeeper.stop(), replica("r1") as lookout:
        until(lambda: lookout.target("t0")["state"] == "down")
        assert lookout.status()["judge"] == {"here": False, "state": "waiting", "token": None}
        zookeeper.start()

        until(lambda: incidents(lookout) == [("INC-1", "open")])
        assert judges(lookout)


def test_a_zookeeper_without_the_data_of_before_gets_a_later_epoch(
    replica: Callable[..., Lookout], database: Database
) -> None:
    ledgers = LedgerStore(database)
    ledgers.claim("r0", Epoch(1, 1 << 62))  # of another ZooKeeper, where much had happened
    with replica("r1") as lookout:
        until(lambda: judges(lookout) and ledgers.read().judge == "r1")


def test_open_incidents_and_unsent_mails_of_one_replica_are_kept_by_many(
    target: Upstream, serve: Callable[..., Lookout], replica: Callable[..., Lookout]
) -> None:
    target.status = "500 Oops"
    with SmtpServer() as mailbox:
        mailbox.stop()
        mail = f"mail: {{recipients: [a@b], sender: x@y, host: 127.0.0.1, port: {mailbox.port}}}\n"
        with serve(target.url, more=mail) as alone:
            until(lambda: incidents(alone) == [("INC-1", "open")])
            until(lambda: alone.status()["complaints"])
            assert alone.process.stop() == 0
        mailbox.start()
        with replica("r1", mailbox) as one, replica("r2", mailbox) as other:
            until(lambda: judges(one) or judges(other))
            mailbox.wait_for(lambda: mailbox.messages, timeout=30)
            target.status = "200 OK"
            until(lambda: incidents(one) == incidents(other) == [("INC-1", "closed")])
            until(lambda: len(mailbox.messages) == 2)
