"""The rules that turn probes into outages, without a clock or a socket."""

from itertools import product

import pytest

from lookout.judge import Rules, Standing, State


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
