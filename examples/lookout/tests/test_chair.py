"""The judge: its terms, and what comes of it when ZooKeeper, disk or process stand still.

First in this process, with a leadership that only pretends; then whole replicas on a ZooKeeper.
"""

import json
import re
import signal
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
from lookout.judge import Rules
from lookout.ledger import Deposed, Epoch, LedgerFile
from lookout.records import History, Incident, Result
from lookout.settings import SHIPPED
from lookout.targets import Target
from lookout.voices import Voices
from sepelib.metrics import Registry
from sepelib.util.testing import SmtpServer
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

    def __init__(self, state: Path, name: str = "r1", sharers: tuple[str, ...] = ()) -> None:
        self.history = History()
        self.file = LedgerFile(state)
        self.told: list[Incident] = []
        self.counters = Counters(Registry())
        self.keeper = store.Keeper(
            partial(store.encode, self.history),
            partial(store.save, state / f"{name}.json"),
            every=3600,
        )
        self.voices = Voices(self.history, name, lambda target: sharers or (name,))
        self.others: dict[str, History] = {}
        self.chair = Chair(
            self.voices,
            self.keeper,
            self.file,
            self.counters,
            replica=name,
            announce=self.announce,
            mail=None,
            max_incidents=200,
            save_every=3600,
        )
        self.chair.watch(["shop"])

    def announce(self, incident: Incident) -> None:
        assert incident in self.file.read().incidents or self.chair.error
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
    def term(self, token: int) -> Iterator[Lead]:
        """A term in a greenlet, which ends with the block if not before."""
        lead = Lead()
        serving = gevent.spawn(self.chair.serve, lead, Epoch(1, token))
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


def test_an_incident_is_on_disk_before_it_is_announced(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    with replica.term(1):
        replica.see("--")
        replica.until(lambda: replica.told)  # announce() looks at the disk
        replica.see("++")

    assert [i.is_open for i in replica.told] == [True, False]  # the last one at the end of the term
    assert (count(replica.counters.opened), count(replica.counters.closed)) == (1, 1)
    kept = store.load(tmp_path / "r1.json", max_results=9)
    assert kept.record("shop").standing == replica.history.record("shop").standing


def test_a_judge_goes_by_what_those_find_who_probe_the_target(tmp_path: Path) -> None:
    replica = Replica(tmp_path, "r1", sharers=("r2", "r3"))
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
    tmp_path: Path,
) -> None:
    replica = Replica(tmp_path, "r1", sharers=("r1", "r2"))
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
    tmp_path: Path,
) -> None:
    replica = Replica(tmp_path)
    with replica.term(1):
        pass
    replica.see("--")
    assert replica.chair.ledger().incidents == []

    with replica.term(2):
        assert replica.chair.ledger().incidents == []  # perhaps somebody has judged that already
        replica.see("-")
        replica.until(lambda: replica.told)
    assert [i.id for i in replica.chair.ledger().incidents] == ["INC-1"]


def test_the_heir_goes_on_with_what_is_open(tmp_path: Path) -> None:
    first, heir = Replica(tmp_path, "r1"), Replica(tmp_path, "r2")
    with first.term(1):
        first.see("--")
    with heir.term(2):
        heir.see("--")
        heir.see("++")

    assert [(i.id, i.is_open) for i in heir.told] == [("INC-1", False)]
    assert heir.file.read().judge == "r2"
    assert first.chair.ledger().incidents == heir.told  # all show the same


def test_what_nobody_watches_any_more_is_closed_by_the_judge_alone(tmp_path: Path) -> None:
    judge, other = Replica(tmp_path, "r1"), Replica(tmp_path, "r2")
    with judge.term(1):
        judge.see("--")
        judge.until(lambda: judge.told)
        other.chair.watch([])
        judge.chair.watch(["blog"])

    assert other.told == []
    assert [i.closed_because for i in judge.told] == [None, "no longer watched"]


def test_a_deposed_judge_writes_nothing_and_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Replica(tmp_path, "r1"), Replica(tmp_path, "r2")
    with old.term(1):
        with new.term(2):
            new.see("--")
        before = old.file.path.read_bytes()
        old.see("--")
        old.until(lambda: old.chair.postman is None)  # the term has ended

    assert old.told == []
    assert old.file.path.read_bytes() == before
    assert count(old.counters.deposed) == 1
    assert count(old.counters.opened) == 0
    assert "a later judge has written the incidents: epoch 1/2, ours is 1/1" in caplog.text


def test_a_judge_that_has_lost_the_lead_judges_no_more(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    with replica.term(1) as lead:
        lead.is_leader = False
        replica.see("--")
        replica.until(lambda: replica.chair.postman is None)

    assert replica.told == replica.file.read().incidents == []


def test_a_claim_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    old, new = Replica(tmp_path, "r1"), Replica(tmp_path, "r2")
    with new.term(2):
        pass

    with pytest.raises(Deposed):
        old.chair.serve(Lead(), Epoch(1, 1))

    assert count(old.counters.deposed) == 1
    assert old.chair.error is not None
    with new.term(3):
        old.chair.ledger()
    assert old.chair.error is None  # others could


def test_a_disk_that_fails_is_shown_and_the_incident_is_announced_all_the_same(
    tmp_path: Path,
) -> None:
    replica = Replica(tmp_path / "state")
    with pytest.raises(OSError, match="No such file"):
        replica.chair.serve(Lead(), Epoch(1, 1))
    assert "No such file" in str(replica.chair.error)

    (tmp_path / "state").mkdir()
    with replica.term(2):
        assert replica.chair.error is None
        (tmp_path / "state").rename(tmp_path / "gone")
        replica.see("--")
        replica.until(lambda: replica.told)
        assert "No such file" in str(replica.chair.error)
        (tmp_path / "gone").rename(tmp_path / "state")

    assert replica.chair.error is None
    assert replica.file.read().incidents == replica.told


# Whole replicas


@pytest.fixture
def replica(target: Upstream, zookeeper: Zookeeper, tmp_path: Path) -> Callable[..., Lookout]:
    """`replica("r1")`: a daemon that watches `target` ten times a second."""

    def make(name: str, mailbox: SmtpServer | None = None, hosts: str = "") -> Lookout:
        values = {
            "zookeeper": hosts or zookeeper.hosts,
            "session_timeout": "2s",
            "replica": name,
            "state": str(tmp_path / "state"),
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
    target: Upstream, replica: Callable[..., Lookout]
) -> None:
    with SmtpServer() as mailbox, replica("r1", mailbox) as old:
        until(lambda: judges(old))
        with replica("r2", mailbox) as heir:
            until(lambda: heir.target("t0")["state"] == "up")
            old.signal(signal.SIGSTOP)
            target.status = "500 Oops"
            until(lambda: judges(heir))
            until(lambda: incidents(heir) == [("INC-1", "open")])
            mailbox.wait_for(lambda: mailbox.messages, timeout=30)
            old.signal(signal.SIGCONT)

            until(lambda: metric(old, "lookout_deposed_total") == 1)
            until(lambda: old.target("t0")["state"] == "down")
            assert incidents(old) == incidents(heir) == [("INC-1", "open")]
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
    replica: Callable[..., Lookout], tmp_path: Path
) -> None:
    file = LedgerFile(tmp_path / "state")
    file.path.parent.mkdir()
    file.claim("r0", Epoch(1, 1 << 62))  # of another ZooKeeper, where much had happened
    with replica("r1") as lookout:
        until(lambda: judges(lookout) and file.read().judge == "r1")


def test_open_incidents_and_unsent_mails_of_one_replica_are_kept_by_many(
    target: Upstream, serve: Callable[..., Lookout], replica: Callable[..., Lookout], tmp_path: Path
) -> None:
    target.status = "500 Oops"
    with SmtpServer() as mailbox:
        mailbox.stop()
        mail = f"mail: {{recipients: [a@b], sender: x@y, host: 127.0.0.1, port: {mailbox.port}}}\n"
        with serve(target.url, more=mail) as alone:
            until(lambda: incidents(alone) == [("INC-1", "open")])
            until(lambda: alone.status()["complaints"])
            assert alone.process.stop() == 0
        version_1(tmp_path / "state")
        mailbox.start()
        with replica("r1", mailbox) as one, replica("r2", mailbox) as other:
            until(lambda: judges(one) or judges(other))
            mailbox.wait_for(lambda: mailbox.messages, timeout=30)
            target.status = "200 OK"
            until(lambda: incidents(one) == incidents(other) == [("INC-1", "closed")])
            until(lambda: len(mailbox.messages) == 2)


def version_1(state: Path) -> None:
    """Put the files as the version before has left them."""
    history, ledger = state / "history.json", state / "incidents.json"
    old = json.loads(ledger.read_text()) | json.loads(history.read_text()) | {"version": 1}
    del old["epoch"], old["judge"]
    history.write_text(json.dumps(old))
    ledger.unlink()
    (state / "incidents.lock").unlink()
