"""What drives a recipe in a worker; needs gevent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import gevent
import gevent.event

from soak.history import Journal
from soak.libraries import Library

__all__ = ["Config", "Context", "Driver", "Struck", "section"]

T = TypeVar("T")


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


class Context(NamedTuple):
    """What all drivers of a worker share."""

    library: Library
    journal: Journal
    config: Config
    calm: gevent.event.Event
    """Set when the last fault is over: let things settle."""
    resting: gevent.event.Event
    """Set when nothing is to be wanted any more."""


class Struck(Exception):
    """A call was ended from outside, *took* seconds after the blow."""

    def __init__(self, how: str, took: float) -> None:
        super().__init__(how, took)
        self.how = how
        self.took = took


def section(rng: random.Random) -> int:
    """How many claims: mostly a few, sometimes seconds."""
    return rng.randint(1, 30) if rng.random() < 0.6 else rng.randint(30, 300)


class Driver:
    """Does one recipe's work in a worker and writes it down. `run` returns when all is at rest."""

    def __init__(self, recipe: str, context: Context) -> None:
        config = context.config
        self.recipe = recipe
        self.context = context
        self.rng = random.Random(f"{recipe} {config.seed} {config.worker} {config.life}")
        self.me = f"{config.worker}.{config.life}"
        self._attempts = 0

    def run(self) -> None:
        raise NotImplementedError

    @property
    def resting(self) -> bool:
        return self.context.resting.is_set()

    def pause(self, low: float, high: float) -> None:
        """Some time within, less when there is nothing to be wanted any more."""
        self.context.resting.wait(self.rng.uniform(low, high))

    def attempt(self) -> str:
        """What the lines of one call, and what it leads to, have in common."""
        self._attempts += 1
        return f"{self.context.config.life}.{self._attempts}"

    def write(self, kind: str, n: str, t: float | None = None, **fields: Any) -> None:
        self.context.journal.write(kind, t, recipe=self.recipe, n=n, **fields)

    def raised(self, n: str, where: str, error: Exception) -> None:
        self.write("raised", n, where=where, error=f"{type(error).__name__}: {error}")
        gevent.sleep(0.1)  # who fails at once shall not fill the disk

    def strike(
        self,
        call: Callable[[], T],
        interrupt: Callable[[], object] | None = None,
        *,
        kill: bool = True,
    ) -> T:
        """*call*(), which is ended from outside now and then: Struck.

        *kill*: sometimes called in another greenlet, which is killed.
        """
        if self.rng.random() >= self.context.config.struck:
            return call()
        ways = ["timeout", "timeout", *["kill"] * kill, *["interrupt"] * (interrupt is not None)]
        how = self.rng.choice(ways)
        delay = self.rng.uniform(0, 0.3)
        began = time.monotonic()
        match how:
            case "timeout":
                struck = gevent.Timeout(delay)
                try:
                    with struck:
                        return call()
                except gevent.Timeout as e:
                    if e is not struck:
                        raise
                    raise Struck(how, time.monotonic() - began - delay) from e
            case "kill":
                running = gevent.spawn(call)
                running.join(delay)
                running.kill()
                result = running.get()
                if isinstance(result, gevent.GreenletExit):
                    raise Struck(how, time.monotonic() - began - delay) from result
                return result
        assert interrupt is not None
        interrupting = gevent.spawn_later(delay, interrupt)
        try:
            return call()
        except self.context.library.interrupted as e:
            raise Struck(how, time.monotonic() - began - delay) from e
        finally:
            interrupting.kill()
