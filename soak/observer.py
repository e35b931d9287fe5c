"""What the servers know, asked past all faults: the members of a party, and what is left."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError

from soak.recipes import RECIPES

__all__ = ["Observer"]

_PARTY = "/soak/party"
_PERIOD = 0.3  # seconds between two looks
_PATIENCE = 30.0


class Observer:
    """Looks at the party on and on from a thread of its own; answers questions meanwhile."""

    def __init__(self, hosts: str, note: Callable[..., None], recipes: Sequence[str]) -> None:
        self._note = note
        self._watches = "party" in recipes
        # It goes on through servers that stand still, one at a time.
        retry = {"max_tries": -1, "max_delay": 0.5}
        logger = logging.getLogger(__name__)
        logger.setLevel(logging.CRITICAL)  # that connections break is what this is about
        self._client = KazooClient(hosts, timeout=2.0, connection_retry=retry, logger=logger)
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look_on, name="observer", daemon=True)

    def __enter__(self) -> Self:
        self._client.start(timeout=_PATIENCE)
        if self._watches:
            self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._watches:
            self._looking.join(_PATIENCE)
        self._client.stop()
        self._client.close()

    def version(self, path: str) -> int:
        """Of the node, -1 if there is none."""
        self._ask(self._client.sync_async, path)
        stat = self._ask(self._client.exists_async, path)
        return -1 if stat is None else int(stat.version)

    def tidy(self, recipe: str) -> bool:
        return not self.left(recipe)

    def left(self, recipe: str) -> list[tuple[str, int]]:
        """Path and owner of what is there of contenders, items and the like."""
        paths, stays = RECIPES[recipe].paths, RECIPES[recipe].stays
        found = [one for path in paths for one in self._below(path)]
        return [one for one in found if not stays or stays not in one[0]]

    def _below(self, path: str) -> Iterator[tuple[str, int]]:
        """All that is ephemeral or has data: the directories of a recipe may stay."""
        try:
            self._ask(self._client.sync_async, path)
            names = self._ask(self._client.get_children_async, path)
        except NoNodeError:
            return
        for name in names:
            with contextlib.suppress(NoNodeError):
                _, stat = self._ask(self._client.get_async, f"{path}/{name}")
                if stat.ephemeralOwner or stat.dataLength:
                    yield f"{path}/{name}", stat.ephemeralOwner
                yield from self._below(f"{path}/{name}")

    def _ask(self, ask: Callable[..., Any], path: str) -> Any:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return ask(path).get(timeout=5.0)
            except NoNodeError:
                raise
            except (KazooException, self._client.handler.timeout_exception):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _look_on(self) -> None:
        while not self._over.wait(_PERIOD):
            began = time.monotonic()
            with contextlib.suppress(KazooException, self._client.handler.timeout_exception):
                # Not what a server that lags behind remembers.
                self._client.sync_async(_PARTY).get(timeout=2.0)
                names = self._client.get_children_async(_PARTY).get(timeout=2.0)
                asked = [self._client.exists_async(f"{_PARTY}/{name}") for name in names]
                stats = [one.get(timeout=2.0) for one in asked]
                sessions = [stat.ephemeralOwner for stat in stats if stat is not None]
                took = time.monotonic() - began
                self._note("truth", began, recipe="party", sessions=sessions, took=took)
