"""The requests of one call of a recipe."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from kazoo.exceptions import BadVersionError, NoNodeError

from sepelib.zookeeper import Client, Interrupted, ZookeeperError, ZookeeperMisused
from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._wait import Busy, TimeIsUp

SESSION = 2.0


@pytest.fixture
def client(proxy: Any) -> Iterator[Client]:
    with Client(proxy.hosts, timeout=SESSION) as client:
        yield client


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


def test_a_read_is_repeated_over_a_lost_answer(client: Client, proxy: Any) -> None:
    proxy.lose_answer_to("exists")
    with Call(client, "/x", "gate", 10.0) as call:
        assert call.read(lambda: client.exists_async("/x")) is None


def test_a_write_whose_answer_is_lost_is_unknown(client: Client, proxy: Any) -> None:
    proxy.lose_answer_to("create")
    with Call(client, "/x", "gate", 10.0) as call:
        with pytest.raises(Unanswered):
            call.write(lambda: client.create_async("/x"))
        assert call.read(lambda: client.exists_async("/x")) is not None


def test_a_transaction_whose_answer_is_lost_is_unknown(client: Client, proxy: Any) -> None:
    proxy.lose_answer_to("multi")
    transaction = client.transaction()
    transaction.create("/x")
    with Call(client, "/x", "gate", 10.0) as call, pytest.raises(Unanswered):
        call.write(transaction.commit_async)


def test_a_write_that_has_no_connection_waits_for_one(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    client.session.wait(client.session.state.SUSPENDED, 5.0)
    healing = gevent.spawn_later(0.2, proxy.heal)
    with Call(client, "/x", "gate", 10.0) as call:
        assert call.write(lambda: client.create_async("/x")) == "/x"
    healing.join()


def test_a_write_that_is_given_up_unsent_is_not_sent_later(client: Client, proxy: Any) -> None:
    proxy.hold()
    with Call(client, "/x", "gate", 0.1) as call, pytest.raises(TimeIsUp):
        call.write(lambda: client.create_async("/x"))
    call = Call(client, "/y", "gate", 10.0)
    client.session.wait(client.session.state.SUSPENDED, 5.0)
    late = client.create_async("/y")
    late.withdraw()
    proxy.heal()
    with call:
        call.contact()
        assert call.read(lambda: client.exists_async("/y")) is None


def test_a_watch_fires_with_the_change_and_with_the_connection(client: Client, proxy: Any) -> None:
    client.create("/x")
    with Call(client, "/x", "gate", 10.0) as call:
        with call.watch("/x") as seen:
            assert seen.value[0] == b""
            assert not call.until_fired(seen, timeout=0.05)
            client.set("/x", b"new")
            assert call.until_fired(seen) and seen.fired
        with call.watch("/x") as seen:
            proxy.cut()
            assert call.until_fired(seen)
        with call.watch("/x") as seen:
            assert seen.value[0] == b"new"


def test_no_watch_stays_when_the_call_is_given_up(client: Client, zookeeper: Any) -> None:
    before = watches(zookeeper)
    for ask in ("exists", "children"):
        path = "/x" if ask == "exists" else "/"
        with (
            pytest.raises(TimeIsUp),
            Call(client, path, "gate", 0.05) as call,
            call.watch(path, ask) as seen,
        ):
            call.until_fired(seen)
    client.sync("/")
    assert watches(zookeeper) == before


def test_a_missing_node_is_for_the_recipe_and_has_no_watch(client: Client, zookeeper: Any) -> None:
    before = watches(zookeeper)
    with Call(client, "/x", "gate", 5.0) as call, pytest.raises(NoNodeError):
        call.watch("/x", "get")
    assert watches(zookeeper) == before


def test_an_error_of_kazoo_that_nobody_took_is_named(client: Client) -> None:
    client.create("/x")
    with (
        pytest.raises(ZookeeperError, match=r"^gate /x: BadVersionError") as caught,
        Call(client, "/x", "gate", 5.0) as call,
    ):
        call.write(lambda: client.set_async("/x", b"", version=7))
    assert isinstance(caught.value.__cause__, BadVersionError)


def test_an_interrupt_names_the_recipe(client: Client) -> None:
    call = Call(client, "/x", "gate", 5.0)
    call.wait.interrupt()
    with pytest.raises(Interrupted, match=r"^gate /x: "), call:
        call.read(lambda: client.exists_async("/x"))


def test_without_blocking_no_connection_is_waited_for(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    client.session.wait(client.session.state.SUSPENDED, 5.0)
    with Call(client, "/x", "gate", blocking=False) as call, pytest.raises(Busy):
        call.contact()


def test_a_stopped_client_is_said_at_once(client: Client) -> None:
    with Call(client, "/x", "gate", 5.0) as call, call.watch("/x", "exists") as seen:
        gevent.spawn(client.stop)
        with pytest.raises(ZookeeperMisused, match="stopped"):
            call.until_fired(seen)
