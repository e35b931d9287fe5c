"""Keep the history on disk: one JSON file, replaced as a whole, written by one greenlet.

What a `kill -9` can cost is the results since the last save, `save_every` seconds at most.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from lookout.database import Away
from lookout.judge import Standing, State
from lookout.records import History, Record, Result, well_formed
from sepelib.util.fs import atomic_write

__all__ = [
    "HistoryDamaged",
    "HistoryUnreadable",
    "Keeper",
    "NewerHistory",
    "decode",
    "encode",
    "fill",
    "load",
    "refuse_newer",
    "rows",
    "save",
]

log = logging.getLogger(__name__)

VERSION = 2


class HistoryUnreadable(ValueError):
    """The file is not one that this version can read; one sentence."""


class HistoryDamaged(HistoryUnreadable):
    """Nor can any other version."""


class NewerHistory(HistoryUnreadable):
    """The file was written by a later lookout: to be left alone, not to be moved aside."""


def load(path: Path, *, max_results: int) -> History:
    """The history in *path*, an empty one when there is no such file.

    A damaged file is moved aside with an ERROR that names its new place, and the watch begins
    anew: a watchdog that does not start is worse than one that has forgotten. Raises OSError when
    the file cannot be read, and NewerHistory for the file of a later version: nothing is wrong
    with these files, so neither is touched.
    """
    history = History(max_results=max_results)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return history
    try:
        decode(text, history)
    except NewerHistory as error:
        raise NewerHistory(f"{path}: {error}") from error
    except HistoryDamaged as error:
        _set_aside(path, error)
        return History(max_results=max_results)
    return history


def _set_aside(path: Path, error: HistoryDamaged) -> None:
    """Give the damaged file another name, and say so at ERROR. Raises OSError."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    os.rename(path, aside)
    log.error("%s: %s; moved to %s, starting without it", path, error, aside.name)


def save(path: Path, text: str) -> None:
    """Put what `encode` made on disk, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text)


def encode(history: History) -> str:
    """*history* as JSON."""
    return json.dumps({"version": VERSION, "targets": dict(rows(history))})


def decode(text: bytes, history: History) -> None:
    """Fill *history* from what `encode` made. Raises HistoryUnreadable; it is lost then."""
    try:
        tree = json.loads(text)
        refuse_newer(tree["version"])
        fill(history, tree["targets"].items())
    except HistoryUnreadable:
        raise
    except Exception as error:  # a file may hold anything, a million brackets included
        raise _damaged(error) from error


def rows(history: History) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each target with its record, as plain values. Results are lists, there are thousands."""
    for name, record in history.records.items():
        yield (
            name,
            {
                "state": record.standing.state.value,
                "streak": record.standing.streak,
                "since": record.since and record.since.isoformat(),
                "results": [
                    [
                        r.at.isoformat(),
                        round(r.latency, 4),
                        r.status,
                        r.error and well_formed(r.error),
                        r.tries,
                    ]
                    for r in record.results
                ],
            },
        )


def fill(history: History, saved: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Fill *history* from what `rows` made. Raises HistoryDamaged; it is lost then."""
    try:
        for name, row in saved:
            history.records[str(name)] = Record(
                Standing(State(row["state"]), int(row["streak"])),
                None if row["since"] is None else _utc(row["since"]),
                deque((_result(each) for each in row["results"]), history.max_results),
            )
    except Exception as error:
        raise _damaged(error) from error


def refuse_newer(version: Any) -> None:
    """Raise NewerHistory when *version* is later than the one that is known here."""
    if version > VERSION:
        raise NewerHistory(
            f"written by a later lookout (version {version}, {VERSION} is known here); upgrade, "
            "or give another state directory"
        )


def _damaged(error: Exception) -> HistoryDamaged:
    return HistoryDamaged(f"not a history ({type(error).__name__}: {error})")


def _utc(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return at.astimezone(UTC)


def _result(row: list[Any]) -> Result:
    at, latency, status, error, tries = row
    if not isinstance(status, int | None) or not isinstance(error, str | None):
        raise ValueError("a result whose status is no number, or whose error is no text")
    return Result(_utc(at), float(latency), status, error, int(tries))


class Keeper:
    """The one who saves: a greenlet that does so at once when asked, else now and then.

    save: takes what there is, without yielding, and brings it to where it is kept; may wait.
    what: for the log.

    A single one, since not every wait can be cancelled: were two greenlets to write a file, a
    killed one's thread could put an old history over a new one.
    """

    def __init__(self, save: Callable[[], object], *, every: float, what: str = "history") -> None:
        self.error: str | None = None  # why the last save failed, None when it worked
        self.every = every
        self._do_save = save
        self._what = what
        self._dirty = False
        self._stopping = False
        self._wake = Event()
        self._waiters: list[AsyncResult[bool]] = []
        self._greenlet = gevent.spawn(self._run)

    def touch(self) -> None:
        """Say that something has changed; it is saved within `every` seconds."""
        self._dirty = True

    def hurry(self) -> None:
        """Say that something has changed which is to be saved at once."""
        self._dirty = True
        self._wake.set()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what is known now is saved, or trying has failed; which of these.

        What hangs is waited for *timeout* seconds: watching matters more than noting.
        """
        waiter: AsyncResult[bool] = AsyncResult()
        self._waiters.append(waiter)
        self._wake.set()
        return bool(waiter.wait(timeout))

    def close(self, timeout: float = 5.0) -> bool:
        """Save for the last time. False when not everything is saved; `error` tells."""
        self._stopping = True
        self._wake.set()
        self._greenlet.join(timeout)
        if not self._greenlet.dead:
            self.error = f"not written within {timeout:g} s"
        return self.error is None

    def _run(self) -> None:
        last = False
        while not last:
            self._wake.wait(self.every)
            self._wake.clear()
            last = self._stopping  # asked before the save: what comes during it is saved too
            if self._dirty or self._waiters or last:
                self._save()

    def _save(self) -> None:
        waiters, self._waiters = self._waiters, []
        self._dirty = False
        try:
            self._do_save()
        except Exception as error:  # whatever it is, the next save may work again
            self._dirty = True
            # That a database is away, it has said itself.
            if self.error is None and type(error) is not Away:
                log.error("%s not saved, trying on: %s", self._what, error)
            self.error = str(error)
        else:
            if self.error is not None:
                log.info("%s saved again", self._what)
            self.error = None
        finally:
            for waiter in waiters:
                waiter.set(self.error is None)
