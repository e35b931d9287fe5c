"""What parties and elections must get right: one case for each known way of getting it wrong.

They run against kazoo's own recipes too, where they fail: `./dev peers`.
"""

from typing import Any

import gevent
import pytest

SESSION = 2.0  # as in conftest
PARTY = "/app/replicas"
ELECTION = "/app/leader"


def party_of(flavour: Any, client: Any, identifier: str) -> Any:
    if flavour.name == "kazoo":
        return client.Party(PARTY, identifier)
    from sepelib.zookeeper import Party

    return Party(client, PARTY, identifier)


def election_of(flavour: Any, client: Any) -> Any:
    if flavour.name == "kazoo":
        return client.Election(ELECTION)
    from sepelib.zookeeper import Election

    return Election(client, ELECTION)


@pytest.mark.peer("kazoo", "PARTY")
def test_a_member_whose_session_has_expired_is_one_again(zookeeper: Any, flavour: Any) -> None:
    client = flavour.client(zookeeper.hosts)
    party = party_of(flavour, client, "web1")
    onlooker = party_of(flavour, flavour.client(zookeeper.hosts), "onlooker")
    party.join()
    assert list(onlooker) == ["web1"]

    zookeeper.expire(client)

    flavour.eventually(lambda: list(onlooker) == ["web1"], SESSION, "it is a member no more")
    party.leave()


@pytest.mark.peer("kazoo", "PARTY-ADOPT")
def test_a_member_relies_on_no_node_of_a_session_that_ends(
    proxy: Any, observer: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=10.0)
    party = party_of(flavour, client, "web1")
    party.join()
    flavour.cut_off(client, proxy)
    client.stop()  # of which the server does not hear
    proxy.heal()
    client.start(timeout=10.0)

    party.join()

    [name] = observer.get_children(PARTY)
    owner = observer.exists(f"{PARTY}/{name}").ephemeralOwner
    assert owner == client.client_id[0], "it is the node of a session that is about to end"
    party.leave()


@pytest.mark.peer("kazoo", "E1")
def test_a_leader_cut_off_does_not_lead_beside_another(
    zookeeper: Any, proxy: Any, flavour: Any
) -> None:
    first = election_of(flavour, flavour.client(proxy.hosts, timeout=1.0))
    second = election_of(flavour, flavour.client(zookeeper.hosts))
    leading = set()

    def lead(name: str) -> None:
        leading.add(name)
        try:
            if name == "first":
                gevent.sleep(60.0)
            assert leading == {name}, "there are two leaders"
        finally:
            leading.discard(name)

    flavour.spawn(first.run, lead, "first")
    flavour.eventually(lambda: leading, 5.0, "nobody leads")
    proxy.hold()
    flavour.within(5 * SESSION, second.run, lead, "second", otherwise="nobody took over")
    proxy.heal()


@pytest.mark.peer("kazoo", "E2")
def test_a_cancel_reaches_a_leader(zookeeper: Any, flavour: Any) -> None:
    election = election_of(flavour, flavour.client(zookeeper.hosts))
    began = gevent.event.Event()

    def lead() -> None:
        began.set()
        gevent.sleep(60.0)

    run = flavour.spawn(election.run, lead)
    assert began.wait(5.0)

    election.cancel()

    with pytest.raises(Exception, match="interrupted"):
        flavour.result(run, 2 * SESSION, "it leads on")


@pytest.mark.peer("kazoo", "E2")
def test_a_run_that_was_cancelled_is_not_taken_for_one_that_led(
    zookeeper: Any, flavour: Any
) -> None:
    holder = flavour.lock(flavour.client(zookeeper.hosts), ELECTION)
    assert flavour.acquire(holder, 5.0)
    election = election_of(flavour, flavour.client(zookeeper.hosts))
    run = flavour.spawn(election.run, lambda: None)
    flavour.eventually(lambda: len(holder.contenders()) == 2, 5.0, "it does not stand")

    election.cancel()

    run.join(5.0)
    assert run.value[1] is not None, "it returned, as it does after it has led"
    holder.release()


@pytest.mark.peer("kazoo", "E2")
def test_the_error_of_the_function_comes_though_nothing_can_be_released(
    proxy: Any, flavour: Any
) -> None:
    client = flavour.client(proxy.hosts, timeout=4.0)
    election = election_of(flavour, client)

    def fail() -> None:
        flavour.cut_off(client, proxy)
        raise ValueError("the function's own")

    with pytest.raises(ValueError, match="own"):
        flavour.within(1.5, election.run, fail, otherwise="it waits for the release")
    proxy.heal()
