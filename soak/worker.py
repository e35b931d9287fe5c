"""A process that takes the lock, claims it, gives it back, and writes all of that down.

    python -m soak.worker '{"hosts": ..., "library": "sepelib", "recipes": ["lock"], ...}'

SIGUSR1: want nothing any more, but keep the session, and say each 0.2 s what is left to do.
SIGUSR2: write to stderr where it is, the thread and all greenlets.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import gevent
import gevent.event
import gevent.util

from soak.history import Journal
from soak.libraries import Hold, Library, Mutex, library

_FRESH = 0.3  # of all sections, on a new object
_WRITES = 0.2  # of all sections
_PERIOD = 0.01  # seconds between two claims


class Config(NamedTuple):
    hosts: str
    library: str
    recipes: list[str]
    timeout: float
    acquire: float
    struck: float
    seed: int
    worker: int
    life: int
    journal: str


def main() -> None:
    log_to_stderr()
    config = Config(**json.loads(sys.argv[1]))
    journal = Journal(Path(config.journal))
    journal.write("start", pid=os.getpid(), life=config.life)
    resting = gevent.event.Event()
    gevent.signal_handler(signal.SIGUSR1, resting.set)
    gevent.signal_handler(signal.SIGUSR2, gevent.util.print_run_info)
    # Even when the hub does not run; after gevent, whose handler it calls.
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=True)

    def on_session(state: str, epoch: int, session_id: int, password: bytes) -> None:
        journal.write("session", state=state, epoch=epoch, id=session_id, password=password.hex())

    client = library(config.library, config.hosts, config.timeout)
    client.start(on_session)
    rng = random.Random(f"worker {config.seed} {config.worker} {config.life}")
    running = []
    stops = []
    if "lock" in config.recipes:
        locker = Locker(client, journal, rng, config)
        running.append(gevent.spawn(locker.run, "/soak/lock", resting))
    if "singleton" in config.recipes:
        leader = Leader(journal, rng, config.life)
        stops.append(client.singleton("/soak/singleton", leader.lead))
    resting.wait()
    for stop in stops:
        stop()
    gevent.joinall(running)
    while True:
        journal.write("idle", pending=client.pending())
        gevent.sleep(0.2)


class _Stamped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.monotonic():.3f} {record.levelname} {record.name}: {super().format(record)}"


def log_to_stderr() -> None:
    """On the clock of the history."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Stamped())
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


def section(rng: random.Random) -> int:
    """How many claims: mostly a few, sometimes seconds."""
    return rng.randint(1, 30) if rng.random() < 0.6 else rng.randint(30, 300)


class Struck(Exception):
    """An acquire was ended from outside."""


class Locker:
    """Acquires, claims and releases one lock, over and over."""

    def __init__(
        self, client: Library, journal: Journal, rng: random.Random, config: Config
    ) -> None:
        self._client = client
        self._journal = journal
        self._rng = rng
        self._life = config.life
        self._timeout = config.acquire
        self._struck = config.struck
        self._attempts = 0

    def run(self, path: str, resting: gevent.event.Event) -> None:
        mutex = self._client.mutex(path)
        while not resting.is_set():
            if self._rng.random() < _FRESH:
                mutex = self._client.mutex(path)
            self._attempts += 1
            self._attempt(mutex, f"{self._life}.{self._attempts}", resting)

    def _attempt(self, mutex: Mutex, n: str, resting: gevent.event.Event) -> None:
        how, delay = "", self._rng.uniform(0, 0.3)
        if self._rng.random() < self._struck:
            how = self._rng.choice(("timeout", "timeout", "kill", "interrupt"))
        self._write("acquire", n)
        began = time.monotonic()
        try:
            acquired = self._acquire(mutex, how, delay)
        except Struck:
            took = time.monotonic() - began - delay
            self._write("struck", n, how=how, took=took, held=mutex.held())
            return
        except Exception as e:
            self._raised(n, "acquire", e)
            return
        if not acquired:
            self._write("missed", n)
            return
        token = mutex.token()
        self._write("granted", n, token=token)
        self._claim(mutex, n, token, resting)
        began = time.monotonic()
        try:
            mutex.release()
        except Exception as e:
            self._raised(n, "release", e)
        took = time.monotonic() - began
        self._write("release", n, t=began, token=token, took=took)

    def _claim(self, mutex: Mutex, n: str, token: int, resting: gevent.event.Event) -> None:
        writes = self._rng.random() < _WRITES
        for i in range(section(self._rng)):
            t = time.monotonic()
            held = mutex.held()
            self._write("claim", n, t=t, token=token, held=held)
            if not held or resting.is_set():
                return
            if writes and i % 20 == 0 and (version := mutex.write()) is not None:
                self._write("wrote", n, token=token, version=version)
            gevent.sleep(_PERIOD)

    def _acquire(self, mutex: Mutex, how: str, delay: float) -> bool:
        match how:
            case "timeout":
                struck = gevent.Timeout(delay)
                try:
                    with struck:
                        return mutex.acquire(self._timeout)
                except gevent.Timeout as e:
                    if e is not struck:
                        raise
                    raise Struck from e
            case "kill":
                running = gevent.spawn(mutex.acquire, self._timeout)
                running.join(delay)
                running.kill()
                result = running.get()
                if isinstance(result, gevent.GreenletExit):
                    raise Struck from result
                return bool(result)
            case "interrupt":
                interrupting = gevent.spawn_later(delay, mutex.interrupt)
                try:
                    return mutex.acquire(self._timeout)
                except self._client.expected as e:
                    raise Struck from e
                finally:
                    interrupting.kill()
        return mutex.acquire(self._timeout)

    def _raised(self, n: str, where: str, error: Exception) -> None:
        self._write("raised", n, where=where, error=f"{type(error).__name__}: {error}")
        gevent.sleep(0.1)  # who fails at once shall not fill the disk

    def _write(self, kind: str, n: str, t: float | None = None, **fields: object) -> None:
        self._journal.write(kind, t, recipe="lock", n=n, **fields)


class Leader:
    """A singleton's target: blind, and sometimes stubborn, it runs on until it is killed."""

    def __init__(self, journal: Journal, rng: random.Random, life: int) -> None:
        self._journal = journal
        self._rng = rng
        self._life = life
        self._runs = 0

    def lead(self, hold: Hold) -> None:
        self._runs += 1
        n = f"{self._life}.{self._runs}"
        token = hold.token()
        stubborn = (Exception,) if self._rng.random() < 0.2 else ()
        self._write("granted", n, token)
        try:
            for _ in range(section(self._rng)):
                t = time.monotonic()
                self._write("claim", n, token, t=t, held=hold.held())
                with contextlib.suppress(*stubborn):
                    gevent.sleep(_PERIOD)
        finally:
            self._write("release", n, token, took=0.0)

    def _write(
        self, kind: str, n: str, token: int, t: float | None = None, **fields: object
    ) -> None:
        self._journal.write(kind, t, recipe="singleton", n=n, token=token, **fields)


if __name__ == "__main__":
    main()
