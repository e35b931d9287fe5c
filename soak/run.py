"""One seed, from the first server to the verdict."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from sepelib.zookeeper.testing import Ensemble
from soak.checker import Limits, Report, check
from soak.checks.party import members
from soak.history import Event
from soak.nemesis import Nemesis
from soak.observer import Observer
from soak.recipes import RECIPES
from soak.schedule import RATE, schedule
from soak.slot import Slot

__all__ = ["Options", "Outcome", "run"]


class Options(NamedTuple):
    seed: int
    seconds: float = 60.0
    library: str = "sepelib"
    recipes: Sequence[str] = tuple(RECIPES)
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
        observer = stack.enter_context(Observer(ensemble.hosts, nemesis.note, options.recipes))
        _drive(options, limits, slots, nemesis)
        _judge_rest(options, limits, slots, nemesis, observer)
        history = [*nemesis.events, *(event for slot in slots for event in slot.events)]
        logs = [slot.process.log_path.read_text(errors="replace") for slot in slots]
    return Outcome(check(history, limits), sorted(history, key=lambda e: e.t), logs)


def _drive(options: Options, limits: Limits, slots: Sequence[Slot], nemesis: Nemesis) -> None:
    def all_alive(since: float) -> bool:
        return all(_alive(slot, recipe, since) for slot in slots for recipe in options.recipes)

    _until(
        lambda: all(any(_alive(slot, recipe, 0.0) for slot in slots) for recipe in options.recipes),
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
    for slot in slots:
        slot.process.signal(signal.SIGHUP)
    _until(
        lambda: all_alive(healed) and ("party" not in options.recipes or _agreed(slots, healed)),
        limits.revive,
        nemesis,
    )
    for slot in slots:
        if not all(_alive(slot, recipe, healed) for recipe in options.recipes):
            slot.process.signal(signal.SIGUSR2)


def _judge_rest(
    options: Options,
    limits: Limits,
    slots: Sequence[Slot],
    nemesis: Nemesis,
    observer: Observer,
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
    rested = time.monotonic()
    _until(
        lambda: all(_pending(slot, stopped) == 0 for slot in slots), 2 * options.timeout, nemesis
    )
    if "condition" in options.recipes:
        version = observer.version("/soak/condition")
        nemesis.note("version", recipe="condition", version=version)
        _until(lambda: all(_heard(slot) == version for slot in slots), 2 * options.timeout, nemesis)
    for recipe in sorted(options.recipes, key=lambda recipe: RECIPES[recipe].tidy):
        left = rested + 2 * options.timeout + RECIPES[recipe].tidy - time.monotonic()
        _until(partial(observer.tidy, recipe), left, nemesis)
        names = [_described(path, owner, slots) for path, owner in observer.left(recipe)]
        nemesis.note("left", recipe=recipe, names=names)
    for slot in slots:
        slot.follow()


def _alive(slot: Slot, recipe: str, since: float) -> bool:
    kinds = {e.kind for e in _since(slot, since) if e.fields.get("recipe") == recipe}
    return kinds.issuperset(RECIPES[recipe].signs)


def _agreed(slots: Sequence[Slot], since: float) -> bool:
    """Whether each sees exactly the others and itself."""
    lives = {slot.index: slot.life for slot in slots}
    return all(_last(slot, "view", "members", since) == members(lives) for slot in slots)


def _last(slot: Slot, kind: str, field: str, since: float) -> object:
    found = next((e.fields[field] for e in _since(slot, since) if e.kind == kind), None)
    return frozenset(found) if isinstance(found, list) else found


def _heard(slot: Slot) -> object:
    return _last(slot, "heard", "version", 0.0)


def _rests(slot: Slot, since: float) -> bool:
    return any(e.kind == "idle" for e in _since(slot, since))


def _pending(slot: Slot, since: float) -> int:
    """As it said last; 0 when it is not even at rest, which the checker judges."""
    return next((int(e.pending) for e in _since(slot, since) if e.kind == "idle"), 0)


def _since(slot: Slot, t: float) -> Iterator[Event]:
    """The last events first."""
    slot.follow()
    return itertools.takewhile(lambda event: event.t >= t, reversed(slot.events))


def _described(path: str, owner: int, slots: Sequence[Slot]) -> str:
    for slot in slots:
        for event in slot.events:
            if event.kind == "session" and event.id == owner:
                return f"{path} of worker {slot.index}"
    return f"{path} of session {owner:#x}"


def _until(condition: Callable[[], bool], seconds: float, nemesis: Nemesis) -> None:
    """Return when *condition* holds or the time is gone; the checker judges which it was."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        nemesis.sleep()
        nemesis.watch()
