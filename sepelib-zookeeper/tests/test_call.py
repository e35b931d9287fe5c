"""The requests of one call of a recipe."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from kazoo.exceptions import (
    BadVersionError,
    NoNodeError,
    SessionExpiredError,
    SessionMovedError,
)

from sepelib.util.deadline import deadline
from sepelib.zookeeper import (
    Client,
    Interrupted,
    SessionState,
    ZookeeperError,
    ZookeeperMisused,
    ZookeeperTimeout,
)
from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._wait import Busy, TimeIsUp
from sepelib.zookeeper.transaction import TransactionRefused

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
    # More than the sockets on the way take: what comes behind stays here.
    plugs = [client.set_async("/", bytes(900_000)) for _ in range(30)]
    assert not plugs[-1].left and client.session.state is SessionState.CONNECTED
    with Call(client, "/x", "gate", 0.05) as call, pytest.raises(TimeIsUp):
        call.write(lambda: client.create_async("/x"))
    assert not call.unanswered
    killed = gevent.spawn(write, Call(client, "/y", "gate"), lambda: client.create_async("/y"))
    gevent.sleep(0.02)
    killed.kill()
    proxy.heal()
    with Call(client, "/x", "gate", 10.0) as call:
        assert call.read(lambda: client.exists_async("/x")) is None
        assert call.read(lambda: client.exists_async("/y")) is None


def write(call: Call, ask: Any) -> None:
    with call:
        call.write(ask)


@pytest.mark.parametrize("end", ["timeout", "kill", "lost"])
def test_a_call_knows_of_a_write_without_an_answer(client: Client, proxy: Any, end: str) -> None:
    call = Call(client, "/x", "gate", 0.2 if end == "timeout" else 10.0)
    assert not call.unanswered
    with proxy.lose_answer_to("create", then="cut" if end == "lost" else "hold") as loss:
        writing = gevent.spawn(write, call, lambda: client.create_async("/x"))
        loss.wait()
        if end == "kill":
            writing.kill()
        writing.join(5.0)
    proxy.heal()  # for the client's end
    assert call.unanswered
    kind = {"timeout": TimeIsUp, "kill": None, "lost": Unanswered}[end]
    assert kind is None or isinstance(writing.exception, kind)


def test_a_refused_write_is_answered(client: Client) -> None:
    with Call(client, "/x", "gate", 10.0) as call:
        with pytest.raises(NoNodeError):
            call.write(lambda: client.delete_async("/x"))
        assert not call.unanswered


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


def test_a_listing_is_watched_with_its_stat(client: Client) -> None:
    client.create("/x")
    with Call(client, "/x", "gate", 5.0) as call, call.watch("/x", "listing") as seen:
        children, stat = seen.value
        assert children == [] and stat.cversion == 0
        client.create("/x/a")
        assert call.until_fired(seen)


def test_a_refused_watch_costs_no_second_request(client: Client, proxy: Any) -> None:
    before = proxy.counts()["remove_watches"]
    with Call(client, "/x", "gate", 5.0) as call, pytest.raises(NoNodeError):
        call.watch("/x", "children")
    client.sync("/")
    assert proxy.counts()["remove_watches"] == before


def test_a_watch_whose_answer_comes_too_late_is_removed(zookeeper: Any, proxy: Any) -> None:
    with Client(proxy.hosts, timeout=4.0, request_timeout=0.1) as client:
        proxy.hold_replies()
        healing = gevent.spawn_later(0.25, proxy.resume)
        with Call(client, "/x", "gate", 5.0) as call, call.watch("/x", "exists") as seen:
            assert seen.value is None
        healing.join()
        client.sync("/")
        assert watches(zookeeper) == 0


def test_without_blocking_no_change_is_waited_for(client: Client) -> None:
    for options in ({"blocking": False}, {"timeout": 0}):
        with (
            pytest.raises(Busy),
            Call(client, "/x", "gate", **options) as call,  # type: ignore[arg-type]
            call.watch("/x", "exists") as seen,
        ):
            call.until_fired(seen)


def test_a_call_for_an_answer_ends_as_a_timeout(zookeeper: Any, proxy: Any) -> None:
    with Client(proxy.hosts, timeout=4.0, request_timeout=0.2) as client:
        with proxy.lose_answer_to("create", then="hold"):
            with (
                pytest.raises(ZookeeperTimeout, match=r"^gate /x: no answer in .* s; what") as e,
                Call.for_answer(client, "/x", "gate") as call,
            ):
                retried(call, lambda: client.create_async("/x"))
            assert e.value.maybe_executed
        with (
            pytest.raises(ZookeeperTimeout) as e,
            deadline(0.05),
            Call.for_answer(client, "/x", "gate") as call,
        ):
            call.read(lambda: client.exists_async("/x"))
        assert not e.value.maybe_executed
        proxy.refuse()
        proxy.cut()
        client.session.wait(client.session.state.SUSPENDED, 5.0)
        with (
            pytest.raises(ZookeeperTimeout, match="it would have to wait"),
            Call.for_answer(client, "/x", "gate", 0) as call,
        ):
            call.contact()


def retried(call: Call, ask: Any) -> None:
    while True:
        try:
            call.write(ask)
        except Unanswered:
            continue


@pytest.mark.parametrize("error", [SessionExpiredError, SessionMovedError])
def test_a_transaction_refused_for_its_session_is_for_the_next_one(
    client: Client, error: type[Exception]
) -> None:
    """It says nothing of what was asked for, and is the end of the session or connection."""
    answer = client.handler.async_result()
    answer.set_exception(TransactionRefused([error()], ["create /x"]))
    with Call(client, "/x", "gate", 5.0) as call:
        with pytest.raises(Unanswered):
            call.write(lambda: answer)
        assert not call.unanswered


def test_a_deadline_that_is_over_before_the_call_is_a_timeout(client: Client) -> None:
    with deadline(0.001):
        gevent.sleep(0.01)
        with pytest.raises(ZookeeperTimeout, match=r"^gate /x: ") as caught:
            Call.for_answer(client, "/x", "gate", 5.0)
    assert not caught.value.maybe_executed


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
