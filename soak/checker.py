"""The judge: a history in, figures and violations out. Pure, and the same for every library.

Safety, exact whatever the machine does, since a claim's time is taken before it is asked whether
the lock is held, and a grant's after it was given. One thing is excused: a session that the server
ended by itself, for which no lease can be prepared. Until its owner is told, or its lease is over,
only the token protects; how late it was is a figure.

    stale       a claim with an older token after a newer one was granted to another worker
    order       a first claim whose token is not above those of all first claims before it;
                counter: a value that was found after a higher one had been told
    reused      one token granted twice
    no token    granted without a node that could be found
    overlap     a singleton's target ran on while a newer one ran elsewhere
    refused     a claim that a store which remembers the highest token would have refused
    fence       a fenced transaction that went through after one with a newer token
    kept        held after the acquire had been struck
    over        semaphore: more at once than any limit that may have been in force
    unheard     condition: an acknowledged notify that left somebody asleep and woke nobody
    asleep      condition: somebody who waits although all were notified at the end
    behind      condition: a listener that has not seen the last change
    lost        queue: an item put and never got, or got and never done;
                counter: an acknowledged add that is not in the value
    done twice  queue: two acknowledged acks of one item
    again       queue: an item got after it was done
    doubled     queue: an item that is there twice
    shared      queue: an item that two held at once: redelivered without a loss
    invented    queue: an item that nobody has put
    sum         counter: the value grew by more than all adds that may have been done
    view        party: a worker that does not see exactly who is there after the heal
    absent      party: a member by its own belief, long unknown to the server

Liveness, with `Limits`:

    gap         nobody was granted it for too long
    not alive   a worker was not granted it in time after the last fault
    away        not connected for too long although nothing was wrong with it or a server
    late        a call with a timeout, or a release(), took longer than it may
    hung        a worker did not come to rest
    orphan      nodes left although nobody wants anything
    janitor     deletes outstanding although nothing is wrong any more
    raised      an error that nobody provided for
    died        a worker's process ended by itself
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from soak.checks import condition, counter, exclusion, party, queue, semaphore
from soak.checks.case import Case, Limits, Verdict, Violation
from soak.checks.general import general, liveness
from soak.history import Event
from soak.recipes import RECIPES

__all__ = ["Limits", "Report", "Violation", "check"]

_JUDGES: Mapping[str, Callable[[Case, str], Verdict]] = {
    "lock": exclusion.judge,
    "singleton": exclusion.judge,
    "semaphore": semaphore.judge,
    "condition": condition.judge,
    "queue": queue.judge,
    "counter": counter.judge,
    "party": party.judge,
}


class Report(NamedTuple):
    faults: Mapping[str, int]
    seconds: float
    figures: Mapping[str, Mapping[str, float]]
    """Of each recipe, by name; times in seconds, -1 for never."""
    violations: Sequence[Violation]

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many violations of each kind."""
        return Counter(violation.kind for violation in self.violations)


def check(history: Iterable[Event], limits: Limits | None = None) -> Report:
    """Judge *history*, in any order."""
    case = Case(history, limits or Limits())
    violations = [*general(case)]
    figures = {}
    for recipe in RECIPES:
        if recipe in case.by_recipe:
            found, own = _JUDGES[recipe](case, recipe)
            alive, times = liveness(case, recipe)
            violations += [v._replace(recipe=recipe) for v in (*found, *alive)]
            figures[recipe] = {**own, **times}
    violations.sort(key=lambda violation: violation.t)
    return Report(case.count_faults(), case.healed - case.began, figures, violations)
