"""A process that uses recipes, claims what they grant, and writes all of that down.

    python -m soak.worker '{"hosts": ..., "library": "sepelib", "recipes": ["lock"], ...}'

SIGHUP: the last fault is over.
SIGUSR1: want nothing any more, but keep the session, and say each 0.2 s what is left to do.
SIGUSR2: write to stderr where it is, the thread and all greenlets.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gevent
import gevent.event
import gevent.util

from soak.history import Journal
from soak.libraries import library
from soak.recipes.base import Config, Context, Driver
from soak.recipes.condition import Waiter
from soak.recipes.counter import Adder
from soak.recipes.lock import Locker
from soak.recipes.party import Member
from soak.recipes.queue import Consumer
from soak.recipes.semaphore import Leaser
from soak.recipes.singleton import Leader

_DRIVERS: Mapping[str, Callable[[Context], Driver]] = {
    "lock": Locker,
    "singleton": Leader,
    "semaphore": Leaser,
    "condition": Waiter,
    "queue": Consumer,
    "counter": Adder,
    "party": Member,
}


def main() -> None:
    log_to_stderr()
    config = Config(**json.loads(sys.argv[1]))
    journal = Journal(Path(config.journal))
    calm, resting = gevent.event.Event(), gevent.event.Event()
    # Before it says that it is up: from then on it is told things.
    gevent.signal_handler(signal.SIGHUP, calm.set)
    gevent.signal_handler(signal.SIGUSR1, resting.set)
    gevent.signal_handler(signal.SIGUSR2, gevent.util.print_run_info)
    # Even when the hub does not run; after gevent, whose handler it calls.
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=True)
    journal.write("start", pid=os.getpid(), life=config.life)

    def on_session(state: str, epoch: int, session_id: int, password: bytes) -> None:
        journal.write("session", state=state, epoch=epoch, id=session_id, password=password.hex())

    client = library(config.library, config.hosts, config.timeout)
    client.start(on_session)
    context = Context(client, journal, config, calm, resting)
    drivers = [_DRIVERS[recipe](context) for recipe in config.recipes]
    running = [gevent.spawn(drive, driver) for driver in drivers]
    resting.wait()
    gevent.joinall(running)
    while True:
        journal.write("idle", pending=client.pending())
        gevent.sleep(0.2)


def drive(driver: Driver) -> None:
    try:
        driver.run()
    except Exception as e:
        logging.getLogger(__name__).exception("the driver of %s has failed", driver.recipe)
        driver.raised("", "driver", e)


class _Stamped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.monotonic():.3f} {record.levelname} {record.name}: {super().format(record)}"


def log_to_stderr() -> None:
    """On the clock of the history."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Stamped())
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


if __name__ == "__main__":
    main()
