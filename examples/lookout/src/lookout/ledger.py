"""Incidents and the mails about them: one file for all replicas, written by the one that judges.

    lock ─► read ─► its epoch is later than ours? ──no──► replace the file, with our epoch ─► unlock
                                    └──yes──► Deposed, and nothing is written

The first write of a term is the claim: it puts the new epoch in before anything is judged. So what
an earlier judge still writes, however late (it was stopped, or its disk was slow), is refused. No
lease can do that: the lock of ZooKeeper does not hold up a write which is on its way.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lookout.judge import Rules, State, are_failing, are_well, is_well
from lookout.records import Incident, Mail, Record, Result
from lookout.store import (
    HistoryDamaged,
    NewerHistory,
    moment,
    refuse_newer,
    save,
    set_aside,
)
from sepelib.util.fs import FileLock

__all__ = ["MAX_OUTBOX", "Deposed", "Epoch", "Ledger", "LedgerFile", "decode", "encode"]

VERSION = 1
MAX_OUTBOX = 1000  # mails that wait: some days of a mail server that is away
FILE = "incidents.json"


class Epoch(NamedTuple):
    """Which term it is; a later one is greater, whichever replica had it.

    generation: when the lock was made in ZooKeeper, since tokens begin anew with its data.
    token: of the leadership.
    """

    generation: int = 0
    token: int = 0


class Deposed(Exception):
    """A later judge has written to the file."""

    def __init__(self, mine: Epoch, theirs: Epoch) -> None:
        super().__init__(mine, theirs)

    def __str__(self) -> str:
        mine, theirs = self.args
        return (
            f"a later judge has written the incidents: "
            f"epoch {theirs.generation}/{theirs.token}, ours is {mine.generation}/{mine.token}"
        )


class Ledger:
    """Incidents and unsent mails, bounded.

    mailing: whether an incident that opens or closes puts a mail into the `outbox`. It does so
    in one step with the incident: no save has the one without the other.
    epoch, judge: of the term in which it was written, and by which replica.

    Belongs to one hub: no method yields, so greenlets never see it half changed.
    """

    def __init__(self, *, max_incidents: int = 200) -> None:
        self.incidents: list[Incident] = []  # oldest first
        self.outbox: list[Mail] = []  # oldest first
        self.mailing = False
        self.next_number = 1
        self.max_incidents = max_incidents
        self.epoch = Epoch()
        self.judge = ""

    def judge_target(self, target: str, records: Sequence[Record], rules: Rules) -> Incident | None:
        """Open or close an incident, by where those who probe the target stand with it now.

        By where they stand and not by how they came there: the judge before this one may have died
        in between. Twice is as good as once. Where a replica has but begun to look, it neither
        opens nor closes anything before it has seen as much as `rules` want.
        records: of each of them, with a result at least.
        """
        incident = self.open_incident(target)
        standings = [record.standing for record in records]
        if incident is None and are_failing(standings, rules):
            down = [each.results[-1] for each in records if each.standing.state is State.DOWN]
            return self._open(target, max(down, key=_at))
        if incident is not None and are_well(standings, rules):
            well = [each.results[-1] for each in records if is_well(each.standing, rules)]
            return self._close(incident, max(well, key=_at).at, "recovered")
        return None

    def open_incident(self, target: str) -> Incident | None:
        return next((i for i in self.incidents if i.is_open and i.target == target), None)

    def watch_only(self, targets: Collection[str], now: datetime) -> list[Incident]:
        """Close the incidents of all other targets; give them."""
        others = [i for i in self.incidents if i.is_open and i.target not in targets]
        return [self._close(incident, now, "no longer watched") for incident in others]

    def limit(self, max_incidents: int) -> None:
        """Keep so many from now on, and all that are open."""
        self.max_incidents = max_incidents
        self._trim()

    def _open(self, target: str, result: Result) -> Incident:
        incident = Incident(self.next_number, target, result.at, result.error or "")
        self.next_number += 1
        self.incidents.append(incident)
        self._trim()
        self._post(incident)
        return incident

    def _trim(self) -> None:
        while len(self.incidents) > self.max_incidents:
            # Open ones stay whatever their age: somebody waits for them to end.
            oldest = next((i for i in self.incidents if not i.is_open), None)
            if oldest is None:
                break
            self.incidents.remove(oldest)

    def _close(self, incident: Incident, at: datetime, because: str) -> Incident:
        closed = replace(incident, closed_at=at, closed_because=because)
        self.incidents[self.incidents.index(incident)] = closed
        self._post(closed)
        return closed

    def _post(self, incident: Incident) -> None:
        if self.mailing:
            self.outbox.append(Mail(incident))
            del self.outbox[:-MAX_OUTBOX]


class LedgerFile:
    """The file in the directory *state*, which all replicas share. Every method waits for a disk.

    Whatever is wrong with the disk is an OSError; NewerHistory where a later version of lookout has
    written the file. A damaged one is put aside by who writes; who reads gets HistoryDamaged.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._lock = FileLock(state / f"{self.path.stem}.lock")

    def read(self) -> Ledger:
        """As it is on disk; an empty one when there is no file."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Ledger()
        try:
            return decode(text)
        except NewerHistory as error:
            raise NewerHistory(f"{self.path}: {error}") from error

    def claim(self, judge: str, epoch: Epoch | None) -> Ledger:
        """Begin a term, and give what the one before has left; Deposed where there is a later one.

        epoch: None goes on with that of the file: there is but one replica.
        """
        with self._lock:
            ledger = self._ours(epoch)
            ledger.judge, ledger.epoch = judge, ledger.epoch if epoch is None else epoch
            save(self.path, encode(ledger))
        return ledger

    def write(self, text: str, epoch: Epoch) -> None:
        """Replace all by what `encode` made; Deposed, with nothing written, in a later epoch."""
        with self._lock:
            self._ours(epoch)
            save(self.path, text)

    def adopt(self, history: Path) -> None:
        """Take over the incidents of *history*, of a version that had them there. Once."""
        with self._lock:
            if self.path.exists() or not history.exists():
                return
            try:
                ledger = decode(history.read_bytes())
            except NewerHistory:
                return  # which has none in it
            except HistoryDamaged as error:
                set_aside(history, error)
                return
            save(self.path, encode(ledger))

    def _ours(self, epoch: Epoch | None) -> Ledger:
        try:
            ledger = self.read()
        except HistoryDamaged as error:
            set_aside(self.path, error)
            return Ledger()
        if epoch is not None and ledger.epoch > epoch:
            raise Deposed(epoch, ledger.epoch)
        return ledger


def encode(ledger: Ledger) -> str:
    """*ledger* as JSON."""
    return json.dumps(
        {
            "version": VERSION,
            "epoch": ledger.epoch,
            "judge": ledger.judge,
            "next_number": ledger.next_number,
            "incidents": [_row(incident) for incident in ledger.incidents],
            "outbox": [{"incident": _row(m.incident), "to": m.to} for m in ledger.outbox],
        }
    )


def decode(text: bytes) -> Ledger:
    """What `encode` made, or the history of version 1. Raises HistoryUnreadable."""
    ledger = Ledger()
    try:
        tree = json.loads(text)
        refuse_newer(tree, VERSION)
        generation, token = tree.get("epoch", Epoch())
        ledger.epoch = Epoch(int(generation), int(token))
        ledger.judge = str(tree.get("judge", ""))
        ledger.next_number = int(tree["next_number"])
        ledger.incidents = [_incident(row) for row in tree["incidents"]]
        ledger.outbox = [
            Mail(_incident(row["incident"]), tuple(map(str, row["to"])))
            for row in tree.get("outbox", ())  # the first versions sent no mail
        ]
    except NewerHistory:
        raise
    except Exception as error:  # a file may hold anything, a million brackets included
        raise HistoryDamaged(f"no incidents ({type(error).__name__}: {error})") from error
    return ledger


def _at(result: Result) -> datetime:
    return result.at


def _row(incident: Incident) -> dict[str, Any]:
    return {
        "number": incident.number,
        "target": incident.target,
        "opened_at": incident.opened_at.isoformat(),
        "cause": incident.cause,
        "closed_at": incident.closed_at and incident.closed_at.isoformat(),
        "closed_because": incident.closed_because,
    }


def _incident(saved: dict[str, Any]) -> Incident:
    opened_at = moment(saved["opened_at"])
    if opened_at is None:
        raise ValueError("an incident that never opened")
    return Incident(
        int(saved["number"]),
        str(saved["target"]),
        opened_at,
        str(saved["cause"]),
        moment(saved["closed_at"]),
        saved["closed_because"],
    )
