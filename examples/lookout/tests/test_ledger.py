"""Incidents: when they open and close, and whose write to the file counts."""

import json
import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from lookout.judge import Rules
from lookout.ledger import Deposed, Epoch, Ledger, LedgerFile, encode
from lookout.records import History, Incident, Result
from lookout.store import HistoryDamaged, NewerHistory, load

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
    assert (opened.id, opened.cause) == ("INC-1", "connection refused")
    assert opened.opened_at == NOON + timedelta(seconds=2)
    assert closed.id == "INC-1"
    assert closed.closed_at == NOON + timedelta(seconds=4)
    assert closed.closed_because == "recovered"


def test_to_judge_twice_is_to_judge_once() -> None:
    replica = Replica()
    replica.see("shop", "--")
    before = encode(replica.ledger)
    assert replica.judge("shop") is None
    assert encode(replica.ledger) == before

    assert replica.see("shop", "++")
    assert replica.judge("shop") is None
    assert len(replica.ledger.incidents) == 1


def test_what_the_judge_before_saw_and_did_not_write_is_opened_by_the_next_one_once() -> None:
    shared = Ledger()
    Replica().see("shop", "--")  # whose ledger never came to the disk
    heir = Replica(shared)
    heir.see("shop", "--", judges=False)

    (opened,) = heir.see("shop", "---")
    assert (opened.id, opened.is_open) == ("INC-1", True)
    (closed,) = Replica(shared).see("shop", "++")
    assert closed.id == "INC-1"


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
    replica.see("old", "--")  # INC-1 stays open
    replica.see("shop", "--++" * 4)

    assert [i.id for i in replica.ledger.incidents] == ["INC-1", "INC-4", "INC-5"]
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


# Whose write counts


def written(file: LedgerFile, judge: str, epoch: Epoch | None, probes: str = "--") -> Ledger:
    ledger = file.claim(judge, epoch)
    ledger.mailing = True
    Replica(ledger).see("shop", probes)
    file.write(encode(ledger), ledger.epoch)
    return ledger


def test_what_was_written_is_read_back_equal(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    ledger = written(file, "r1", Epoch(1, 5), "--++--")

    again = file.read()
    assert (again.incidents, again.outbox) == (ledger.incidents, ledger.outbox)
    assert (again.epoch, again.judge, again.next_number) == (Epoch(1, 5), "r1", 3)


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path).read()

    assert (ledger.incidents, ledger.epoch, list(tmp_path.iterdir())) == ([], Epoch(0, 0), [])


@pytest.mark.parametrize("later", [Epoch(1, 6), Epoch(2, 1)], ids=["token", "new ZooKeeper"])
def test_a_write_of_an_earlier_epoch_is_refused_and_changes_nothing(
    later: Epoch, tmp_path: Path
) -> None:
    file = LedgerFile(tmp_path)
    old = written(file, "r1", Epoch(1, 5))
    written(file, "r2", later)
    before = file.path.read_bytes()

    with pytest.raises(Deposed, match=f"epoch {later[0]}/{later[1]}, ours is 1/5"):
        file.write(encode(old), old.epoch)
    with pytest.raises(Deposed):
        file.claim("r1", old.epoch)

    assert file.path.read_bytes() == before


def test_the_claim_alone_keeps_an_earlier_judge_out(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    old = written(file, "r1", Epoch(1, 5))

    assert file.claim("r2", Epoch(1, 6)).incidents == old.incidents
    with pytest.raises(Deposed):
        file.write(encode(old), old.epoch)
    assert file.read().judge == "r2"


def test_the_only_replica_goes_on_whatever_epoch_there_was(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    written(file, "r1", Epoch(1, 5))

    alone = written(file, "host", None)

    assert alone.epoch == Epoch(1, 5)
    assert file.claim("r1", Epoch(1, 6)).incidents == alone.incidents


def count_up(state: str, judge: str, tokens: list[int], at_once: Any) -> None:
    """Add one to the number in the ledger in each of these terms; exit with how often it was."""
    file, written = LedgerFile(Path(state)), 0
    for token in tokens:
        at_once.wait(60)
        try:
            ledger = file.claim(judge, Epoch(1, token))
            ledger.next_number += 1
            file.write(encode(ledger), ledger.epoch)
            written += 1
        except Deposed:
            pass
    sys.exit(written)


def test_judges_of_two_processes_undo_nothing_of_each_other(tmp_path: Path) -> None:
    context = get_context("spawn")
    at_once = context.Barrier(2)
    children = [
        context.Process(target=count_up, args=(str(tmp_path), f"r{n}", numbers, at_once))
        for n, numbers in enumerate([list(range(1, 161, 2)), list(range(2, 161, 2))])
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    written = sum(child.exitcode or 0 for child in children)
    assert written >= 80  # the later of the two is never refused
    assert LedgerFile(tmp_path).read().next_number == 1 + written


# Files of others


def test_the_incidents_of_a_history_of_before_are_taken_over_once(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.mailing = True
    Replica(ledger).see("shop", "--")
    old = json.loads(encode(ledger)) | {
        "targets": {"shop": {"state": "down", "streak": 2, "since": None, "results": []}}
    }
    del old["epoch"], old["judge"]
    history = tmp_path / "history.json"
    history.write_text(json.dumps(old))

    for _ in range(2):  # whichever replica comes first
        LedgerFile(tmp_path).adopt(history)
    assert LedgerFile(tmp_path).read().incidents == ledger.incidents
    assert LedgerFile(tmp_path).read().outbox == ledger.outbox
    assert LedgerFile(tmp_path).read().next_number == 2
    assert load(history, max_results=9).record("shop").standing.state == "down"

    written(LedgerFile(tmp_path), "r1", Epoch(1, 5), "++")
    LedgerFile(tmp_path).adopt(history)
    assert LedgerFile(tmp_path).read().open_incident("shop") is None


def test_a_damaged_file_is_put_aside_by_who_writes_and_by_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LedgerFile(tmp_path)
    file.path.write_text('{"version": 1, "inci')
    with pytest.raises(HistoryDamaged):
        file.read()
    assert caplog.records == []

    assert file.claim("r1", Epoch(1, 5)).incidents == []

    (aside,) = tmp_path.glob("incidents.json.damaged-*")
    assert aside.read_text() == '{"version": 1, "inci'
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert aside.name in record.getMessage()


def test_the_file_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    file.path.write_text('{"version": 2}')

    for use in (file.read, lambda: file.claim("r1", Epoch(1, 5)), lambda: file.write("", Epoch())):
        with pytest.raises(NewerHistory, match=r"incidents\.json: written by a later lookout"):
            use()

    assert file.path.read_text() == '{"version": 2}'
    assert sorted(os.listdir(tmp_path)) == ["incidents.json", "incidents.lock"]
