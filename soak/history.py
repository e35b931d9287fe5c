"""What the workers wrote: one JSON object a line, a file for each worker, append only.

Times are `time.monotonic()`, which all processes of a machine share. A line is written by one
`os.write`, so a kill -9 loses or tears at most the last one.

    start     pid, life                a worker's process, *life* of its slot, is up
    session   state, epoch, id, password
    idle      pending                  the worker wants nothing any more; the janitor's backlog

Of a recipe, all with `recipe` and `n`, which a call and what it leads to have in common:

    acquire   timeout?                 before the call; leases of a semaphore, items of a queue too
    granted   token, leases, item, node   after it; a singleton's target was entered
    missed                             it returned False or None
    struck    how, took, held?         a call was killed, timed out from outside or interrupted
    raised    where, error             what nobody provided for
    unsure    error                    no answer came: done or not, nobody knows
    claim     token, held              t is taken before `held` is asked; how many leases
    wrote     token, version           a fenced transaction set the store to that version
    release   token, took, how         t is when it began; a singleton's target was left. how: of an
                                       item, acked, nacked, lost or unsure
    resize, resized   limit            a semaphore's
    wait      token, timeout           before it, with that lock; woken: notified?
    notify    token, locked, wanted    0: all; notified: woken, how many it said
    heard     version                  read after a change that a listener has told
    put, stored                        n is the item
    ack                                before it
    add       value                    added: pre, post
    value     asked, value             the counter's, read at rest
    join, joined, departed             t of the last is when it began
    view      members                  those seen in the party

And by the harness itself, as worker HARNESS:

    fault     name, detail, lasted, hit or server    t is when it began
    stalled   seconds                  the machine itself was late by so much
    truth     recipe, sessions, took   the owners of the party's members, t is before it was asked
    healed                             the last fault is over
    died      hit, status, log         a worker's process ended that nobody had killed
    stopped                            the workers were told to want nothing any more
    version   recipe, version          the condition's, when all was at rest
    left      recipe, names            nodes that were there 2 T later
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HARNESS", "Event", "Journal", "Tail", "read", "save"]

HARNESS = -1


class Event(NamedTuple):
    t: float
    worker: int
    kind: str
    fields: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(f"{self.kind} has no {name}") from None

    def line(self) -> bytes:
        return json.dumps({"t": self.t, "kind": self.kind, **self.fields}).encode() + b"\n"


class Journal:
    """Where one worker writes; never yields to another greenlet."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # What a killed predecessor may have torn off is a line of its own then, and dropped.
        os.write(self._fd, b"\n")

    def write(self, kind: str, t: float | None = None, **fields: Any) -> None:
        t = time.monotonic() if t is None else t
        os.write(self._fd, Event(t, 0, kind, fields).line())


class Tail:
    """Reads what was appended since the last time."""

    def __init__(self, path: Path, worker: int) -> None:
        self._path = path
        self._worker = worker
        self._read = 0
        self._rest = b""
        self.torn = 0

    def events(self) -> Iterator[Event]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in filter(None, lines):
            try:
                fields = json.loads(line)
            except ValueError:
                self.torn += 1
                continue
            yield Event(fields.pop("t"), self._worker, fields.pop("kind"), fields)


def save(events: Iterable[Event], folder: Path) -> None:
    """A file for each worker, `worker-3.jsonl`, and one for the harness, `harness.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    by_worker: dict[int, list[bytes]] = {}
    for event in events:
        by_worker.setdefault(event.worker, []).append(event.line())
    for worker, lines in by_worker.items():
        name = "harness" if worker == HARNESS else f"worker-{worker}"
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))


def read(folder: Path) -> list[Event]:
    """What `save` wrote, in the order of time."""
    events = list(Tail(folder / "harness.jsonl", HARNESS).events())
    for path in folder.glob("worker-*.jsonl"):
        events += Tail(path, int(path.stem.removeprefix("worker-"))).events()
    return sorted(events, key=lambda event: event.t)
