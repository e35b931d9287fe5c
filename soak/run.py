"""One seed, from the first server to the verdict."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from sepelib.zookeeper.testing import Ensemble
from soak.checker import Limits, Report, check
from soak.history import Event
from soak.nemesis import Nemesis
from soak.schedule import RATE, schedule
from soak.slot import Slot

__all__ = ["Options", "Outcome", "run"]


class Options(NamedTuple):
    seed: int
    seconds: float = 60.0
    library: str = "sepelib"
    recipes: tuple[str, ...] = ("lock", "singleton")
    workers: int = 6
    servers: int = 3
    timeout: float = 2.0
    rate: float = RATE
    """Faults a second."""
    struck: float = 0.1
    """Share of the acquires that are ended from outside."""


class Outcome(NamedTuple):
    report: Report
    history: Sequence[Event]
    logs: Sequence[str]
    """What each worker wrote to stderr."""


def run(options: Options) -> Outcome:
    """Leaves nothing behind: no process and no file, however it ends, kill -9 included."""
    limits = Limits(timeout=options.timeout)
    with contextlib.ExitStack() as stack:
        ensemble = stack.enter_context(Ensemble(options.servers))
        servers = [ensemble[i] for i in range(options.servers)]
        settings = {
            "library": options.library,
            "recipes": options.recipes,
            "timeout": options.timeout,
            "acquire": limits.acquire,
            "struck": options.struck,
            "seed": options.seed,
        }
        slots = [Slot(i, servers, settings) for i in range(options.workers)]
        for slot in slots:
            stack.callback(slot.close)
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(Slot.start, slots))
        nemesis = Nemesis(slots, servers, options.recipes)
        _drive(options, limits, slots, nemesis)
        _judge_rest(options, limits, slots, nemesis, ensemble.hosts)
        history = [*nemesis.events, *(event for slot in slots for event in slot.events)]
        logs = [slot.process.log_path.read_text(errors="replace") for slot in slots]
    return Outcome(check(history, limits), sorted(history, key=lambda e: e.t), logs)


def _drive(options: Options, limits: Limits, slots: Sequence[Slot], nemesis: Nemesis) -> None:
    def all_granted(since: float) -> bool:
        return all(_granted(slot, recipe, since) for slot in slots for recipe in options.recipes)

    _until(
        lambda: all(
            any(_granted(slot, recipe, 0.0) for slot in slots) for recipe in options.recipes
        ),
        limits.revive,
        nemesis,
    )
    for event in nemesis.events:
        if event.kind == "died":
            # Nothing was inflicted yet: it cannot even start, and more runs would say the same.
            raise RuntimeError(f"worker {event.hit} ended by itself at once:\n{event.log}")
    plan = schedule(
        options.seed,
        options.seconds,
        timeout=options.timeout,
        workers=options.workers,
        servers=options.servers,
        recipes=len(options.recipes),
        rate=options.rate,
    )
    nemesis.inflict(plan, options.seconds)
    healed = time.monotonic()
    _until(lambda: all_granted(healed), limits.revive, nemesis)
    for slot in slots:
        if not all(_granted(slot, recipe, healed) for recipe in options.recipes):
            slot.process.signal(signal.SIGUSR2)


def _judge_rest(
    options: Options, limits: Limits, slots: Sequence[Slot], nemesis: Nemesis, hosts: str
) -> None:
    """Let all come to rest, then write down what does not."""
    stopped = time.monotonic()
    nemesis.note("stopped", stopped)
    for slot in slots:
        slot.process.signal(signal.SIGUSR1)
    _until(
        lambda: all(_rests(slot, stopped) for slot in slots),
        limits.acquire + 2 * limits.grace + options.timeout,
        nemesis,
    )
    for slot in slots:
        if not _rests(slot, stopped):
            slot.process.signal(signal.SIGUSR2)
    observer = KazooClient(hosts)
    observer.start(timeout=limits.revive)
    try:
        paths = {recipe: f"/soak/{recipe}" for recipe in options.recipes}

        def quiet() -> bool:
            return not any(_children(observer, path) for path in paths.values()) and all(
                _pending(slot, stopped) == 0 for slot in slots
            )

        _until(quiet, 2 * options.timeout, nemesis)
        for recipe, path in paths.items():
            names = [_described(observer, path, name, slots) for name in _children(observer, path)]
            nemesis.note("left", recipe=recipe, names=names)
    finally:
        observer.stop()
        observer.close()
    for slot in slots:
        slot.follow()


def _granted(slot: Slot, recipe: str, since: float) -> bool:
    return any(e.kind == "granted" and e.recipe == recipe for e in _since(slot, since))


def _rests(slot: Slot, since: float) -> bool:
    return any(e.kind == "idle" for e in _since(slot, since))


def _pending(slot: Slot, since: float) -> int:
    """As it said last; 0 when it is not even at rest, which the checker judges."""
    return next((int(e.pending) for e in _since(slot, since) if e.kind == "idle"), 0)


def _since(slot: Slot, t: float) -> Iterator[Event]:
    """The last events first."""
    slot.follow()
    return itertools.takewhile(lambda event: event.t >= t, reversed(slot.events))


def _children(observer: KazooClient, path: str) -> list[str]:
    try:
        children: list[str] = observer.get_children(path)
    except NoNodeError:
        return []
    return children


def _described(observer: KazooClient, path: str, name: str, slots: Sequence[Slot]) -> str:
    stat = observer.exists(f"{path}/{name}")
    owner = 0 if stat is None else stat.ephemeralOwner
    for slot in slots:
        for event in slot.events:
            if event.kind == "session" and event.id == owner:
                return f"{name} of worker {slot.index}"
    return f"{name} of session {owner:#x}"


def _until(condition: Callable[[], bool], seconds: float, nemesis: Nemesis) -> None:
    """Return when *condition* holds or the time is gone; the checker judges which it was."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        nemesis.sleep()
        nemesis.watch()
