"""How the last results of each replica come to the others: a file of each in the shared directory.

    r1 probes ──► r1/results.json ──► r2, r3, and whichever of them judges

A file has the last few results of each target that its replica probes, and is replaced as a whole:
at once when a target stands elsewhere than before, else twice a second at most. Nothing is lost
with one that is lost: it is written again with the next result.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from lookout import store
from lookout.records import History
from lookout.sharing import Sharing
from lookout.targets import Target
from lookout.voices import PUBLISHED, Voices
from sepelib.gevent import GreenThread
from sepelib.util.fs import atomic_write

__all__ = ["Exchange", "ResultFiles", "Results"]

log = logging.getLogger(__name__)

FILE = "results.json"
MAX_SIZE = 4 << 20  # bytes; ten results of a thousand targets are less
GONE_FOR_LONG = 86400.0  # seconds after which the file of a replica that has gone is removed
LOOK = 0.25  # seconds from one look to the next
WRITE = 0.5  # and from one write to the next, without news
SWEEP = 3600.0


class Results(Protocol):
    """What an exchange of results has to do. Every method may wait for a disk."""

    @property
    def refused(self) -> dict[str, str]:
        """Of which replicas the last results could not be had, and why."""

    def publish(self, history: History) -> None:
        """Let all others have *history*. Raises OSError."""

    def news(self, replicas: Collection[str]) -> dict[str, History]:
        """What those of *replicas* have published that have since the last look."""

    def sweep(self, replicas: Collection[str]) -> None:
        """Remove what others than *replicas* have published long ago."""


class ResultFiles:
    """The files of all in *directory*, in one of its own for each replica."""

    def __init__(self, directory: Path, replica: str) -> None:
        self.refused: dict[str, str] = {}
        self._directory = directory
        self._own = directory / replica / FILE
        self._seen: dict[str, tuple[int, int, int]] = {}

    def publish(self, history: History) -> None:
        # Not worth a wait for the disk: after a power cut nobody asks what was said before.
        with atomic_write(self._own, fsync=False) as file:
            file.write(store.encode(history))

    def news(self, replicas: Collection[str]) -> dict[str, History]:
        self._seen = {name: seen for name, seen in self._seen.items() if name in replicas}
        refused = {name: why for name, why in self.refused.items() if name in replicas}
        news = {}
        for replica in replicas:
            path = self._directory / replica / FILE
            try:
                history = self._read(replica, path)
            except FileNotFoundError:  # it has not found out anything yet
                continue
            except (OSError, store.HistoryUnreadable) as error:
                refused[replica] = f"{path}: {error}"
                continue
            if history is not None:
                refused.pop(replica, None)
                news[replica] = history
        self.refused = refused
        return news

    def _read(self, replica: str, path: Path) -> History | None:
        """None if it is the one of before."""
        with path.open("rb") as file:  # NFS asks the server then; for a mere stat() it may not
            stat = os.fstat(file.fileno())
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._seen.get(replica) == seen:
                return None
            self._seen[replica] = seen
            if stat.st_size > MAX_SIZE:
                raise store.HistoryDamaged(f"{stat.st_size} bytes, at most {MAX_SIZE} are read")
            text = file.read(MAX_SIZE)
        history = History(max_results=PUBLISHED)
        store.decode(text, history)
        return history

    def sweep(self, replicas: Collection[str]) -> None:
        for path in self._directory.glob(f"*/{FILE}"):
            with suppress(OSError):
                age = time.time() - path.stat().st_mtime
                if path.parent.name not in replicas and age > GONE_FOR_LONG:
                    path.unlink()
                    log.info("%s removed: %s has gone for long", path, path.parent.name)


class Exchange:
    """A thread that publishes the own results and takes those of others, until `stop()`.

    news: called with the targets of which there are new results of others; does not wait.
    """

    def __init__(
        self,
        voices: Voices,
        results: Results,
        sharing: Sharing,
        *,
        news: Callable[[set[str]], object],
    ) -> None:
        self.error: str | None = None  # why the own results are not published
        self._voices = voices
        self._results = results
        self._sharing = sharing
        self._news = news
        self._levels: dict[str, object] = {}
        self._dirty = False
        self._wake = Event()
        self._said: dict[str, str] = {}
        # Of its own: a judge that saves waits for nobody's results.
        self._disk = ThreadPool(1)
        self._thread = GreenThread(self._run, "results", daemon=True)

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        complaints = [
            f"The results of {replica} are not listened to: {why}"
            for replica, why in self._results.refused.items()
        ]
        if self.error:
            complaints.append(f"The results of this replica cannot be published: {self.error}")
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
        written = swept = time.monotonic()
        while True:
            urgent = self._wake.wait(LOOK)
            self._wake.clear()
            try:
                now = time.monotonic()
                if self._dirty and (urgent or now - written >= WRITE):
                    written = now
                    self._publish()
                self._look()
                if now - swept >= SWEEP and self._sharing.is_current:
                    swept = now
                    self._disk.apply(self._results.sweep, (self._sharing.replicas,))
            except Exception:  # a mistake of ours; others go on without our results
                log.exception("results are not exchanged, trying on")
                gevent.sleep(1.0)

    def _publish(self) -> None:
        self._dirty = False
        try:
            self._disk.apply(self._results.publish, (self._voices.published(),))
        except OSError as error:
            self._dirty = True
            if self.error is None:
                log.error("results not published, trying on: %s", error)
            self.error = str(error)
        else:
            self.error = None

    def _look(self) -> None:
        others = self._sharing.others
        published = self._disk.apply(self._results.news, (others,))
        moved = set[str]()
        for replica, history in published.items():
            moved |= self._voices.take(replica, history)
        for replica, why in self._results.refused.items():
            if self._said.get(replica) != why:
                log.error("the results of %s are not listened to: %s", replica, why)
        self._said = dict(self._results.refused)
        if moved:
            self._news(moved)
