"""What a counter must get right under faults; each case fails on kazoo's own: `./dev peers`."""

import contextlib
from typing import Any

import pytest

PATH = "/hits"


def counter(flavour: Any, client: Any) -> Any:
    if flavour.name == "kazoo":
        return client.Counter(PATH)
    from sepelib.zookeeper import Counter

    return Counter(client, PATH)


@pytest.mark.peer("kazoo", "COUNTER")
def test_an_addition_whose_answer_is_lost_is_done_once(proxy: Any, flavour: Any) -> None:
    hits = counter(flavour, flavour.client(proxy.hosts))
    assert hits.value == 0

    def add() -> None:
        nonlocal hits
        if flavour.name == "kazoo":
            hits += 1
        else:
            hits.add(1)

    with proxy.lose_answer_to("set" if flavour.name == "kazoo" else "multi"):
        flavour.within(5.0, add, otherwise="it does not come back")

    assert hits.value == 1, "1 was added, and it is 2"


@pytest.mark.peer("kazoo", "COUNTER-PLUS")
def test_an_expression_writes_nothing(zookeeper: Any, flavour: Any) -> None:
    hits = counter(flavour, flavour.client(zookeeper.hosts))

    with contextlib.suppress(TypeError):  # which is the best that can be said of it
        hits + 5

    assert hits.value == 0, "it was an expression, and it has written"
