"""The chair of the judge: whoever sits there opens and closes incidents, and mails about them.

    claim the ledger ─► judge each result as it comes ─► save ─► say so, mail
           ▲                                                        │
           └── the next term, here or elsewhere ◄── asked to stop, or no longer the one

`serve()` is the target of a SingletonService; with one replica it runs in a thread of its own.
Between two terms results are noted and not judged. A judge that comes anew begins with a target at
its next result, of any replica: where it stood before was perhaps judged already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from gevent.event import Event

from lookout.counters import Counters
from lookout.database import Away, Database, Refused
from lookout.ledger import Deposed, Epoch, Ledger, LedgerStore, Writer
from lookout.mail import Postman
from lookout.records import Incident
from lookout.settings import MailSettings
from lookout.store import Keeper
from lookout.targets import Target
from lookout.voices import Voices

__all__ = ["Chair", "Leads"]

log = logging.getLogger(__name__)

TURN = 1.0  # seconds after which the judge asks whether it is still the one, without news
CLAIM = 10.0  # seconds that a leader tries to claim; then another may, who can perhaps
FRESH = 0.5  # seconds for which what was read is shown again


class Leads(Protocol):
    """What a judge needs of its `Leadership`."""

    @property
    def is_leader(self) -> bool: ...
    def check(self) -> None: ...
    @property
    def stopping(self) -> Event: ...


class _Term:
    """What is there only while this replica judges."""

    def __init__(self, leadership: Leads, writer: Writer, keeper: Keeper, postman: Postman) -> None:
        self.leadership = leadership
        self.writer = writer
        self.ledger = writer.ledger
        self.keeper = keeper
        self.postman = postman
        self.deposed: Deposed | None = None

    @property
    def goes_on(self) -> bool:
        return self.deposed is None and self.leadership.is_leader


class Chair:
    """One for each replica; `heard()` of each result, and `watch()` of the targets.

    voices: what is known of a target. keeper: of the own history.
    replica: the name that the ledger is signed with.
    announce: called with each incident that opens or closes, once it is saved.
    silenced: see `Postman`.
    """

    def __init__(
        self,
        voices: Voices,
        keeper: Keeper,
        database: Database,
        counters: Counters,
        *,
        replica: str,
        announce: Callable[[Incident], object],
        mail: MailSettings | None,
        max_incidents: int,
        save_every: float,
        silenced: Callable[[str], bool | None] = lambda target: False,
    ) -> None:
        self._voices = voices
        self._keeper = keeper
        self._database = database
        self._store = LedgerStore(database)
        self._counters = counters
        self._replica = replica
        self._announce = announce
        self._mail = mail
        self._max_incidents = max_incidents
        self._save_every = save_every
        self._silenced = silenced
        self._names: Collection[str] | None = None
        self._term: _Term | None = None
        self._error: str | None = None  # of the last term
        self._seen = Ledger()
        self._seen_at = float("-inf")
        self._wake = Event()

    # Of the probes.

    def heard(self, target: Target) -> None:
        """Judge *target*, if that is for us, as its last results leave it. Does not wait.

        To be called after each new result of any replica.
        """
        term = self._term
        if term is None or not term.goes_on:
            return
        records = list(self._voices.fresh(target).values())
        if term.ledger.judge_target(target.name, records, target.rules) is not None:
            term.keeper.hurry()

    def watch(self, names: Collection[str] | None) -> None:
        """Close what is open for any target but these, now or when it is for us.

        None: it is not known yet which there are.
        """
        self._names = names
        if names is not None and (term := self._term) is not None and term.goes_on:
            term.ledger.watch_only(names, datetime.now(UTC))
            term.keeper.hurry()

    # A term.

    def serve(self, leadership: Leads, epoch: Epoch | None = None) -> None:
        """Judge until *leadership* ends. Raises what that does, and Deposed for the claim."""
        writer = self._claim(leadership, epoch)
        if writer is None:
            return
        term = self._begin(leadership, writer)
        try:
            term.postman.start()
            leadership.stopping.rawlink(self._hurry)
            self.watch(self._names)
            log.info("%s judges, epoch %d/%d", self._replica, *writer.epoch)
            while term.deposed is None:
                leadership.check()
                if leadership.stopping.is_set():
                    return
                self._wake.wait(TURN)
                self._wake.clear()
        finally:
            leadership.stopping.unlink(self._hurry)
            self._end(term)

    def _claim(self, leadership: Leads, epoch: Epoch | None) -> Writer | None:
        """None where there is nothing to be claimed: the database is away, or the lead is."""
        until = time.monotonic() + CLAIM
        while not leadership.stopping.is_set():
            leadership.check()
            try:
                return self._store.claim(self._replica, epoch)
            except Deposed as error:
                self._error = str(error)
                self._counters.deposed.inc()
                raise
            except Away as error:
                if isinstance(error, Refused):
                    self._error = str(error)
                if time.monotonic() > until:
                    break
                leadership.stopping.wait(TURN)
        return None

    def _begin(self, leadership: Leads, writer: Writer) -> _Term:
        def save() -> None:
            ledger = writer.ledger
            if ledger.news:
                # Where the target stands first: after a kill -9 between the two the incident opens
                # again.
                self._keeper.flush()
            try:
                told = writer.write()
            except Deposed as error:
                term.deposed = error
                self._wake.set()
                return
            for incident in told:
                self._counters.told(incident)
                self._announce(incident)
            postman.wake()

        writer.ledger.limit(self._max_incidents)
        keeper = Keeper(save, every=self._save_every, what="incidents")
        postman = Postman(
            writer.ledger,
            keeper,
            self._mail,
            self._counters,
            saved=writer.saved,
            silenced=self._silenced,
            allowed=lambda: term.goes_on,
        )
        self._term = term = _Term(leadership, writer, keeper, postman)
        return term

    def _hurry(self, _: object) -> None:
        self._wake.set()

    def _end(self, term: _Term) -> None:
        """Bring the term to its end, which may be hurried: what is left meets the fence."""
        self._term, self._seen = None, term.ledger
        try:
            term.postman.stop()
        finally:
            term.keeper.close()
            self._error = term.keeper.error
            if term.deposed is not None:
                if term.deposed.is_by_equal:
                    self._error = f"{term.deposed}; are there two, and no zookeeper?"
                self._counters.deposed.inc()
                log.warning("nothing written: %s", term.deposed)

    # For all others.

    @property
    def error(self) -> str | None:
        """Why incidents could not be saved from here; None when they could, or others can."""
        return self._error if self._term is None else self._term.keeper.error

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
        """What there is, whoever judges; as last seen while the database does not answer."""
        if self._term is not None:
            return self._term.ledger
        now = time.monotonic()
        # Whether it is back is found out by others; no page waits for that.
        if self._database.error is None and now - self._seen_at > FRESH:
            self._seen_at = now
            with suppress(Away):
                self._see(self._store.read())
        return self._seen

    def _see(self, ledger: Ledger) -> None:
        if ledger.epoch > self._seen.epoch:
            self._error = None  # others can
        self._seen = ledger
