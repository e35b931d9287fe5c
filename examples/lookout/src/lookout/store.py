"""Keep the history on disk: one JSON file, replaced as a whole, written by one greenlet.

What a `kill -9` can cost is the results since the last save, `save_every` seconds at most; an
incident is on disk, with the mail about it, before anybody hears of it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from lookout.judge import Standing, State
from lookout.records import History, Incident, Mail, Record, Result
from sepelib.util.fs import atomic_write

__all__ = ["HistoryUnreadable", "Keeper", "NewerHistory", "decode", "encode", "load", "save"]

log = logging.getLogger(__name__)

VERSION = 1


class HistoryUnreadable(ValueError):
    """The file is not a history that this version can read; one sentence."""


class NewerHistory(HistoryUnreadable):
    """The file was written by a later lookout: to be left alone, not to be moved aside."""


def load(path: Path, *, max_results: int, max_incidents: int) -> History:
    """The history in *path*, an empty one when there is no such file.

    A damaged file is moved aside with an ERROR that names its new place, and the watch begins
    anew: a watchdog that does not start is worse than one that has forgotten. Raises OSError when
    the file cannot be read, and NewerHistory for the file of a later version: nothing is wrong
    with these files, so neither is touched.
    """
    history = History(max_results=max_results, max_incidents=max_incidents)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return history
    try:
        decode(text, history)
    except NewerHistory as error:
        raise NewerHistory(f"{path}: {error}") from error
    except HistoryUnreadable as error:
        aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        os.rename(path, aside)
        log.error("%s: %s; moved to %s, starting with an empty history", path, error, aside.name)
        return History(max_results=max_results, max_incidents=max_incidents)
    return history


def save(path: Path, text: str) -> None:
    """Put what `encode` made on disk, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text)


def encode(history: History) -> str:
    """*history* as JSON. Results are rows, there are thousands of them."""
    return json.dumps(
        {
            "version": VERSION,
            "next_number": history.next_number,
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
            "incidents": [_incident_row(incident) for incident in history.incidents],
            "outbox": [
                {"incident": _incident_row(mail.incident), "to": mail.to} for mail in history.outbox
            ],
        }
    )


def decode(text: bytes, history: History) -> None:
    """Fill *history* from what `encode` made. Raises HistoryUnreadable; *history* is lost then."""
    try:
        tree = json.loads(text)
        if tree["version"] > VERSION:
            raise NewerHistory(
                f"written by a later lookout (version {tree['version']} of the file, "
                f"{VERSION} is known here); upgrade, or give another state directory"
            )
        history.next_number = int(tree["next_number"])
        for name, saved in tree["targets"].items():
            history.records[str(name)] = Record(
                Standing(State(saved["state"]), int(saved["streak"])),
                _moment(saved["since"]),
                deque((_result(row) for row in saved["results"]), history.max_results),
            )
        history.incidents = [_incident(saved) for saved in tree["incidents"]]
        history.outbox = [
            Mail(_incident(saved["incident"]), tuple(map(str, saved["to"])))
            for saved in tree.get("outbox", ())  # the first versions sent no mail
        ]
    except NewerHistory:
        raise
    except Exception as error:  # a file may hold anything, a million brackets included
        raise HistoryUnreadable(f"not a history ({type(error).__name__}: {error})") from error


def _stamp(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(text: Any) -> datetime | None:
    return None if text is None else _utc(text)


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)


def _result(row: list[Any]) -> Result:
    at, latency, status, error, tries = row
    return Result(_utc(at), float(latency), status, error, int(tries))


def _incident_row(incident: Incident) -> dict[str, Any]:
    return {
        "number": incident.number,
        "target": incident.target,
        "opened_at": _stamp(incident.opened_at),
        "cause": incident.cause,
        "closed_at": _stamp(incident.closed_at),
        "closed_because": incident.closed_because,
    }


def _incident(saved: dict[str, Any]) -> Incident:
    return Incident(
        int(saved["number"]),
        str(saved["target"]),
        _utc(saved["opened_at"]),
        str(saved["cause"]),
        _moment(saved["closed_at"]),
        saved["closed_because"],
    )


class Keeper:
    """The one writer of the file: a greenlet that saves at once when asked, else now and then.

    The disk is waited for in a thread: an `fsync` on the hub would stop every probe and add the
    disk's latency to theirs. A single writer because a thread cannot be cancelled: were two
    greenlets to write, a killed one's thread could put an old history over a new one.
    """

    def __init__(self, history: History, path: Path, *, every: float) -> None:
        self.error: str | None = None  # why the last save failed, None when it worked
        self.every = every
        self._history = history
        self._path = path
        self._dirty = False
        self._stopping = False
        self._wake = Event()
        self._waiters: list[Event] = []
        # Not the hub's own pool, where the look-ups of a dead name server may occupy all threads.
        self._disk = ThreadPool(1)
        self._greenlet = gevent.spawn(self._run)

    def touch(self) -> None:
        """Say that the history has changed; it is saved within `every` seconds."""
        self._dirty = True

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until what the history holds now is on disk, or trying has failed (see `error`).

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
            self.error = f"{self._path}: not written within {timeout:g} s"
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
            text = encode(self._history)
            self._disk.apply(save, (self._path, text))
        except Exception as error:  # whatever it is, the next save may work again
            self._dirty = True
            if self.error is None:
                log.error("history not saved, trying on: %s", error)
            self.error = str(error)
        else:
            if self.error is not None:
                log.info("history saved again")
            self.error = None
        finally:
            for waiter in waiters:
                waiter.set()
