"""What lookout counts, in the registry that /metrics shows; the page and `lookout dev` read it.

| metric | labels | |
|---|---|---|
| `lookout_probes` | target, result | ok, failed |
| `lookout_probe_seconds` | target | of the last try, until the end of the answer or the failure |
| `lookout_probe_faults` | | probes that failed by a mistake of ours |
| `lookout_incidents` | event | opened, closed |
| `lookout_mails` | result | sent, given_up |
| `lookout_mails_waiting` | | |
| `lookout_share_targets` | | that this replica probes |
| `lookout_replicas` | | that it knows, itself included |
| `lookout_degraded` | | 1 while ZooKeeper or MongoDB is away |
| `lookout_deposed` | | terms in which a later judge had written already |
| `lookout_reloads` | result | taken, refused |
| `lookout_targets` | state | up, down, ... |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from lookout.judge import State
from lookout.records import Incident, Result
from sepelib.metrics import Counter, Histogram, Registry, gevent_hub, process
from sepelib.util import instrument

__all__ = ["Counters", "count", "measured"]

FORGOTTEN_AFTER = 3600.0  # seconds; a target that is asked less often is shown after each probe


@contextmanager
def measured(service: str) -> Iterator[Registry]:
    """A registry to which all parts of the process report in the block, each series of *service*.

    To be entered before anything is measured.
    """
    registry = Registry(labels={"service": service})
    with ExitStack() as undo:
        undo.callback(instrument.install, instrument.install(registry))
        undo.callback(process.register(registry))
        undo.callback(gevent_hub.register(registry))
        yield registry


class _Probes(NamedTuple):
    """The series of one target."""

    ok: Counter
    failed: Counter
    seconds: Histogram


class Counters:
    """The counters of lookout itself; those of a target are dropped once nobody watches it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._probes = registry.counter(
            "lookout_probes", "Probes.", ("target", "result"), ttl=FORGOTTEN_AFTER
        )
        self._seconds = registry.histogram(
            "lookout_probe_seconds",
            "The last try of a probe, until the end of the answer or the failure.",
            ("target",),
            ttl=FORGOTTEN_AFTER,
        )
        self.faults = registry.counter("lookout_probe_faults", "Probes that lookout failed to do.")
        incidents = registry.counter("lookout_incidents", "Incidents.", ("event",))
        self.opened, self.closed = incidents.labels("opened"), incidents.labels("closed")
        mails = registry.counter("lookout_mails", "Mails.", ("result",))
        self.sent, self.given_up = mails.labels("sent"), mails.labels("given_up")
        reloads = registry.counter("lookout_reloads", "Configurations read again.", ("result",))
        self.taken, self.refused = reloads.labels("taken"), reloads.labels("refused")
        self.deposed = registry.counter(
            "lookout_deposed", "Terms whose writes were refused since a later judge had written."
        )
        self._targets: dict[str, _Probes] = {}  # held: else the registry forgets them

    @property
    def probes(self) -> int:
        """Of all targets that are watched."""
        return sum(count(each.ok) + count(each.failed) for each in self._targets.values())

    def probed(self, target: str, result: Result) -> None:
        if target not in self._targets:
            self._targets[target] = _Probes(
                self._probes.labels(target, "ok"),
                self._probes.labels(target, "failed"),
                self._seconds.labels(target),
            )
        probes = self._targets[target]
        (probes.ok if result.ok else probes.failed).inc()
        probes.seconds.observe(result.latency)

    def watch_only(self, targets: Collection[str]) -> None:
        """Let go of the series of all other targets: the registry drops them in an hour."""
        self._targets = {name: kept for name, kept in self._targets.items() if name in targets}

    def told(self, incident: Incident) -> None:
        """An incident has opened or closed."""
        (self.opened if incident.is_open else self.closed).inc()

    def ask(
        self,
        states: Callable[[], Sequence[State]],
        waiting: Callable[[], int],
        degraded: Callable[[], bool],
        share: Callable[[], int],
        replicas: Callable[[], int],
    ) -> Callable[[], None]:
        """Ask these at each dump: the states of all targets, how many mails wait, and so on.

        The result ends that.
        """
        undo = ExitStack()
        targets = self._registry.gauge("lookout_targets", "Targets that are watched.", ("state",))
        for state in State:
            number = partial(_number, states, state)
            undo.callback(targets.labels(state.value).bind(number))
        mails = self._registry.gauge("lookout_mails_waiting", "Mails in the outbox.")
        undo.callback(mails.bind(waiting))
        away = self._registry.gauge("lookout_degraded", "Whether ZooKeeper or MongoDB is away.")
        undo.callback(away.bind(degraded))
        mine = self._registry.gauge("lookout_share_targets", "Targets that this replica probes.")
        undo.callback(mine.bind(share))
        known = self._registry.gauge("lookout_replicas", "Replicas that share the targets.")
        undo.callback(known.bind(replicas))
        return undo.close


def _number(states: Callable[[], Sequence[State]], state: State) -> int:
    return states().count(state)


def count(counter: Counter) -> int:
    """What *counter* says, as a whole number."""
    return int(counter.read())
