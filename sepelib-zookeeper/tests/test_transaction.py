"""Several operations of which all are done or none, and what a commit says of that."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
)
from kazoo.protocol.states import KeeperState

from sepelib.util.deadline import deadline
from sepelib.util.testing import FlakyProxy, check_error
from sepelib.zookeeper import Client, SessionState, TransactionError, ZookeeperTimeout
from sepelib.zookeeper.errors import ZookeeperMisused
from sepelib.zookeeper.testing import ZookeeperServer
from sepelib.zookeeper.transaction import TransactionRefused, TransactionUnknown

T = 2.0
MULTI = 14


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer(container_check=0.2) as server:
        yield server


@pytest.fixture
def client(server: ZookeeperServer) -> Iterator[Client]:
    with Client(server.hosts, timeout=T) as client:
        clear(client)
        yield client


@pytest.fixture
def proxy(server: ZookeeperServer) -> Iterator[FlakyProxy]:
    with FlakyProxy(*server.address) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: FlakyProxy) -> Iterator[Client]:
    """A client behind the proxy."""
    host, port = proxy.address
    with Client(f"{host}:{port}", timeout=T) as client:
        yield client


def clear(client: Client) -> None:
    for name in client.get_children("/"):
        if name != "zookeeper":
            client.delete(f"/{name}", recursive=True)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.005)


def has_op(op: int) -> Callable[[bytes], bool]:
    """Whether the frames of a connection that is set up have a request of this type."""

    def look(data: bytes) -> bool:
        while len(data) >= 12:
            if int.from_bytes(data[8:12], "big") == op:
                return True
            data = data[4 + int.from_bytes(data[:4], "big") :]
        return False

    return look


def test_the_results_are_those_of_the_operations_in_order(client: Client) -> None:
    client.create("/a", b"1")
    transaction = client.transaction()
    transaction.check("/a", 0)
    transaction.set_data("/a", b"2", 0)
    transaction.create("/b", b"b")
    transaction.create("/s-", sequence=True)
    transaction.create("/e", ephemeral=True)
    transaction.delete("/b")

    checked, stat, made, numbered, ephemeral, deleted = transaction.commit()

    assert (checked, made, ephemeral, deleted) == (True, "/b", "/e", True)
    assert stat.version == 1
    assert numbered.startswith("/s-00000")
    assert client.exists(ephemeral).ephemeralOwner == client.session.session_id
    assert transaction.committed
    assert client.get("/a")[0] == b"2"


def test_paths_are_those_below_the_chroot(server: ZookeeperServer, client: Client) -> None:
    client.create("/app")
    with Client(f"{server.hosts}/app", timeout=T) as rooted:
        transaction = rooted.transaction()
        transaction.create("/app")
        transaction.create("/app/x-", sequence=True)
        transaction.create("/app/c", container=True)

        made, numbered, container = transaction.commit()

    assert (made, container) == ("/app", "/app/c")
    assert client.exists(f"/app{numbered}") and client.exists("/app/app/c")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_container_may_stand_anywhere(client: Client, place: int) -> None:
    paths = ["/one", "/two", "/three"]
    transaction = client.transaction()
    for number, path in enumerate(paths):
        transaction.create(path, container=number == place)

    assert transaction.commit() == paths
    client.create(f"{paths[place]}/child")
    client.delete(f"{paths[place]}/child")
    wait_until(lambda: not client.exists(paths[place]))  # the server has removed the container
    assert len(client.get_children("/")) == 3  # the two others, and the server's own


def test_a_container_is_neither_ephemeral_nor_numbered(client: Client) -> None:
    with pytest.raises(ValueError, match="container"):
        client.transaction().create("/c", container=True, sequence=True)


def test_a_refusal_raises_and_says_which_operation_and_why(client: Client) -> None:
    client.create("/there")
    transaction = client.transaction()
    transaction.create("/new")
    transaction.create("/there")
    transaction.delete("/new")

    with pytest.raises(TransactionError) as caught:
        transaction.commit()

    refused = caught.value
    assert isinstance(refused, TransactionRefused)
    assert not refused.unknown
    assert refused.index == 1 and isinstance(refused.error, NodeExistsError)
    assert refused.__cause__ is refused.error
    assert len(refused.results) == 3
    assert str(refused) == (
        "transaction refused at operation 2 of 3, create /there: NodeExistsError; none was done"
    )
    assert not client.exists("/new")


@pytest.mark.parametrize(
    ("add", "error"),
    [
        (lambda t: t.create("/no/parent"), NoNodeError),
        (lambda t: t.delete("/no"), NoNodeError),
        (lambda t: t.set_data("/there", b"", 7), BadVersionError),
        (lambda t: t.check("/there", 7), BadVersionError),
        (lambda t: t.create("/there", container=True), NodeExistsError),
    ],
)
def test_each_operation_may_be_the_one_refused(
    client: Client, add: Callable[[Any], None], error: type[Exception]
) -> None:
    client.create("/there")
    transaction = client.transaction()
    add(transaction)

    with pytest.raises(TransactionRefused) as caught:
        transaction.commit()

    assert isinstance(caught.value.error, error)


def test_a_with_block_commits_at_its_end_and_raises(client: Client) -> None:
    with client.transaction() as transaction:
        transaction.create("/made")
        assert not client.exists("/made")
    assert client.exists("/made")

    with pytest.raises(TransactionRefused), client.transaction() as transaction:  # noqa: PT012
        transaction.create("/other")
        transaction.create("/made")
    assert not client.exists("/other")


def test_a_with_block_that_raises_sends_nothing(client: Client) -> None:
    with pytest.raises(KeyError), client.transaction() as transaction:  # noqa: PT012
        transaction.create("/made")
        raise KeyError

    assert not client.exists("/made") and not transaction.committed


def test_an_empty_transaction_has_no_results(client: Client) -> None:
    assert client.transaction().commit() == []


def test_a_commit_comes_once(client: Client) -> None:
    done = client.transaction()
    done.create("/made")
    done.commit()
    refused = client.transaction()
    refused.create("/made")
    with pytest.raises(TransactionRefused):
        refused.commit()

    with pytest.raises(ZookeeperMisused, match=r"commit\(\) came twice.*committed already"):
        done.commit()
    with pytest.raises(ZookeeperMisused, match="refused"):
        refused.commit()
    with pytest.raises(ZookeeperMisused, match="nothing can be added"):
        done.delete("/made")


def test_commit_async_fails_in_the_same_way(client: Client) -> None:
    first, second = client.transaction(), client.transaction()
    first.create("/made")
    second.create("/made")

    results = first.commit_async(), second.commit_async()

    assert results[0].get() == ["/made"]
    with pytest.raises(TransactionRefused):
        results[1].get()
    assert client.transaction().commit_async().get() == []


def test_what_was_not_sent_raises_the_trouble_and_may_be_committed_again(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: far.session.state is not SessionState.CONNECTED)
    transaction = far.transaction()
    transaction.create("/made")
    with pytest.raises(ZookeeperTimeout) as caught, deadline(0.2):
        transaction.commit()
    assert not isinstance(caught.value, TransactionError)

    proxy.heal()
    assert far.session.wait(timeout=10.0)
    far.sync("/")
    assert not client.exists("/made"), "what its caller has given up was sent later"

    assert transaction.commit() == ["/made"]


def test_a_lost_answer_is_unknown_and_is_not_sent_again(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    client.create("/counter")
    transaction = far.transaction()
    transaction.set_data("/counter", b"x")

    with proxy.lose_answer(has_op(MULTI)), pytest.raises(TransactionError) as caught:
        transaction.commit()

    assert isinstance(caught.value, TransactionUnknown)
    assert caught.value.unknown
    assert not isinstance(caught.value, ConnectionLoss), "client.retry() would send it again"
    assert isinstance(caught.value.__cause__, ConnectionLoss)
    assert "set_data /counter" in str(caught.value)
    assert far.session.wait(timeout=10.0)
    far.sync("/")
    assert client.get("/counter")[1].version == 1


def test_a_login_that_fails_meanwhile_leaves_the_outcome_unknown(
    proxy: FlakyProxy, far: Client
) -> None:
    transaction = far.transaction()
    transaction.create("/login")
    proxy.hold_replies()
    result = transaction.commit_async()
    far._session_callback(KeeperState.AUTH_FAILED)

    with pytest.raises(TransactionUnknown) as caught:
        result.get(timeout=5.0)

    assert isinstance(caught.value.__cause__, AuthFailedError)


def test_retry_does_not_repeat_a_commit_without_an_answer(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    client.create("/counter")
    transaction = far.transaction()
    transaction.set_data("/counter", b"x")

    with proxy.lose_answer(has_op(MULTI)), pytest.raises(TransactionUnknown):
        far.retry(transaction.commit)

    assert client.get("/counter")[1].version == 1


def test_a_second_commit_that_is_refused_does_not_claim_that_nothing_was_done(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    transaction = far.transaction()
    transaction.create("/made")
    with proxy.lose_answer(has_op(MULTI)), pytest.raises(TransactionUnknown):
        transaction.commit()

    with pytest.raises(TransactionUnknown) as caught:
        far.retry(transaction.commit)

    assert isinstance(caught.value.__cause__, TransactionRefused)
    assert client.exists("/made")


def test_a_second_commit_does_what_the_first_did_not(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    transaction = far.transaction()
    transaction.create("/made")
    proxy.hold_requests()
    with pytest.raises(TransactionUnknown), deadline(0.3):
        transaction.commit()  # it left this process, but the server has not got it
    proxy.cut()
    proxy.heal()
    wait_until(lambda: far.session.state is SessionState.SUSPENDED)
    assert far.session.wait(timeout=10.0)

    assert transaction.commit() == ["/made"]
    assert transaction.committed


def test_a_killed_commit_leaves_at_once_and_is_not_sent_later(
    proxy: FlakyProxy, far: Client, client: Client
) -> None:
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: far.session.state is not SessionState.CONNECTED)
    transaction = far.transaction()
    transaction.create("/made")

    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        transaction.commit()

    proxy.heal()
    assert far.session.wait(timeout=10.0)
    far.sync("/")
    assert not client.exists("/made")


@pytest.mark.parametrize(
    "add",
    [
        lambda t: t.create("/a", "text"),
        lambda t: t.create(b"/a"),
        lambda t: t.set_data("/a", "text"),
        lambda t: t.delete("/a", "1"),
        lambda t: t.check("/a", None),
    ],
)
def test_wrong_types_are_refused_at_once(client: Client, add: Callable[[Any], None]) -> None:
    with pytest.raises(TypeError):
        add(client.transaction())


def test_its_errors_pickle_and_copy() -> None:
    refused = TransactionRefused([BadVersionError()], ["check /a"])
    unknown = TransactionUnknown(["create /a", "create /b", "create /c", "create /d"])
    for error in refused, unknown:
        check_error(error)
    assert pickle.loads(pickle.dumps(refused)).index == 0
    assert copy.copy(unknown).operations == unknown.operations
    assert str(unknown).endswith("create /a, create /b, create /c and 1 more")
