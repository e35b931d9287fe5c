"""A worker's place: its process, its proxies to each server, and what it has written."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepelib.util.testing import ServerProcess
from sepelib.zookeeper.testing import ZookeeperProxy, ZookeeperServer
from soak.history import Event, Tail
from soak.recipes import OVER, RECIPES

__all__ = ["Slot", "holder"]

_ROOT = str(Path(__file__).parents[1])
# Not -m: under PYTHONSAFEPATH, or in another folder, it would not be found.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from soak.worker import main; main()"


class Slot:
    """*settings* are what every worker is told. Any thread may call; `busy` is the nemesis's."""

    def __init__(
        self, index: int, servers: Sequence[ZookeeperServer], settings: dict[str, Any]
    ) -> None:
        self.index = index
        self.events: list[Event] = []
        self.busy = False
        self.proxies: list[ZookeeperProxy] = [server.proxy() for server in servers]
        self._settings = settings
        self.life = 0
        self._started = 0
        self._tail: Tail | None = None
        self._lock = threading.Lock()
        self._session: tuple[int, bytes] | None = None
        self._busy: dict[str, dict[str, float]] = {}
        self.process = ServerProcess(
            self._command,
            ready=lambda _: self._is_up(),
            name=f"soak-worker-{index}",
            start_timeout=60.0,
            stop_timeout=1.0,
        )

    def start(self) -> None:
        self.life += 1
        self.process.start()

    def close(self) -> None:
        self.process.close()

    def session(self) -> tuple[int, bytes] | None:
        """Id and password of the last one."""
        self.follow()
        return self._session

    def busy_since(self, recipe: str) -> float | None:
        """Since when it holds something of that recipe or is in a call of it, if it is."""
        self.follow()
        with self._lock:
            return max(self._busy.get(recipe, {}).values(), default=None)

    def follow(self) -> None:
        """Read on."""
        with self._lock:
            if self._tail is not None:
                for event in self._tail.events():
                    self.events.append(event)
                    self._take(event)

    def _take(self, event: Event) -> None:
        match event.kind:
            case "start":
                self._started = event.life
                self._busy.clear()
                self._session = None
            case "session" if event.id:
                self._session = event.id, bytes.fromhex(event.password)
            case _ if "recipe" in event.fields:
                busy = self._busy.setdefault(event.recipe, {})
                if event.kind in RECIPES[event.recipe].busy:
                    busy[event.n] = event.t
                elif event.kind in OVER:
                    busy.pop(event.n, None)

    def _is_up(self) -> bool:
        self.follow()
        return self._started == self.life

    def _command(self, process: ServerProcess) -> list[str]:
        journal = process.folder / "history.jsonl"
        if self._tail is None:
            self._tail = Tail(journal, self.index)
        told = {
            "hosts": ",".join(f"{proxy.host}:{proxy.port}" for proxy in self.proxies),
            "worker": self.index,
            "life": self.life,
            "journal": str(journal),
            **self._settings,
        }
        return [sys.executable, "-c", _PROGRAM, _ROOT, json.dumps(told)]


def holder(slots: Sequence[Slot], recipe: str) -> Slot | None:
    """Whoever is the last to have been granted it, or to have begun what faults should meet."""
    held = [(since, slot) for slot in slots if (since := slot.busy_since(recipe)) is not None]
    return max(held, key=lambda pair: pair[0])[1] if held else None
