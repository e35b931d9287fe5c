"""Incidents: when they open and close, and whose write to the database counts."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Any

import pytest
from pymongo.errors import DuplicateKeyError

from lookout import models
from lookout.database import Away, Database, Refused
from lookout.judge import Rules
from lookout.ledger import Deposed, Epoch, Ledger, LedgerStore, Writer
from lookout.records import History, Incident, Result
from lookout.settings import MongoSettings
from sepelib.mongo import MockDatabase
from sepelib.util.secrets import Secret
from sepelib.util.testing import FlakyProxy

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = Rules(confirm=2, recover=2)


class Replica:
    """The history of one replica over a ledger that others may have as well."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.history = History()
        self.ledger = ledger or Ledger()

    def see(self, target: str, probes: str, *, judges: bool = True) -> list[Incident]:
        """Add a result per second; `+` is a good one. What has opened or closed by them."""
        changes = []
        for n, probe in enumerate(probes):
            error = None if probe == "+" else "connection refused"
            result = Result(NOON + timedelta(seconds=n), 0.01, None if error else 200, error)
            self.history.add(target, result, RULES)
            if judges and (incident := self.judge(target)):
                changes.append(incident)
        return changes

    def judge(self, target: str) -> Incident | None:
        return self.ledger.judge_target(target, [self.history.record(target)], RULES)


# When


def test_an_incident_opens_with_the_confirming_probe_and_closes_with_the_recovering_one() -> None:
    opened, closed = Replica().see("shop", "+--++")

    assert opened.is_open
    assert (opened.id, opened.cause) == ("INC-?", "connection refused")
    assert opened.opened_at == NOON + timedelta(seconds=2)
    assert closed.number == opened.number
    assert closed.closed_at == NOON + timedelta(seconds=4)
    assert closed.closed_because == "recovered"


def test_to_judge_twice_is_to_judge_once() -> None:
    replica = Replica()
    replica.see("shop", "--")
    before = list(replica.ledger.incidents)
    assert replica.judge("shop") is None
    assert replica.ledger.incidents == before

    assert replica.see("shop", "++")
    assert replica.judge("shop") is None
    assert len(replica.ledger.incidents) == 1


def test_what_the_judge_before_saw_and_did_not_write_is_opened_by_the_next_one_once() -> None:
    shared = Ledger()
    Replica().see("shop", "--")  # whose ledger never came to the disk
    heir = Replica(shared)
    heir.see("shop", "--", judges=False)

    (opened,) = heir.see("shop", "---")
    assert opened.is_open
    (closed,) = Replica(shared).see("shop", "++")
    assert closed.number == opened.number


@pytest.mark.parametrize("seen", ["+", "-", "--", "+-", "-+"])
def test_who_has_not_seen_a_recovery_closes_nothing(seen: str) -> None:
    shared = Ledger()
    Replica(shared).see("shop", "--")

    assert Replica(shared).see("shop", seen) == []
    assert shared.open_incident("shop") is not None


@pytest.mark.parametrize("seen", ["-", "+-", "+-+-"])
def test_who_has_not_seen_an_outage_opens_nothing(seen: str) -> None:
    assert Replica().see("shop", seen) == []


def test_a_recovery_after_an_outage_that_was_judged_by_nobody_opens_nothing() -> None:
    replica = Replica()
    replica.see("shop", "--", judges=False)

    assert replica.see("shop", "+++") == []


def test_of_too_many_incidents_the_oldest_closed_ones_go_and_open_ones_stay() -> None:
    replica = Replica(Ledger(max_incidents=3))
    replica.see("old", "--")  # stays open
    replica.see("shop", "--++" * 4)

    assert [-i.number for i in replica.ledger.incidents] == [1, 4, 5]
    assert replica.ledger.open_incident("old") is not None


def test_more_open_incidents_than_the_limit_are_all_kept() -> None:
    replica = Replica(Ledger(max_incidents=1))
    for name in ("a", "b", "c"):
        replica.see(name, "--")

    assert len(replica.ledger.incidents) == 3


def test_the_incident_of_a_target_that_nobody_watches_any_more_is_closed() -> None:
    replica = Replica()
    replica.see("gone", "--")
    replica.see("shop", "--")

    (closed,) = replica.ledger.watch_only(["shop"], NOON + timedelta(minutes=1))

    assert (closed.target, closed.closed_because) == ("gone", "no longer watched")
    assert replica.ledger.open_incident("shop") is not None
    assert replica.ledger.watch_only(["shop"], NOON) == []


def test_a_number_that_comes_late_reaches_the_mails_and_the_news_too() -> None:
    replica = Replica()
    replica.ledger.mailing = True
    replica.see("shop", "--++--")

    provisional = replica.ledger.unnumbered()
    assert len(provisional) == 2
    replica.ledger.renumber(dict(zip(provisional, (7, 8), strict=True)))

    assert replica.ledger.unnumbered() == []
    assert [i.id for i in replica.ledger.incidents] == ["INC-7", "INC-8"]
    assert [i.id for i in replica.ledger.news] == ["INC-7", "INC-7", "INC-8"]
    assert [(m.incident.id, m.kind) for m in replica.ledger.outbox] == [
        ("INC-7", "opened"),
        ("INC-7", "closed"),
        ("INC-8", "opened"),
    ]


# Whose write counts


def written(database: Database, judge: str, epoch: Epoch | None, probes: str = "--") -> Writer:
    writer = LedgerStore(database).claim(judge, epoch)
    writer.ledger.mailing = True
    Replica(writer.ledger).see("shop", probes)
    writer.write()
    return writer


def everything(mongo: MockDatabase) -> dict[str, list[dict[str, Any]]]:
    names = ("incidents", "outbox", "judge")
    return {name: list(mongo.db[name].find().sort("_id")) for name in names}


def test_what_was_written_is_what_the_next_judge_and_the_others_find(database: Database) -> None:
    ledger = written(database, "r1", Epoch(1, 5), "--++--").ledger

    read = LedgerStore(database).read()
    heir = LedgerStore(database).claim("r2", Epoch(1, 6)).ledger
    assert [i.id for i in ledger.incidents] == ["INC-1", "INC-2"]
    assert read.incidents == heir.incidents == ledger.incidents
    assert heir.outbox == ledger.outbox
    assert (read.epoch, read.judge) == (Epoch(1, 5), "r1")


def test_what_lookout_keeps_is_plain_to_read_for_others(
    database: Database, mongo: MockDatabase
) -> None:
    written(database, "r1", Epoch(1, 5), "--++")

    (incident,) = models.Incident.objects
    assert (incident.id, incident.target, incident.epoch) == ("INC-1", "shop", [1, 5])
    assert incident.state is models.IncidentState.CLOSED
    assert incident.closed_at == NOON + timedelta(seconds=3)
    kinds = [mail.kind for mail in models.Outgoing.objects.order_by("queued_at")]
    assert kinds == [models.Kind.OPENED, models.Kind.CLOSED]


def test_nothing_that_has_not_changed_is_written_again(
    database: Database, mongo: MockDatabase
) -> None:
    writer = written(database, "r1", Epoch(1, 5), "--++--")
    before = everything(mongo)
    mongo.db.incidents.update_one({"_id": "INC-1"}, {"$set": {"cause": "of another"}})

    assert writer.write() == []
    assert everything(mongo)["judge"] == before["judge"]
    Replica(writer.ledger).see("blog", "--")
    (told,) = writer.write()
    assert (told.id, told.target) == ("INC-3", "blog")
    assert mongo.db.incidents.find_one({"_id": "INC-1"})["cause"] == "of another"


def test_an_empty_database_is_an_empty_ledger(database: Database) -> None:
    ledger = LedgerStore(database).read()

    assert (ledger.incidents, ledger.epoch, ledger.judge) == ([], Epoch(0, 0), "")


def test_what_goes_from_the_ledger_goes_from_the_database(
    database: Database, mongo: MockDatabase
) -> None:
    writer = written(database, "r1", Epoch(1, 5), "--++" * 5)
    writer.ledger.limit(2)
    writer.ledger.outbox.clear()
    writer.write()

    assert [row["_id"] for row in mongo.db.incidents.find().sort("_id")] == ["INC-4", "INC-5"]
    assert mongo.db.outbox.count_documents({}) == 0


@pytest.mark.parametrize("later", [Epoch(1, 6), Epoch(2, 1)], ids=["token", "new ZooKeeper"])
def test_a_write_of_an_earlier_epoch_is_refused_and_changes_nothing(
    later: Epoch, database: Database, mongo: MockDatabase
) -> None:
    old = written(database, "r1", Epoch(1, 5))
    written(database, "r2", later, "++")
    before = everything(mongo)

    Replica(old.ledger).see("shop", "++")
    Replica(old.ledger).see("blog", "--")
    with pytest.raises(Deposed, match=f"r2 has .*: epoch {later[0]}/{later[1]}, ours is 1/5"):
        old.write()
    with pytest.raises(Deposed):
        LedgerStore(database).claim("r1", old.epoch)

    assert everything(mongo) == before


def test_the_claim_alone_keeps_an_earlier_judge_out(database: Database) -> None:
    old = written(database, "r1", Epoch(1, 5))

    heir = LedgerStore(database).claim("r2", Epoch(1, 6))
    assert heir.ledger.incidents == old.ledger.incidents
    Replica(old.ledger).see("shop", "++")
    with pytest.raises(Deposed):
        old.write()
    assert LedgerStore(database).read().judge == "r2"


def test_the_only_replica_goes_on_whatever_epoch_there_was_and_keeps_its_own_past_out(
    database: Database,
) -> None:
    before = written(database, "r1", Epoch(1, 5))

    alone = written(database, "host", None, "++")
    again = LedgerStore(database).claim("host", None)

    assert alone.epoch == again.epoch == Epoch(1, 5)
    for old in (before, alone):
        Replica(old.ledger).see("blog", "--")
        with pytest.raises(Deposed):
            old.write()
    several = LedgerStore(database).claim("r1", Epoch(1, 6))
    assert several.ledger.incidents == alone.ledger.incidents[:1]


def test_a_target_has_one_open_incident_at_most_whoever_writes(
    database: Database, mongo: MockDatabase
) -> None:
    written(database, "r1", Epoch(1, 5), "--")

    with pytest.raises(DuplicateKeyError):
        mongo.db.incidents.insert_one({"_id": "INC-9", "target": "shop", "state": "open"})


def test_an_incident_that_opens_when_one_of_the_same_target_closes_is_one_write(
    database: Database,
) -> None:
    writer = written(database, "r1", Epoch(1, 5), "--")
    Replica(writer.ledger).see("shop", "++--")

    told = writer.write()

    assert [(i.id, i.is_open) for i in told] == [("INC-1", False), ("INC-2", True)]


def test_numbers_go_on_after_those_there_are_even_if_the_counter_is_lost(
    database: Database, mongo: MockDatabase
) -> None:
    written(database, "r1", Epoch(1, 5), "--++--")
    incidents = list(mongo.db.incidents.find())
    mongo.drop()
    database.close()  # a new process on a database that was restored in part
    mongo.db.incidents.insert_many(incidents)

    writer = written(database, "r1", Epoch(1, 6), "++--")
    assert [i.id for i in writer.ledger.incidents] == ["INC-1", "INC-2", "INC-3"]


def test_a_document_that_is_no_incident_is_named(database: Database, mongo: MockDatabase) -> None:
    mongo.db.incidents.insert_one({"_id": "INC-x", "target": "shop"})

    for use in (LedgerStore(database).read, lambda: LedgerStore(database).claim("r1", None)):
        with pytest.raises(Refused, match="INC-x: not as lookout has written it"):
            use()


def count_up(uri: str, name: str, judge: str, tokens: list[int], at_once: Any) -> None:
    """Open an incident in each of these terms; exit with how often that was written."""
    database, opened = Database(MongoSettings(Secret(uri), name)), 0
    for token in tokens:
        at_once.wait(60)
        try:
            writer = LedgerStore(database).claim(judge, Epoch(1, token))
            Replica(writer.ledger).see(f"t{token}", "--")
            opened += len(writer.write())
        except Deposed:
            pass
    sys.exit(opened)


def test_judges_of_two_processes_undo_nothing_of_each_other(
    database: Database, mongo: MockDatabase
) -> None:
    context = get_context("spawn")
    at_once = context.Barrier(2)
    children = [
        context.Process(target=count_up, args=(mongo.uri, mongo.name, f"r{n}", numbers, at_once))
        for n, numbers in enumerate([list(range(1, 61, 2)), list(range(2, 61, 2))])
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    opened = sum(child.exitcode or 0 for child in children)
    assert opened >= 30  # the later of the two is never refused
    incidents = LedgerStore(database).read().incidents
    assert len(incidents) == len({i.target for i in incidents}) == opened


# What nobody knows


@pytest.fixture
def behind(proxy: FlakyProxy, mongo: MockDatabase) -> Iterator[Database]:
    """The database, by way of the proxy."""
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    database = Database(MongoSettings(Secret(uri), mongo.name))
    yield database
    database.close()


def is_commit(data: bytes) -> bool:
    return b"commitTransaction" in data


def test_a_commit_whose_answer_is_lost_is_done_once(
    behind: Database, proxy: FlakyProxy, mongo: MockDatabase
) -> None:
    writer = written(behind, "r1", Epoch(1, 5))
    Replica(writer.ledger).see("blog", "--")
    with proxy.lose_answer(is_commit):
        assert [i.id for i in writer.write()] == ["INC-2"]

    assert mongo.db.incidents.count_documents({}) == mongo.db.outbox.count_documents({}) == 2


@pytest.mark.parametrize("was_done", [True, False], ids=["done", "not done"])
def test_a_commit_of_unknown_outcome_is_looked_up_before_anything_else_is_written(
    was_done: bool, behind: Database, proxy: FlakyProxy, mongo: MockDatabase
) -> None:
    writer = written(behind, "r1", Epoch(1, 5))
    (mail,) = writer.ledger.outbox
    Replica(writer.ledger).see("blog", "--")
    if was_done:
        proxy.lose_answer(is_commit)
    else:
        proxy.cut()
    proxy.refuse()
    with pytest.raises(Away):
        writer.write()
    assert len(writer.ledger.news) == 1
    assert (mongo.db.outbox.count_documents({}) == 2) is was_done
    assert behind.error is not None

    # What was perhaps saved is wanted no more: who does not look would leave it there.
    del writer.ledger.outbox[1:]
    proxy.accept()
    (told,) = writer.write()
    assert told.target == "blog"
    assert [row["_id"] for row in mongo.db.outbox.find()] == [mail.message_id]
    assert {row["target"] for row in mongo.db.incidents.find()} == {"shop", "blog"}
    assert behind.error is None


def claim_and_hang(uri: str, name: str) -> None:
    LedgerStore(Database(MongoSettings(Secret(uri), name))).claim("r1", Epoch(1, 1))


def test_a_judge_killed_in_the_middle_of_a_transaction_holds_up_nobody(
    database: Database, proxy: FlakyProxy, mongo: MockDatabase
) -> None:
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    old = get_context("spawn").Process(target=claim_and_hang, args=(uri, mongo.name))
    loss = proxy.lose_answer(lambda data: b"startTransaction" in data, then="hold")
    old.start()
    loss.wait(timeout=30)
    old.kill()
    old.join()

    heir = written(database, "r2", Epoch(1, 2))
    assert [i.id for i in heir.ledger.incidents] == ["INC-1"]
