"""Incidents and the mails about them: in memory with who judges, and in MongoDB for all.

    claim:  my epoch is not earlier ──► epoch and judge are mine, term + 1          else Deposed
    write:  find_and_modify(epoch and term are mine)  ─┐ one
            what has changed since the last write     ─┘ transaction                else Deposed

The claim comes before anything is judged. So what an earlier judge still writes, however late (it
was stopped, or the network was slow), is refused by the database. No lease can do that: the lock of
ZooKeeper does not hold up a write which is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bson.binary import UUID_SUBTYPE, Binary
from mongoengine import Document
from mongoengine.errors import NotUniqueError
from pymongo import DeleteOne, InsertOne, MongoClient, ReadPreference
from pymongo.errors import OperationFailure

from lookout import models
from lookout.database import DURABLE, Database, Refused
from lookout.judge import Rules, State, are_failing, are_well, is_well
from lookout.records import Incident, Mail, Record, Result, well_formed
from sepelib.mongo import Sequence, find_and_modify

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

__all__ = ["MAX_OUTBOX", "Deposed", "Epoch", "Ledger", "LedgerStore", "Writer"]

T = TypeVar("T")
Row = TypeVar("Row", Incident, Mail)

MAX_OUTBOX = 1000  # mails that wait: some days of a mail server that is away


class Epoch(NamedTuple):
    """Which lead it is; a later one is greater, whichever replica had it.

    generation: when the lock was made in ZooKeeper, since tokens begin anew with its data.
    token: of the leadership.
    """

    generation: int = 0
    token: int = 0


class Deposed(Exception):
    """Another judge has claimed the incidents."""

    def __init__(self, mine: Epoch, theirs: Epoch, judge: str) -> None:
        super().__init__(mine, theirs, judge)
        self.is_by_equal = mine == theirs  # nobody has elected one of them

    def __str__(self) -> str:
        mine, theirs, judge = self.args
        return (
            f"{judge or 'nobody'} has the incidents since: "
            f"epoch {theirs.generation}/{theirs.token}, ours is {mine.generation}/{mine.token}"
        )


class Ledger:
    """Incidents and unsent mails, bounded.

    mailing: whether an incident that opens or closes puts a mail into the `outbox`. It does so
    in one step with the incident: no save has the one without the other.
    news: what has opened or closed and is not saved yet, oldest first.
    epoch, judge: of the term in which it was written, and by which replica.

    Belongs to one hub: no method yields, so greenlets never see it half changed.
    """

    def __init__(self, *, max_incidents: int = 200) -> None:
        self.incidents: list[Incident] = []  # oldest first
        self.outbox: list[Mail] = []  # oldest first
        self.news: list[Incident] = []
        self.mailing = False
        self.max_incidents = max_incidents
        self.epoch = Epoch()
        self.judge = ""
        self._opened = 0

    def judge_target(self, target: str, records: list[Record], rules: Rules) -> Incident | None:
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

    def unnumbered(self) -> list[int]:
        """The provisional numbers of all that have no other, the first one first."""
        known = (*self.incidents, *self.news, *(mail.incident for mail in self.outbox))
        return sorted({i.number for i in known if i.number < 0}, reverse=True)

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """Put these numbers for those, wherever an incident is known, also as it was before."""

        def renumbered(incident: Incident) -> Incident:
            number = numbers.get(incident.number)
            return incident if number is None else replace(incident, number=number)

        self.incidents[:] = map(renumbered, self.incidents)
        self.news[:] = map(renumbered, self.news)
        self.outbox[:] = [replace(m, incident=renumbered(m.incident)) for m in self.outbox]

    def _open(self, target: str, result: Result) -> Incident:
        self._opened += 1
        cause = well_formed(result.error or "")
        incident = Incident(-self._opened, target, _stored(result.at), cause)
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
        closed = replace(incident, closed_at=_stored(at), closed_because=because)
        self.incidents[self.incidents.index(incident)] = closed
        self._post(closed)
        return closed

    def _post(self, incident: Incident) -> None:
        self.news.append(incident)
        del self.news[:-MAX_OUTBOX]
        if self.mailing:
            self.outbox.append(Mail(incident))
            del self.outbox[:-MAX_OUTBOX]


class LedgerStore:
    """The ledger in *database*. Every method waits for it, and raises Away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: object = ()  # of nothing that there could be
        self._ledger = Ledger()

    def read(self, seconds: float = 2.0) -> Ledger:
        """What is saved, without the outbox; not read again as long as nothing was written."""
        with self._database.use(seconds):
            judge = models.Judge.objects(id=models.Judge.ID).first()
            version = judge and (judge.term, judge.writes)
            if version != self._version:
                ledger = Ledger()
                ledger.incidents = list(_incidents().values())
                if judge is not None:
                    ledger.epoch, ledger.judge = Epoch(*judge.epoch), judge.judge
                # What came meanwhile is of a later version, and will be read.
                self._version, self._ledger = version, ledger
            return self._ledger

    def claim(self, judge: str, epoch: Epoch | None) -> Writer:
        """Begin a term; Deposed where there is a later one.

        epoch: None goes on with that of the database: there is but one replica.
        """
        with self._database.use() as client:
            session = client.start_session()
            query: dict[str, Any] = {"id": models.Judge.ID}
            change: dict[str, Any] = {
                "judge": judge,
                "session": session.session_id["id"],
                "inc__term": 1,
                "inc__writes": 1,
            }
            if epoch is None:
                change["set_on_insert__epoch"] = list(Epoch())
            else:
                change["epoch"] = list(epoch)
                query["__raw__"] = {
                    "$or": [
                        {"epoch.0": {"$lt": epoch.generation}},
                        {"epoch.0": epoch.generation, "epoch.1": {"$lte": epoch.token}},
                    ]
                }
            _end_transaction(client, epoch)
            try:
                claimed = find_and_modify(
                    models.Judge, query, change, upsert=True, new=True, write_concern=DURABLE
                )
            except NotUniqueError:  # it is there, and later
                raise _deposed(epoch or Epoch()) from None
        writer = Writer(self._database, session, Epoch(*claimed.epoch), claimed.term)
        writer.load(judge)
        return writer


def _end_transaction(client: MongoClient[dict[str, Any]], epoch: Epoch | None) -> None:
    """End the one that a judge who was killed may have left: its lock would last for a minute."""
    before = models.Judge.objects(id=models.Judge.ID).first()
    if before is None or before.session is None:
        return
    if epoch is None or Epoch(*before.epoch) <= epoch:
        with suppress(OperationFailure):  # not allowed: then the claim has to wait
            client.admin.command("killSessions", [{"id": Binary(before.session, UUID_SUBTYPE)}])


class Writer:
    """Of one term: writes what has changed in its `ledger`, if it is still the one to do so.

    For one greenlet at a time; `saved()` for any.
    """

    def __init__(self, database: Database, session: ClientSession, epoch: Epoch, term: int) -> None:
        self.ledger = Ledger()
        self.epoch = epoch
        self._database = database
        self._session = session
        self._term = term
        self._saved = _Saved({}, {})  # as far as is known
        self._is_in_doubt = False

    def load(self, judge: str) -> None:
        """Take over what the terms before have left. Raises Away, Deposed."""
        self._saved = self._in_transaction(_Saved.read)
        self.ledger.incidents = list(self._saved.incidents.values())
        self.ledger.outbox = list(self._saved.mails.values())
        self.ledger.epoch, self.ledger.judge = self.epoch, judge
        if self.ledger.incidents:  # in a database that was restored the counter may be gone
            with self._database.use():
                _numbers().advance_to(self.ledger.incidents[-1].number)

    def write(self) -> list[Incident]:
        """Save what there is now; give what has opened or closed since the last time.

        Raises Away, and Deposed with nothing written.
        """
        ledger = self.ledger
        # Not in the transaction: no number is given twice, and a gap does no harm.
        while provisional := ledger.unnumbered():
            with self._database.use():
                numbers = _numbers().reserve(len(provisional))
            ledger.renumber(dict(zip(provisional, numbers, strict=True)))
        # No wait in between: what comes from now on is for the next write.
        wanted, told = _Saved.of(ledger), dict.fromkeys(ledger.news)

        def write(session: ClientSession) -> None:
            # Whether a write that has failed was done nobody knows: it is looked up.
            before = _Saved.read(session) if self._is_in_doubt else self._saved
            before.become(wanted, self.epoch, session)

        if wanted != self._saved or self._is_in_doubt:
            try:
                self._in_transaction(write)
            except BaseException:
                self._is_in_doubt = True
                raise
            self._saved, self._is_in_doubt = wanted, False
        ledger.news[:] = [incident for incident in ledger.news if incident not in told]
        return list(told)

    def saved(self, mail: Mail) -> bool:
        """Whether *mail*, and its incident with it, is in the database."""
        return self._saved.mails.get(mail.message_id) == mail

    def _in_transaction(self, work: Callable[[ClientSession], T]) -> T:
        def fenced(session: ClientSession) -> T:
            mine = {"epoch": list(self.epoch), "term": self._term}
            query = {"id": models.Judge.ID, "__raw__": mine}
            if find_and_modify(models.Judge, query, {"inc__writes": 1}, session=session) is None:
                raise _deposed(self.epoch)
            return work(session)

        with self._database.use():
            done: T = self._session.with_transaction(
                fenced, write_concern=DURABLE, read_preference=ReadPreference.PRIMARY
            )
            return done


@dataclass(frozen=True, slots=True)
class _Saved:
    """What is in the database: incidents and mails by their ids, oldest first."""

    incidents: Mapping[str, Incident]
    mails: Mapping[str, Mail]

    @classmethod
    def of(cls, ledger: Ledger) -> _Saved:
        return cls({i.id: i for i in ledger.incidents}, {m.message_id: m for m in ledger.outbox})

    @classmethod
    def read(cls, session: ClientSession) -> _Saved:
        mails = [
            Mail(_incident(row["incident"], row), frozenset(row["to"]))
            for row in _rows(models.Outgoing, session)
        ]
        mails.sort(key=lambda m: (m.queued_at, m.incident.number, m.kind == "closed"))
        return cls(_incidents(session), {mail.message_id: mail for mail in mails})

    def become(self, wanted: _Saved, epoch: Epoch, session: ClientSession) -> None:
        """Write what is *wanted* and differs."""
        _write(
            models.Incident,
            self.incidents,
            wanted.incidents,
            lambda incident: models.Incident(
                id=incident.id,
                state="open" if incident.is_open else "closed",
                epoch=list(epoch),
                **_outage(incident),
            ),
            session,
        )
        _write(
            models.Outgoing,
            self.mails,
            wanted.mails,
            lambda mail: models.Outgoing(
                id=mail.message_id,
                kind=mail.kind,
                to=mail.to,
                queued_at=mail.queued_at,
                incident=mail.incident.id,
                **_outage(mail.incident),
            ),
            session,
        )


def _numbers() -> Sequence:
    numbers: Sequence = models.Incident.id.sequence_of(models.Incident)
    return numbers


def _incidents(session: ClientSession | None = None) -> dict[str, Incident]:
    found = [_incident(row["_id"], row) for row in _rows(models.Incident, session)]
    found.sort(key=lambda incident: incident.number)
    return {incident.id: incident for incident in found}


def _rows(model: Any, session: ClientSession | None) -> Iterable[dict[str, Any]]:
    # As they are: documents of mongoengine would take several times as long.
    rows: Iterable[dict[str, Any]] = model._get_collection().find({}, session=session)
    return rows


def _incident(id: str, row: Mapping[str, Any]) -> Incident:
    try:
        return Incident(
            int(id.removeprefix("INC-")),
            row["target"],
            row["opened_at"],
            row["cause"],
            row.get("closed_at"),
            row.get("closed_because"),
        )
    except (KeyError, ValueError) as error:
        raise Refused(f"{id}: not as lookout has written it ({error!r})") from error


def _outage(incident: Incident) -> dict[str, Any]:
    return {
        "target": incident.target,
        "opened_at": incident.opened_at,
        "cause": incident.cause,
        "closed_at": incident.closed_at,
        "closed_because": incident.closed_because,
    }


def _write(
    model: Any,
    before: Mapping[str, Row],
    wanted: Mapping[str, Row],
    document: Callable[[Row], Document],
    session: ClientSession,
) -> None:
    # Nothing is replaced: the embedded server (0.5.3-beta.165) leaves what an update changes in a
    # unique index, and no second incident of a target could open.
    requests: list[DeleteOne | InsertOne[Any]] = [
        DeleteOne({"_id": id}) for id, row in before.items() if wanted.get(id) != row
    ]
    requests += [
        InsertOne(document(row).to_mongo().to_dict())
        for id, row in wanted.items()
        if before.get(id) != row
    ]
    if requests:
        model._get_collection().bulk_write(requests, session=session)


def _deposed(mine: Epoch) -> Deposed:
    judge = models.Judge.objects(id=models.Judge.ID).first()
    if judge is None:  # the database is another one than before
        return Deposed(mine, Epoch(), "")
    return Deposed(mine, Epoch(*judge.epoch), judge.judge)


def _stored(at: datetime) -> datetime:
    """As MongoDB keeps it, in milliseconds: what is read is equal to what was written."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _at(result: Result) -> datetime:
    return result.at
