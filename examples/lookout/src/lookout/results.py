"""How the last results of each replica come to the others: a document of each in MongoDB.

    r1 probes ──► {_id: r1, records: ...} ──► r2, r3, and whichever of them judges

It has the last few results of each target that its replica probes, and is replaced as a whole: at
once when a target stands elsewhere than before, else twice a second at most. Nothing is lost with
one that is lost: it is written again with the next result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import gevent
from gevent.event import Event

from lookout import models, store
from lookout.database import Away, Database, Refused
from lookout.records import History
from lookout.sharing import Sharing
from lookout.targets import Target
from lookout.voices import PUBLISHED, Voices
from sepelib.gevent import GreenThread
from sepelib.mongo import find_and_modify

__all__ = ["Exchange", "PublishedResults"]

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for the database
LOOK = 0.25  # seconds from one look to the next
WRITE = 0.5  # and from one write to the next, without news


class PublishedResults:
    """What all have published in *database*. Every method waits for it, and raises Away.

    refused: of which replicas the last results cannot be used, and why.
    """

    def __init__(self, database: Database, replica: str) -> None:
        self.refused: dict[str, str] = {}
        self._database = database
        self._replica = replica
        self._seen: dict[str, Any] = {}

    def publish(self, history: History) -> None:
        """Let all others have *history*."""
        rows = [{"target": name, **row} for name, row in store.rows(history)]
        change = {
            "$set": {"version": store.VERSION, "records": rows},
            "$currentDate": {"at": True},  # of the server, whose clock it is that drops them
        }
        with self._database.use(PATIENCE):
            find_and_modify(
                models.Results, {"id": self._replica}, change, upsert=True, fields="id", raw=True
            )

    def news(self, replicas: Collection[str]) -> dict[str, History]:
        """What those of *replicas* have published that have since the last look."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in replicas}
        self.refused = {name: why for name, why in self.refused.items() if name in replicas}
        if not replicas:
            return {}
        query = [{"_id": name, "at": {"$ne": self._seen.get(name)}} for name in replicas]
        with self._database.use(PATIENCE):
            found = list(models.Results.objects(__raw__={"$or": query}).as_pymongo())
        news = {}
        for row in found:
            replica = str(row["_id"])
            self._seen[replica] = row.get("at")
            try:
                news[replica] = _history(row)
            except store.HistoryUnreadable as error:
                self.refused[replica] = str(error)
            else:
                self.refused.pop(replica, None)
        return news


def _history(row: dict[str, Any]) -> History:
    history = History(max_results=PUBLISHED)
    try:
        store.refuse_newer(row["version"])
        saved = [(record["target"], record) for record in row["records"]]
    except (KeyError, TypeError) as error:
        raise store.HistoryDamaged(f"not a history ({error!r})") from error
    store.fill(history, saved)
    return history


class Exchange:
    """A thread that publishes the own results and takes those of others, until `stop()`.

    news: called with the targets of which there are new results of others; does not wait.
    """

    def __init__(
        self,
        voices: Voices,
        results: PublishedResults,
        sharing: Sharing,
        *,
        news: Callable[[set[str]], object],
    ) -> None:
        self.error: str | None = None  # why results are not exchanged, though the database is there
        self._voices = voices
        self._results = results
        self._sharing = sharing
        self._news = news
        self._levels: dict[str, object] = {}
        self._dirty = False
        self._wake = Event()
        self._said: dict[str, str] = {}
        self._thread = GreenThread(self._run, "results", daemon=True)

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        complaints = [
            f"The results of {replica} are not listened to: {why}"
            for replica, why in self._results.refused.items()
        ]
        if self.error:
            complaints.append(f"Results cannot be exchanged with other replicas: {self.error}")
        return complaints

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.kill(timeout=3.0)

    def heard(self, target: Target) -> None:
        """There is a new result in the own history. Does not wait."""
        self._dirty = True
        standing = self._voices.own(target.name).standing
        rules = target.rules
        # All that the judge goes by.
        level = (
            standing.state,
            standing.streak >= rules.recover,
            standing.streak >= 2 * rules.confirm,
        )
        if self._levels.get(target.name) != level:
            self._levels[target.name] = level
            self._wake.set()

    def _run(self) -> None:
        written = time.monotonic()
        while True:
            urgent = self._wake.wait(LOOK)
            self._wake.clear()
            try:
                now = time.monotonic()
                if self._dirty and (urgent or now - written >= WRITE):
                    written = now
                    self._publish()
                self._look()
                self.error = None
            except Refused as error:
                if self.error is None:
                    log.error("results are not exchanged, trying on: %s", error)
                self.error = str(error)
                gevent.sleep(WRITE)
            except Away:
                gevent.sleep(WRITE)
            except Exception:  # a mistake of ours; others go on without our results
                log.exception("results are not exchanged, trying on")
                gevent.sleep(1.0)

    def _publish(self) -> None:
        self._dirty = False
        try:
            self._results.publish(self._voices.published())
        except Away:
            self._dirty = True
            raise

    def _look(self) -> None:
        others = self._sharing.others
        published = self._results.news(others)
        moved = set[str]()
        for replica, history in published.items():
            moved |= self._voices.take(replica, history)
        for replica, why in self._results.refused.items():
            if self._said.get(replica) != why:
                log.error("the results of %s are not listened to: %s", replica, why)
        self._said = dict(self._results.refused)
        if moved:
            self._news(moved)
