"""Which of several hosts the next connection goes to.

    UP ──third failure in a row──► EJECTED ──its time is over──► PROBED ──failure──► EJECTED, longer
     ▲                                │                             │
     └───────────connected────────────┴──────────connected──────────┘

Round robin over the hosts that are not ejected. One whose time is over comes back for one caller
first: the others go on around it until that one has connected. When none of them can be connected
to, or there is none, the one left out whose last failure is the longest ago is tried as well.
"""

from __future__ import annotations

import _thread
import enum
import itertools
import logging
import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepelib.rpc._connection import Connection

__all__ = ["Host", "HostState", "Hosts"]

_log = logging.getLogger(__name__)

EJECT_AFTER = 3  # failures to connect, in a row
FIRST_EJECTION = 1.0  # seconds, doubled by each further one
LONGEST_EJECTION = 30.0


class HostState(enum.Enum):
    UP = "up"
    EJECTED = "ejected"
    PROBED = "probed"


_MOVES = {
    HostState.UP: {HostState.EJECTED},
    HostState.EJECTED: {HostState.PROBED, HostState.UP},
    HostState.PROBED: {HostState.PROBED, HostState.EJECTED, HostState.UP},
}


class Host:
    """One host of a client, with its connections. *label* is as the caller wrote it.

    *target* is what the transport's connect function understands. The state and its numbers are
    changed by `Hosts`; the two collections are the pool's, which needs single calls of them only.
    """

    __slots__ = (
        "connects",
        "ejected_until",
        "ejections",
        "failed_at",
        "failures",
        "failures_in_a_row",
        "idle",
        "in_use",
        "label",
        "state",
        "target",
    )

    def __init__(self, label: str, target: Any) -> None:
        self.label = label
        self.target = target
        self.state = HostState.UP
        self.connects = 0
        self.failures = 0
        self.failures_in_a_row = 0
        self.ejections = 0  # in a row
        self.failed_at = -math.inf
        self.ejected_until = -math.inf
        self.idle: list[Connection] = []  # the last one used is the last
        self.in_use: set[Connection] = set()

    def _move(self, state: HostState) -> None:
        assert state in _MOVES[self.state], f"{self.label}: {self.state} to {state}"
        self.state = state


class Hosts:
    """The hosts of one client. *probe_time*: seconds that one caller has to bring a host back."""

    def __init__(
        self, hosts: Sequence[Host], *, probe_time: float, rng: random.Random | None = None
    ) -> None:
        self.all = tuple(hosts)
        self.only = self.all[0] if len(self.all) == 1 else None
        self._turns = itertools.count()
        self._lock = _thread.RLock()  # native under gevent too; nothing under it yields
        self._probe_time = probe_time
        self._rng = rng

    def candidates(self, now: float) -> Iterator[Host]:
        """Hosts for one attempt, one after the other while connecting fails. At least one."""
        # Turns are counted over those in rotation: else the one behind an ejected host would have
        # its turns as well.
        usable = [
            host for host in self.all if host.state is HostState.UP or now >= host.ejected_until
        ]
        first = next(self._turns) % (len(usable) or 1)
        rest = list(self.all)
        for host in usable[first:] + usable[:first]:
            if host.state is HostState.UP or self._probes(host, now):
                rest.remove(host)
                yield host
        if rest:
            yield min(rest, key=lambda host: host.failed_at)

    def start_anew(self) -> None:
        """In a forked child: another thread of the parent may have had the lock."""
        self._lock = _thread.RLock()

    def connected(self, host: Host) -> None:
        with self._lock:
            host.connects += 1
            host.failures_in_a_row = host.ejections = 0
            host.ejected_until = -math.inf
            is_back = host.state is not HostState.UP
            if is_back:
                host._move(HostState.UP)
        if is_back:
            _log.info("%s can be connected to again", host.label)

    def failed(self, host: Host, now: float) -> None:
        with self._lock:
            host.failures += 1
            host.failures_in_a_row += 1
            host.failed_at = now
            # One that is ejected already: of those who were on their way when others did that.
            is_ejected = host.state is HostState.PROBED or (
                host.state is HostState.UP and host.failures_in_a_row >= EJECT_AFTER
            )
            if is_ejected:
                seconds = self._eject(host, now)
        if is_ejected and self.only is None:
            _log.warning(
                "%s could not be connected to %d times in a row, not tried for %.1f s",
                host.label,
                host.failures_in_a_row,
                seconds,
            )

    def _probes(self, host: Host, now: float) -> bool:
        """Whether the caller is the one that brings *host* back, if it comes back."""
        with self._lock:
            if host.state is HostState.UP:
                return True
            if now < host.ejected_until:
                return False  # somebody else does by now
            host._move(HostState.PROBED)
            host.ejected_until = now + self._probe_time
            return True

    def _eject(self, host: Host, now: float) -> float:
        seconds = min(FIRST_EJECTION * 2.0 ** min(host.ejections, 10), LONGEST_EJECTION)
        # So that the clients which lost a host together do not come back to it together.
        seconds *= (self._rng or random).uniform(0.8, 1.2)
        host.ejections += 1
        host.ejected_until = now + seconds
        host._move(HostState.EJECTED)
        return seconds
