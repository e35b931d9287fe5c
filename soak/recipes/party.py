"""Joins a party, leaves it now and then, and says who it sees; stays when the faults are over."""

from __future__ import annotations

import time
from typing import Any, Protocol

import gevent

from soak.libraries import Library
from soak.recipes.base import Context, Driver

__all__ = ["Member"]

_PATH = "/soak/party"
_PERIOD = 0.2  # seconds between two looks
_STAY = (3.0, 15.0)  # seconds as a member
_AWAY = (0.0, 2.0)  # seconds as none


class Party(Protocol):
    def join(self) -> None: ...

    def is_member(self) -> bool: ...

    def seen(self) -> list[str]: ...

    def leave(self) -> None: ...

    def stop(self) -> None: ...


def party(library: Library, identifier: str) -> Party:
    return (_Sepelib if library.name == "sepelib" else _Kazoo)(library.client, identifier)


class Member(Driver):
    def __init__(self, context: Context) -> None:
        super().__init__("party", context)

    def run(self) -> None:
        own = party(self.context.library, self.me)
        looking = gevent.spawn(self._look, own)
        while not self.resting:
            n = self.attempt()
            if self._call(own, n):
                self._claim(own, n)
                self._leave(own, n)
            gevent.sleep(0)
            if not self.context.calm.is_set():
                self.pause(*_AWAY)
        looking.join()
        own.stop()

    def _call(self, own: Party, n: str) -> bool:
        self.write("join", n)
        try:
            own.join()
        except self.context.library.failed as e:
            self.write("unsure", n, error=repr(e))
            return False
        except Exception as e:
            self.raised(n, "join", e)
            return False
        self.write("joined", n)
        return True

    def _claim(self, own: Party, n: str) -> None:
        """Until it is time to leave: never before all is over, once it is calm."""
        end = time.monotonic() + self.rng.uniform(*_STAY)
        while not self.resting and (self.context.calm.is_set() or time.monotonic() < end):
            t = time.monotonic()
            self.write("claim", n, t=t, held=own.is_member())
            gevent.sleep(_PERIOD)

    def _leave(self, own: Party, n: str) -> None:
        began = time.monotonic()
        try:
            own.leave()
        except self.context.library.failed:
            pass  # what is left of it at the end is found then
        except Exception as e:
            self.raised(n, "leave", e)
        self.write("departed", n, t=began)

    def _look(self, own: Party) -> None:
        while not self.resting:
            n = self.attempt()
            try:
                seen = own.seen()
            except self.context.library.failed:
                pass
            except Exception as e:
                self.raised(n, "seen", e)
            else:
                self.write("view", n, members=seen)
            gevent.sleep(_PERIOD)


class _Sepelib:
    """What it sees it is told by its view, or has asked for, in turn."""

    def __init__(self, client: Any, identifier: str) -> None:
        from sepelib.zookeeper import Party

        self._party = Party(client, _PATH, identifier)
        self._view = self._party.watch()
        self._looks = 0

    def join(self) -> None:
        self._party.join()

    def is_member(self) -> bool:
        return self._party.is_member

    def seen(self) -> list[str]:
        self._looks += 1
        asked = self._looks % 5 == 0
        members = self._party.members() if asked else self._view.members
        return [member.identifier for member in members]

    def leave(self) -> None:
        self._party.leave()

    def stop(self) -> None:
        self._view.stop()


class _Kazoo:
    def __init__(self, client: Any, identifier: str) -> None:
        self._party = client.Party(_PATH, identifier)

    def join(self) -> None:
        self._party.join()

    def is_member(self) -> bool:
        return bool(self._party.participating)

    def seen(self) -> list[str]:
        return list(self._party)

    def leave(self) -> None:
        self._party.leave()

    def stop(self) -> None:
        pass
