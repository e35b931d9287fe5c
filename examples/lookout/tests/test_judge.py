"""The rules that turn probes into outages, without a clock or a socket."""

import random
from itertools import product

import pytest

from lookout.judge import Rules, Standing, State, are_failing, are_well, together


def states(probes: str, rules: Rules) -> list[str]:
    """The state after each probe; `+` is a good one."""
    standing, seen = Standing(), []
    for probe in probes:
        standing = standing.after(probe == "+", rules)
        seen.append(standing.state.value)
    return seen


def test_an_outage_needs_as_many_failures_in_a_row_as_confirm_says() -> None:
    assert states("+--+---", Rules(confirm=3)) == [
        *("up", "suspect", "suspect", "up", "suspect", "suspect", "down")
    ]


def test_an_outage_ends_after_as_many_good_probes_in_a_row_as_recover_says() -> None:
    assert states("--+-+++", Rules(confirm=2, recover=3)) == [
        *("suspect", "down", "recovering", "down", "recovering", "recovering", "up")
    ]


def test_with_one_to_confirm_and_one_to_recover_each_probe_decides() -> None:
    assert states("-+-", Rules(confirm=1, recover=1)) == ["down", "up", "down"]


def test_a_first_good_probe_means_up_without_any_recovery() -> None:
    assert states("+", Rules(recover=5)) == ["up"]


def test_rules_that_became_stricter_count_what_they_have_already_seen() -> None:
    standing = Standing(State.SUSPECT, 1).after(False, Rules(confirm=3))

    assert standing == Standing(State.SUSPECT, 2)
    assert standing.after(False, Rules(confirm=3)).state is State.DOWN


@pytest.mark.parametrize("rules", [Rules(1, 1), Rules(2, 2), Rules(3, 2), Rules(1, 4)], ids=str)
def test_every_outage_begins_and_ends_by_the_rules_whatever_the_probes(rules: Rules) -> None:
    for probes in product("+-", repeat=9):
        outage, run = False, ""
        for n, state in enumerate(states("".join(probes), rules)):
            run = run + probes[n] if run[-1:] == probes[n] else probes[n]
            outage = run != "+" * rules.recover if outage else run == "-" * rules.confirm
            assert State(state).is_outage is outage, f"{''.join(probes)} at {n}"


# Several replicas


def standing(probes: str, rules: Rules) -> Standing:
    found = Standing()
    for probe in probes:
        found = found.after(probe == "+", rules)
    return found


def verdict(*seen: str, rules: Rules | None = None) -> tuple[bool, bool]:
    """Whether replicas that have seen these find an outage, and whether they find it over."""
    rules = rules or Rules(2, 2)
    standings = [standing(each, rules) for each in seen]
    return are_failing(standings, rules), are_well(standings, rules)


@pytest.mark.parametrize(
    ("seen", "failing", "well"),
    [
        *((["--"], True, False), (["-"], False, False), (["++"], False, True)),
        (["--", "--"], True, False),
        (["--", "+-"], False, False),  # half, and not for long
        (["---", "++"], False, False),
        (["----", "++"], True, False),  # half, for twice as long
        (["--++", "--++"], False, True),
        (["----", "--++"], True, False),
        (["--++", "--+"], False, False),  # half have seen it recover
        (["--", "--", "++"], True, False),
        (["------", "++", "++"], False, True),  # one of three is not asked
        (["----", "----", "++", "++"], True, False),
        (["---", "--", "++", "++"], False, False),
        ([], False, False),
    ],
    ids=str,
)
def test_most_replicas_decide_and_half_of_them_later(
    seen: list[str], failing: bool, well: bool
) -> None:
    assert verdict(*seen) == (failing, well)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_all_see_is_an_outage_after_confirm_failures_and_over_after_recover(
    number: int,
) -> None:
    rules = Rules(3, 2)
    assert verdict(*["+--"] * number, rules=rules) == (False, False)
    assert verdict(*["+---"] * number, rules=rules) == (True, False)
    assert verdict(*["+---+"] * number, rules=rules) == (False, False)
    assert verdict(*["+---++"] * number, rules=rules) == (False, True)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_nothing_is_failing_and_well_at_once_nor_unlike_what_is_shown(number: int) -> None:
    rng, rules = random.Random(number), Rules(2, 2)
    found = set()
    for _ in range(3000):
        seen = ["".join(rng.choices("+-", (1, 1), k=rng.randrange(1, 7))) for _ in range(number)]
        failing, well = verdict(*seen)
        shown = together([standing(each, rules) for each in seen], rules)
        assert not (failing and well), seen
        assert (shown is State.DOWN) is failing, seen
        found.add((failing, well))
    assert found == {(True, False), (False, True), (False, False)}


def test_a_replica_that_fails_now_and_then_alone_opens_nothing_and_closes_nothing_twice() -> None:
    rules, changes, is_open = Rules(2, 2), 0, False
    here = standing("", rules)
    there = standing("++", rules)
    for probe in "--+" * 30:  # it stands at DOWN again and again
        here = here.after(probe == "+", rules)
        there = there.after(True, rules)
        if are_failing([here, there], rules):
            changes, is_open = changes + (not is_open), True
        elif are_well([here, there], rules):
            changes, is_open = changes + is_open, False
    assert (changes, is_open) == (0, False)


@pytest.mark.parametrize("probes", ["+", "-", "--", "--+", "--++"])
def test_a_single_replica_is_shown_as_it_stands(probes: str) -> None:
    alone = standing(probes, Rules(2, 2))
    assert together([alone], Rules(2, 2)) is alone.state
    assert together([], Rules(2, 2)) is State.UNKNOWN
