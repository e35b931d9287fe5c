"""The chair of the judge: whoever sits there opens and closes incidents, and mails about them.

    claim the ledger ─► judge each result as it comes ─► on disk ─► say so, mail
           ▲                                                             │
           └── the next term, here or elsewhere ◄── asked to stop, or no longer the one ──┘

`serve()` is the target of a SingletonService; with one replica it runs in a thread of its own.
Between two terms results are noted and not judged. A judge that comes anew begins with a target at
its next result, of any replica: where it stood before was perhaps judged already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from lookout.counters import Counters
from lookout.ledger import Deposed, Epoch, Ledger, LedgerFile, encode
from lookout.mail import Postman
from lookout.records import Incident
from lookout.settings import MailSettings
from lookout.store import HistoryUnreadable, Keeper
from lookout.targets import Target
from lookout.voices import Voices

__all__ = ["Chair", "Leads"]

log = logging.getLogger(__name__)

TURN = 1.0  # seconds after which the judge asks whether it is still the one, without news
PATIENCE = 2.0  # seconds that a page waits for a disk


class Leads(Protocol):
    """What a judge needs of its `Leadership`."""

    @property
    def is_leader(self) -> bool: ...
    def check(self) -> None: ...
    @property
    def stopping(self) -> Event: ...


class _Term:
    """What is there only while this replica judges."""

    def __init__(
        self,
        leadership: Leads,
        ledger: Ledger,
        file: LedgerFile,
        disk: ThreadPool,
        mail: MailSettings | None,
        counters: Counters,
        save_every: float,
    ) -> None:
        self.leadership = leadership
        self.ledger = ledger
        self.news: list[Incident] = []  # to be saved and announced
        self.deposed: Deposed | None = None
        self._file = file
        self.keeper = Keeper(
            lambda: encode(ledger), self._write, every=save_every, what="incidents", disk=disk
        )
        self.postman = Postman(ledger, self.keeper, mail, counters, allowed=lambda: self.goes_on)

    @property
    def goes_on(self) -> bool:
        return self.deposed is None and self.leadership.is_leader

    def _write(self, text: str) -> None:  # in a thread of the disk
        try:
            self._file.write(text, self.ledger.epoch)
        except Deposed as error:
            self.deposed = error


class Chair:
    """One for each replica; `heard()` of each result, and `watch()` of the targets.

    voices: what is known of a target. keeper: of the own history.
    replica: the name that the ledger is signed with.
    announce: called with each incident that opens or closes, once it is on disk; also when the
    disk fails, since a watchdog that keeps silent is the worse one.
    """

    def __init__(
        self,
        voices: Voices,
        keeper: Keeper,
        file: LedgerFile,
        counters: Counters,
        *,
        replica: str,
        announce: Callable[[Incident], object],
        mail: MailSettings | None,
        max_incidents: int,
        save_every: float,
    ) -> None:
        self._voices = voices
        self._keeper = keeper
        self._file = file
        self._counters = counters
        self._replica = replica
        self._announce = announce
        self._mail = mail
        self._max_incidents = max_incidents
        self._save_every = save_every
        self._names: Collection[str] = ()
        self._term: _Term | None = None
        self._error: str | None = None  # of the last save
        self._unread: str | None = None
        self._seen = Ledger()
        self._wake = Event()
        # One thread for all terms: nothing overtakes what a judge before has begun to write.
        self._disk = ThreadPool(1)

    # Of the probes.

    def heard(self, target: Target) -> None:
        """Judge *target*, if that is for us, as its last results leave it. Does not wait.

        To be called after each new result of any replica.
        """
        term = self._term
        if term is None or not term.goes_on:
            return
        records = list(self._voices.fresh(target).values())
        incident = term.ledger.judge_target(target.name, records, target.rules)
        if incident is not None:
            term.news.append(incident)
            self._wake.set()

    def watch(self, names: Collection[str]) -> None:
        """Close what is open for any target but these, now or when it is for us."""
        self._names = names
        if (term := self._term) is not None and term.goes_on:
            term.news += term.ledger.watch_only(names, datetime.now(UTC))
            self._wake.set()

    # A term.

    def serve(self, leadership: Leads, epoch: Epoch | None = None) -> None:
        """Judge until *leadership* ends; see `LedgerFile.claim` for what it may raise."""
        try:
            ledger = self._disk.apply(self._file.claim, (self._replica, epoch))
        except Exception as error:
            self._error = str(error)
            self._counters.deposed.inc(isinstance(error, Deposed))
            raise
        ledger.limit(self._max_incidents)
        term = _Term(
            leadership,
            ledger,
            self._file,
            self._disk,
            self._mail,
            self._counters,
            self._save_every,
        )
        self._term = term
        try:
            term.postman.start()
            leadership.stopping.rawlink(self._hurry)
            self.watch(self._names)
            log.info("%s judges, epoch %d/%d", self._replica, *ledger.epoch)
            while term.deposed is None:
                leadership.check()
                self._publish(term)
                if leadership.stopping.is_set():
                    return
                self._wake.wait(TURN)
                self._wake.clear()
        finally:
            leadership.stopping.unlink(self._hurry)
            self._end(term)

    def _hurry(self, _: object) -> None:
        self._wake.set()

    def _publish(self, term: _Term) -> None:
        news, term.news = term.news, []
        if not news:
            return
        # Where the target stands first: after a kill -9 between the two the incident opens again.
        self._keeper.flush()
        term.keeper.flush()  # nobody hears of an incident that a kill -9 would undo
        if term.deposed is not None:
            return
        for incident in news:
            self._counters.told(incident)
            self._announce(incident)
        term.postman.wake()  # the mail itself came into the outbox with the incident

    def _end(self, term: _Term) -> None:
        """Bring the term to its end, which may be hurried: what is left meets the epoch."""
        self._term, self._seen = None, term.ledger
        try:
            term.postman.stop()
        finally:
            term.keeper.close()
            self._error = term.keeper.error
            if term.deposed is not None:
                self._counters.deposed.inc()
                log.warning("nothing written: %s", term.deposed)

    # For all others.

    @property
    def error(self) -> str | None:
        """Why the ledger could not be saved from here, or read; None when it could."""
        if self._term is not None:
            return self._term.keeper.error
        return self._error or self._unread

    @property
    def postman(self) -> Postman | None:
        """Of this term, if we are in one."""
        return None if self._term is None else self._term.postman

    @property
    def waiting(self) -> int:
        """How many mails wait to be sent from here."""
        return 0 if self._term is None else len(self._term.ledger.outbox)

    def use(self, mail: MailSettings | None) -> None:
        """Send mails like this from now on."""
        self._mail = mail
        if self._term is not None:
            self._term.postman.use(mail)

    def limit(self, max_incidents: int) -> None:
        self._max_incidents = max_incidents
        if self._term is not None:
            self._term.ledger.limit(max_incidents)

    def ledger(self) -> Ledger:
        """What there is, whoever judges; as last seen while the disk does not answer."""
        if self._term is not None:
            return self._term.ledger
        try:
            ledger: Ledger = gevent.with_timeout(
                PATIENCE, self._disk.apply, self._file.read, timeout_value=self._seen
            )
        except (OSError, HistoryUnreadable) as error:
            self._unread = str(error)
            return self._seen
        if ledger.epoch > self._seen.epoch:
            self._error = None  # others could save it
        self._seen, self._unread = ledger, None
        return ledger
