"""Time several ways to do one thing, in turns, so that a noisy machine treats them alike.

Only ratios of one run mean anything: the speed of a shared machine drifts by a third between
runs, and within one. So each round times every variant once, in an order shuffled anew, and what
is reported is the median of the rounds' ratios. The garbage collector stays on.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

Variant = Callable[[], object]


@dataclass(frozen=True)
class Goal:
    """Our time divided by the peer's is to be at most this."""

    peer: str
    at_most: float

    def __str__(self) -> str:
        if self.at_most < 1:
            return f"at least {1 / self.at_most:.3g}x faster than {self.peer}"
        return f"at most {self.at_most:.3g}x {self.peer}"


@dataclass(frozen=True)
class Comparison:
    """One thing, done by us and by others; *ours* and each peer do it once per call.

    clocked=False: a call is not timed, but returns the seconds to compare, such as a percentile of
    many latencies, or a number of *unit*; it is made once a round.
    """

    name: str
    ours: Variant
    peers: Mapping[str, Variant]
    goals: Sequence[Goal] = ()
    clocked: bool = True
    unit: str = ""

    def shown(self, figure: float) -> str:
        return f"{figure:.3g} {self.unit}" if self.unit else human(figure)


@dataclass(frozen=True)
class Result:
    """What one call took, round by round, of each variant; ours is called "sepelib"."""

    comparison: Comparison
    rounds: Mapping[str, Sequence[float]] = field(repr=False)

    def seconds(self, variant: str) -> float:
        return statistics.median(self.rounds[variant])

    def ratio(self, peer: str) -> float:
        """Ours divided by the peer's, the median over the rounds."""
        pairs = zip(self.rounds["sepelib"], self.rounds[peer], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    @property
    def missed(self) -> list[Goal]:
        return [g for g in self.comparison.goals if self.ratio(g.peer) > g.at_most]

    def report(self) -> str:
        shown = self.comparison.shown
        lines = [self.comparison.name, f"  {'sepelib':<22}{shown(self.seconds('sepelib')):>10}"]
        goals = {goal.peer: goal for goal in self.comparison.goals}
        for peer in self.comparison.peers:
            line = f"  {peer:<22}{shown(self.seconds(peer)):>10}"
            line += f"   sepelib / it {self.ratio(peer):8.3f}"
            if peer in goals:
                verdict = "MISSED" if goals[peer] in self.missed else "reached"
                line += f"   goal: {goals[peer]}, {verdict}"
            lines.append(line)
        return "\n".join(lines)


def human(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def measure(comparison: Comparison, *, rounds: int, sample: float) -> Result:
    """*sample*: seconds that one timing of one variant should take."""
    variants = {"sepelib": comparison.ours, **comparison.peers}
    take = _timed(variants, sample) if comparison.clocked else _returned(variants)
    taken: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            taken[name].append(take(name))
    return Result(comparison, taken)


def _timed(variants: Mapping[str, Variant], sample: float) -> Callable[[str], float]:
    calls = {name: _calls_in(sample, variant) for name, variant in variants.items()}
    return lambda name: _time(variants[name], calls[name]) / calls[name]


def _returned(variants: Mapping[str, Variant]) -> Callable[[str], float]:
    def take(name: str) -> float:
        seconds = variants[name]()
        assert isinstance(seconds, float)
        return seconds

    return take


def _time(variant: Variant, calls: int) -> float:
    start = time.perf_counter()
    for _ in repeat(None, calls):
        variant()
    return time.perf_counter() - start


def _calls_in(seconds: float, variant: Variant) -> int:
    variant()  # the first call connects, fills caches and is like no other
    calls = 1
    while (taken := _time(variant, calls)) < seconds / 10:
        calls *= 4
    return max(1, round(calls * seconds / taken))


def interpreter(code: str) -> Variant:
    """A fresh Python process that runs *code*: for what happens once, such as an import."""
    command = [sys.executable, "-c", code]
    return lambda: subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
