"""Keep the history on disk: one JSON file, replaced as a whole, written by one greenlet.

What a `kill -9` can cost is the results since the last save, `save_every` seconds at most.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from lookout.judge import Standing, State
from lookout.records import History, Record, Result
from sepelib.util.fs import atomic_write

__all__ = [
    "HistoryDamaged",
    "HistoryUnreadable",
    "Keeper",
    "NewerHistory",
    "decode",
    "encode",
    "load",
    "moment",
    "refuse_newer",
    "save",
    "set_aside",
]

log = logging.getLogger(__name__)

VERSION = 2  # 1 had the incidents in it, see lookout.ledger


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
        set_aside(path, error)
        return History(max_results=max_results)
    return history


def set_aside(path: Path, error: HistoryDamaged) -> None:
    """Give the damaged file another name, and say so at ERROR. Raises OSError."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    os.rename(path, aside)
    log.error("%s: %s; moved to %s, starting without it", path, error, aside.name)


def save(path: Path, text: str) -> None:
    """Put what `encode` made on disk, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text)


def encode(history: History) -> str:
    """*history* as JSON. Results are rows, there are thousands of them."""
    return json.dumps(
        {
            "version": VERSION,
            "targets": {
                name: {
                    "state": record.standing.state,
                    "streak": record.standing.streak,
                    "since": _stamp(record.since),
                    "results": [
                        [r.at.isoformat(), round(r.latency, 4), r.status, r.error, r.tries]
                        for r in record.results
                    ],
                }
                for name, record in history.records.items()
            },
        }
    )


def decode(text: bytes, history: History) -> None:
    """Fill *history* from what `encode` made. Raises HistoryUnreadable; it is lost then."""
    try:
        tree = json.loads(text)
        refuse_newer(tree, VERSION)
        for name, saved in tree["targets"].items():
            history.records[str(name)] = Record(
                Standing(State(saved["state"]), int(saved["streak"])),
                moment(saved["since"]),
                deque((_result(row) for row in saved["results"]), history.max_results),
            )
    except NewerHistory:
        raise
    except Exception as error:  # a file may hold anything, a million brackets included
        raise HistoryDamaged(f"not a history ({type(error).__name__}: {error})") from error


def refuse_newer(tree: Any, known: int) -> None:
    """Raise NewerHistory when *tree* is of a later version than *known*."""
    if tree["version"] > known:
        raise NewerHistory(
            f"written by a later lookout (version {tree['version']} of the file, "
            f"{known} is known here); upgrade, or give another state directory"
        )


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def moment(text: Any) -> datetime | None:
    """What a file says of a time; None for null."""
    return None if text is None else _utc(text)


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
    """The one writer of a file: a greenlet that saves at once when asked, else now and then.

    encode: gives what is to be written, without yielding. write: writes it, in a thread of *disk*.
    what: for the log.

    The disk is waited for in a thread: an `fsync` on the hub would stop every probe and add the
    disk's latency to theirs. A single writer because a thread cannot be cancelled: were two
    greenlets to write, a killed one's thread could put an old history over a new one.
    """

    def __init__(
        self,
        encode: Callable[[], str],
        write: Callable[[str], object],
        *,
        every: float,
        what: str = "history",
        disk: ThreadPool | None = None,
    ) -> None:
        self.error: str | None = None  # why the last save failed, None when it worked
        self.every = every
        self._encode = encode
        self._write = write
        self._what = what
        self._dirty = False
        self._stopping = False
        self._wake = Event()
        self._waiters: list[Event] = []
        # Not the hub's own pool, where the look-ups of a dead name server may occupy all threads.
        self._disk = disk or ThreadPool(1)
        self._greenlet = gevent.spawn(self._run)

    def touch(self) -> None:
        """Say that something has changed; it is saved within `every` seconds."""
        self._dirty = True

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until what is known now is on disk, or trying has failed (see `error`).

        A disk that hangs is waited for *timeout* seconds: watching matters more than noting.
        """
        waiter = Event()
        self._waiters.append(waiter)
        self._wake.set()
        waiter.wait(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Save for the last time. False when the disk does not hold everything; `error` tells."""
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
            text = self._encode()
            self._disk.apply(self._write, (text,))
        except Exception as error:  # whatever it is, the next save may work again
            self._dirty = True
            if self.error is None:
                log.error("%s not saved, trying on: %s", self._what, error)
            self.error = str(error)
        else:
            if self.error is not None:
                log.info("%s saved again", self._what)
            self.error = None
        finally:
            for waiter in waiters:
                waiter.set()
