"""Adds to one counter, each time something of another size, and reads it at the end."""

from __future__ import annotations

import time
from typing import Any, Protocol

import gevent

from soak.libraries import Library
from soak.recipes.base import Context, Driver, Struck

__all__ = ["Adder"]

_PATH = "/soak/counter"
_PAUSE = (0.05, 0.4)  # seconds between two adds
_HIGHEST = 10**6  # so high that no two adds are of one size
_KEYED = 0.3  # of all adds: asked for again until they are answered


class Counter(Protocol):
    keyed: bool
    """Whether an add can be asked for again."""

    def add(self, value: int, key: str | None) -> tuple[int, int]:
        """The values before and after."""

    def value(self) -> int: ...


def counter(library: Library) -> Counter:
    return (_Sepelib if library.name == "sepelib" else _Kazoo)(library.client)


class Adder(Driver):
    def __init__(self, context: Context) -> None:
        super().__init__("counter", context)

    def run(self) -> None:
        own = counter(self.context.library)
        while not self.resting:
            self._add(own, self.attempt())
            self.pause(*_PAUSE)
        n, asked = self.attempt(), time.monotonic()
        try:
            self.write("value", n, asked=asked, value=own.value())
        except Exception as e:
            self.raised(n, "value", e)

    def _add(self, own: Counter, n: str) -> None:
        value = self.rng.randint(1, _HIGHEST)
        key = f"{self.me}.{n}" if own.keyed and self.rng.random() < _KEYED else None
        self.write("add", n, value=value)
        while True:
            try:
                pre, post = self.strike(lambda: own.add(value, key))
            except Struck as e:
                self.write("struck", n, how=e.how, took=e.took)
            except self.context.library.failed as e:
                self.write("unsure", n, error=repr(e))
            except Exception as e:
                self.raised(n, "add", e)
            else:
                self.write("added", n, pre=pre, post=post)
                return
            if key is None:
                return
            gevent.sleep(0.1)


class _Sepelib:
    keyed = True

    def __init__(self, client: Any) -> None:
        from sepelib.zookeeper import Counter

        self._counter: Any = Counter(client, _PATH)

    def add(self, value: int, key: str | None) -> tuple[int, int]:
        pre, post = self._counter.add(value, key=key)
        return pre, post

    def value(self) -> int:
        value: int = self._counter.value
        return value


class _Kazoo:
    keyed = False

    def __init__(self, client: Any) -> None:
        self._counter = client.Counter(_PATH)

    def add(self, value: int, key: str | None) -> tuple[int, int]:
        self._counter += value
        return self._counter.pre_value, self._counter.post_value

    def value(self) -> int:
        value: int = self._counter.value
        return value
