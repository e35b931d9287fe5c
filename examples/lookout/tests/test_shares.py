"""Which replicas probe a target, with names of all kinds."""

import random
from itertools import combinations

import pytest

from lookout.shares import sharers

TARGETS = [f"target-{n}" for n in range(600)]


def names(seed: int, number: int) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.choice(['r', 'web', 'host-'])}{rng.getrandbits(24):x}" for _ in range(number)]


@pytest.mark.parametrize("quorum", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_each_target_has_as_many_different_replicas_as_wanted_or_all_there_are(
    number: int, quorum: int
) -> None:
    replicas = names(1, number)
    for target in TARGETS:
        found = sharers(target, replicas, quorum)
        assert len(set(found)) == len(found) == min(quorum, number)
        assert set(found) <= set(replicas)


def test_neither_the_order_of_the_names_nor_one_that_comes_twice_matters() -> None:
    replicas = names(2, 5)
    for target in TARGETS:
        found = sharers(target, replicas, 2)
        assert found == sharers(target, [*reversed(replicas), replicas[0]], 2)


def test_the_shares_are_the_same_in_every_process_and_version() -> None:
    found = {target: sharers(target, ["r1", "r2", "r3"], 2) for target in ("shop", "blog")}

    assert found == {"shop": ("r3", "r1"), "blog": ("r1", "r3")}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("number", "quorum"), [(2, 1), (3, 2), (5, 2), (5, 3)])
def test_no_replica_has_much_more_than_its_part(number: int, quorum: int, seed: int) -> None:
    replicas = names(seed, number)
    part = len(TARGETS) * quorum / number
    for replica in replicas:
        has = sum(replica in sharers(target, replicas, quorum) for target in TARGETS)
        assert 0.75 * part < has < 1.25 * part


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_one_that_goes_moves_its_own_targets_only_and_each_by_one_place(quorum: int) -> None:
    replicas = names(3, 5)
    for gone in replicas:
        rest = [replica for replica in replicas if replica != gone]
        moved = 0
        for target in TARGETS:
            before, after = (sharers(target, those, quorum) for those in (replicas, rest))
            if gone in before:
                moved += 1
                assert [one for one in before if one != gone] == list(after[:-1])
                assert after[-1] not in before
            else:
                assert after == before
        assert moved > 0


def test_one_that_comes_takes_targets_for_itself_and_moves_none_between_others() -> None:
    replicas = names(4, 4)
    for target in TARGETS:
        before, after = sharers(target, replicas, 2), sharers(target, [*replicas, "new"], 2)
        assert set(after) <= {*before, "new"}


def test_two_replicas_do_not_always_share_the_same_targets() -> None:
    replicas = names(5, 4)
    pairs = {frozenset(sharers(target, replicas, 2)) for target in TARGETS}

    assert pairs == {frozenset(pair) for pair in combinations(replicas, 2)}
