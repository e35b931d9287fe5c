"""A node that is there as long as its process wants it, whatever happens meanwhile."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoNodeError
from kazoo.security import READ_ACL_UNSAFE

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.zookeeper import Client, PersistentNode, SessionState, ZookeeperMisused

SESSION = 2.0
PATH = "/hosts/web1"


@pytest.fixture
def client(proxy: Any) -> Iterator[Client]:
    with Client(proxy.hosts, timeout=SESSION) as client:
        yield client


def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError(f"not within {seconds} s: {what}")):
        while not condition():
            gevent.sleep(0.005)


def owner(observer: Any, path: str = PATH) -> int | None:
    stat = observer.exists(path)
    return None if stat is None else int(stat.ephemeralOwner)


def data(observer: Any, path: str = PATH) -> bytes | None:
    try:
        value: bytes = observer.get(path)[0]
        return value
    except NoNodeError:
        return None


def gone(observer: Any, path: str = PATH) -> None:
    eventually(lambda: observer.exists(path) is None, f"{path} is gone")


def watches(zookeeper: Any) -> int:
    return int(zookeeper.mntr()["zk_watch_count"])


def cut_off(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    assert client.session.wait(SessionState.SUSPENDED, 5.0)


def expire(client: Client, zookeeper: Any) -> None:
    """The session ends, and there is another one."""
    before = client.session.session_id
    zookeeper.expire(client)
    eventually(lambda: client.session.session_id != before, "there is a new session")


def remade(client: Client, observer: Any, before: int) -> None:
    """There is a node of ours, not that of which the czxid was *before*."""

    def is_new() -> bool:
        stat = observer.exists(PATH)
        return bool(stat and stat.czxid != before)

    eventually(is_new, "there is a new one")
    assert owner(observer) == client.session.session_id


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ZookeeperMisused:
        return True
    return False


class Told(list[bool]):
    """What on_change was told."""

    def comes_to(self, *expected: bool) -> None:
        eventually(lambda: self == list(expected), f"told {expected}")


# Being there.


def test_it_is_there_until_it_is_stopped(client: Client, observer: Any) -> None:
    node = PersistentNode(client, PATH, b"10.0.0.1")
    assert not node.is_present and observer.exists(PATH) is None

    with node:
        assert node.wait(5.0) and node.is_present
        assert data(observer) == b"10.0.0.1"
        assert owner(observer) == client.session.session_id

    assert not node.is_present
    assert observer.exists(PATH) is None and observer.exists("/hosts") is not None


def test_stop_says_whether_it_is_gone_and_may_be_called_at_any_time(client: Client) -> None:
    node = PersistentNode(client, PATH)
    assert node.stop()
    assert node.start() and not node.start()
    assert node.wait(5.0)
    assert node.stop() and node.stop()
    assert client.exists(PATH) is None
    assert node.start() and node.wait(5.0) and node.stop()


def test_on_change_is_told_of_each_change_in_order(client: Client) -> None:
    told = Told()
    with PersistentNode(client, PATH, on_change=told.append) as node:
        assert node.wait(5.0)
        told.comes_to(True)
    told.comes_to(True, False)


@pytest.mark.parametrize("container", [False, True])
def test_a_parent_is_a_container_only_where_that_is_asked_for(
    zookeeper: Any, container: bool
) -> None:
    asked: list[bool] = []

    class Recording(Client):
        def ensure_parent_async(self, path: str, *, container: bool = True) -> Any:
            asked.append(container)
            return super().ensure_parent_async(path, container=container)

    with (
        Recording(zookeeper.hosts) as client,
        PersistentNode(client, PATH, container=container) as node,
    ):
        assert node.wait(5.0)
    assert asked == [container]


def test_a_name_below_the_root_of_the_client_needs_no_parent(client: Client) -> None:
    with PersistentNode(client, "/web1") as node:
        assert node.wait(5.0)
    assert client.exists("/web1") is None


def test_names_may_have_any_characters_that_a_node_may_have(client: Client) -> None:
    for name in ("a" * 300, "ö ß %s{}", "..a", "日本語"):
        with PersistentNode(client, f"/hosts/{name}") as node:
            assert node.wait(5.0) and client.get_children("/hosts") == [name]


def test_bad_arguments_are_refused_at_once(client: Client) -> None:
    with pytest.raises(TypeError, match="the data of a node is bytes, not str"):
        PersistentNode(client, PATH, "text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="below the root"):
        PersistentNode(client, "/")
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        PersistentNode(KazooClient(), PATH)
    with PersistentNode(client, PATH) as node, pytest.raises(TypeError, match="bytes"):
        node.set_data(None)  # type: ignore[arg-type]


# Coming back.


def test_it_is_made_again_in_the_next_session(
    client: Client, zookeeper: Any, observer: Any
) -> None:
    told = Told()
    with PersistentNode(client, PATH, b"x", on_change=told.append) as node:
        assert node.wait(5.0)
        first = client.session.session_id
        expire(client, zookeeper)
        assert node.wait(10.0)
        assert owner(observer) == client.session.session_id != first
        assert data(observer) == b"x"
        told.comes_to(True, False, True)


def test_it_is_made_again_when_somebody_deletes_it(
    client: Client, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        first = observer.exists(PATH).czxid
        observer.delete(PATH)
        remade(client, observer, first)
        assert node.wait(5.0)
    words = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert words == [f"persistent node {PATH} was deleted by somebody, put right"]


def test_an_expiry_is_not_taken_for_a_deletion(
    client: Client, zookeeper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with PersistentNode(client, PATH) as node:
        for _ in range(3):
            assert node.wait(10.0)
            expire(client, zookeeper)
    assert not [record for record in caplog.records if "deleted" in record.getMessage()]


def test_who_deletes_it_again_and_again_is_not_raced(
    client: Client, observer: Any, proxy: Any
) -> None:
    with PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        before = proxy.counts()["create"]
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            if observer.exists(PATH):
                observer.delete(PATH)
            gevent.sleep(0.001)
        assert 2 <= proxy.counts()["create"] - before <= 8


def test_it_is_made_again_with_what_was_above_it(client: Client, observer: Any) -> None:
    path = f"/a/b{PATH}"
    with PersistentNode(client, path) as node:
        assert node.wait(5.0)
        transaction = observer.transaction()
        for gone in (path, "/a/b/hosts", "/a/b", "/a"):
            transaction.delete(gone)
        assert not [error for error in transaction.commit() if isinstance(error, Exception)]
        eventually(lambda: observer.exists(path), "it is there again")
        assert node.wait(5.0)


def test_it_is_there_after_a_restart_of_the_server(client: Client, zookeeper: Any) -> None:
    with PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        zookeeper.restart()
        assert client.session.wait(SessionState.CONNECTED, 20.0)
        assert node.wait(20.0)
        stat = client.exists(PATH)
        assert stat and stat.ephemeralOwner == client.session.session_id


# Whose node it is.


def test_a_node_of_another_session_is_waited_for(
    client: Client, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    observer.create(PATH, b"theirs", ephemeral=True, makepath=True)
    with PersistentNode(client, PATH, b"ours") as node:
        assert not node.wait(0.3) and not node.is_present
        assert data(observer) == b"theirs" and owner(observer) == observer.client_id[0]

        observer.delete(PATH)

        assert node.wait(5.0) and data(observer) == b"ours"
        assert owner(observer) == client.session.session_id
    warned = [record for record in caplog.records if "there is one of session" in record.message]
    assert len(warned) == 1


def test_a_node_of_another_session_is_left_alone_by_a_stop(client: Client, observer: Any) -> None:
    observer.create(PATH, b"theirs", ephemeral=True, makepath=True)
    with PersistentNode(client, PATH) as node:
        assert not node.wait(0.1)
    assert data(observer) == b"theirs"


def test_a_node_of_no_session_is_waited_for(client: Client, observer: Any) -> None:
    observer.create(PATH, b"for ever", makepath=True)
    with PersistentNode(client, PATH, b"ours") as node:
        assert not node.wait(0.1)
        assert data(observer) == b"for ever"
        observer.delete(PATH)
        assert node.wait(5.0)


def test_what_an_earlier_session_of_the_client_has_left_is_replaced(
    proxy: Any, observer: Any
) -> None:
    with Client(proxy.hosts, timeout=20.0) as client:
        node = PersistentNode(client, PATH)
        node.start()
        assert node.wait(5.0)
        first = client.session.session_id
        cut_off(client, proxy)
        client.stop()  # of which the server does not hear
        proxy.heal()
        client.start()
        assert owner(observer) == first

        node.start()

        assert node.wait(5.0)
        assert owner(observer) == client.session.session_id != first
        node.stop()


def test_of_two_with_one_path_and_client_the_second_has_its_turn_later(
    client: Client, observer: Any
) -> None:
    first, second = PersistentNode(client, PATH, b"1"), PersistentNode(client, PATH, b"2")
    with first:
        assert first.wait(5.0)
        second.start()
        assert not second.wait(0.1) and data(observer) == b"1"
    assert second.wait(5.0) and data(observer) == b"2"
    assert not first.is_present
    assert second.stop() and observer.exists(PATH) is None


def test_the_second_keeps_the_node_when_the_first_is_killed(client: Client, observer: Any) -> None:
    first, second = PersistentNode(client, PATH, b"1"), PersistentNode(client, PATH, b"2")
    first.start()
    assert first.wait(5.0)
    second.start()
    assert not second.wait(0.01)
    made = observer.exists(PATH).czxid
    first._greenlet.kill()
    assert second.wait(5.0) and first.stop()
    assert data(observer) == b"2" and second.wait(5.0)
    assert observer.exists(PATH).czxid == made
    assert second.stop()


# Its data.


def test_new_data_is_there_when_wait_says_so(client: Client, observer: Any) -> None:
    with PersistentNode(client, PATH, b"0") as node:
        for value in (b"1", b"2", b"", b"3" * 1000):
            node.set_data(value)
            assert node.wait(5.0) and data(observer) == value
        assert observer.exists(PATH).czxid and node.data == b"3" * 1000


def test_data_set_while_cut_off_comes_with_the_connection(
    client: Client, proxy: Any, observer: Any
) -> None:
    with PersistentNode(client, PATH, b"old") as node:
        assert node.wait(5.0)
        cut_off(client, proxy)
        node.set_data(b"newer")
        node.set_data(b"newest")
        assert not node.wait(0.05)
        proxy.heal()
        assert node.wait(10.0) and data(observer) == b"newest"


def test_data_set_last_is_that_of_the_next_session(
    client: Client, zookeeper: Any, observer: Any
) -> None:
    with PersistentNode(client, PATH, b"old") as node:
        node.set_data(b"new")
        assert node.wait(5.0)
        expire(client, zookeeper)
        assert node.wait(10.0) and data(observer) == b"new"


def test_data_that_goes_to_and_fro_is_not_taken_for_what_others_write(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with PersistentNode(client, PATH, b"0") as node:
        assert node.wait(5.0)
        for number in range(100):
            node.set_data(b"%d" % (number % 2))
            gevent.sleep(0.0007 * (number % 5))  # at each moment of a write
        assert node.wait(5.0)
    assert "by somebody" not in caplog.text


def test_more_data_than_servers_take_is_refused_and_the_connection_lives(
    client: Client, observer: Any
) -> None:
    largest = 0xFFFFF - 1024 - 2 * len(f"{client.chroot}{PATH}")
    for call in (
        lambda data: PersistentNode(client, PATH, data),
        PersistentNode(client, PATH).set_data,
    ):
        with pytest.raises(ValueError, match="too many"):
            call(b"x" * (largest + 1))
    with PersistentNode(client, PATH, b"x" * largest) as node:
        assert node.wait(5.0)
        node.set_data(b"y" * largest)
        assert node.wait(5.0) and len(data(observer) or b"") == largest
    assert client.session.epoch == 1


def test_what_others_write_is_put_right_and_not_in_a_race(
    client: Client, observer: Any, proxy: Any
) -> None:
    with PersistentNode(client, PATH, b"ours") as node:
        assert node.wait(5.0)
        before = proxy.counts()["set"]
        begin = time.monotonic()
        while time.monotonic() < begin + 0.4:
            if data(observer) == b"ours":
                observer.set(PATH, b"theirs")
        put_right = proxy.counts()["set"] - before
        assert 1 <= put_right <= 2 + (time.monotonic() - begin) / 0.05  # the shortest pause
        eventually(lambda: data(observer) == b"ours", "the data is ours again")
        assert node.is_present and node.wait(5.0)


# Lost answers, cuts, kills.


@pytest.mark.parametrize("operation", ["create", "get"])
def test_a_start_survives_a_lost_answer(
    client: Client, proxy: Any, observer: Any, operation: str
) -> None:
    client.ensure_path("/hosts")
    with proxy.lose_answer_to(operation), PersistentNode(client, PATH, b"x") as node:
        assert node.wait(10.0)
        assert owner(observer) == client.session.session_id and data(observer) == b"x"
    gone(observer)


@pytest.mark.parametrize("operation", ["set", "get"])
def test_new_data_survives_a_lost_answer(
    client: Client, proxy: Any, observer: Any, operation: str
) -> None:
    with PersistentNode(client, PATH, b"old") as node:
        assert node.wait(5.0)
        with proxy.lose_answer_to(operation):
            node.set_data(b"new")
            assert node.wait(10.0)
        assert data(observer) == b"new" and observer.exists(PATH).version == 1


@pytest.mark.parametrize("operation", ["get", "delete"])
def test_a_stop_survives_a_lost_answer(
    client: Client, proxy: Any, observer: Any, operation: str
) -> None:
    node = PersistentNode(client, PATH)
    node.start()
    assert node.wait(5.0)
    with proxy.lose_answer_to(operation):
        node.stop()
    gone(observer)
    eventually(lambda: node.stop(), "the stop is done")


def test_a_create_whose_answer_and_session_are_lost_is_made_in_the_next(
    client: Client, zookeeper: Any, proxy: Any, observer: Any
) -> None:
    client.ensure_path("/hosts")
    with PersistentNode(client, PATH) as node:
        with proxy.lose_answer_to("create", then="hold"):
            eventually(lambda: observer.exists(PATH), "the first one")
            zookeeper.expire(client)
        proxy.heal()
        assert node.wait(10.0) and owner(observer) == client.session.session_id


def test_a_create_that_comes_late_leaves_nothing(client: Client, proxy: Any, observer: Any) -> None:
    node = PersistentNode(client, PATH)
    client.ensure_path("/hosts")
    proxy.hold_requests()
    node.start()
    eventually(lambda: node._asked[0], "it is asked for")
    gevent.sleep(0)
    proxy.cut()
    proxy.heal()
    node.stop()
    eventually(lambda: node.stop(), "it is not there")
    assert observer.exists(PATH) is None

    client.create(PATH, ephemeral=True)  # as the server does with what it finds in a dead socket

    gone(observer)


def test_a_stop_while_cut_off_does_not_wait_and_deletes_it_later(
    client: Client, proxy: Any, observer: Any
) -> None:
    node = PersistentNode(client, PATH)
    node.start()
    assert node.wait(5.0)
    cut_off(client, proxy)
    with gevent.Timeout(0.5):
        assert not node.stop(5.0)
    assert not node.is_present and owner(observer) == client.session.session_id
    proxy.heal()
    gone(observer)


def test_a_stop_and_a_start_while_cut_off_leave_it_there(
    client: Client, proxy: Any, observer: Any
) -> None:
    node = PersistentNode(client, PATH)
    node.start()
    assert node.wait(5.0)
    made = observer.exists(PATH).czxid
    cut_off(client, proxy)
    node.stop()
    node.start()
    proxy.heal()
    assert client.session.wait(SessionState.CONNECTED, 10.0)
    assert node.wait(10.0) and observer.exists(PATH).czxid == made
    assert node.stop()


def test_another_one_with_the_path_waits_for_a_stop_that_is_pending(
    client: Client, proxy: Any, observer: Any
) -> None:
    first, second = PersistentNode(client, PATH, b"1"), PersistentNode(client, PATH, b"2")
    first.start()
    assert first.wait(5.0)
    cut_off(client, proxy)
    first.stop()
    second.start()
    proxy.heal()
    assert second.wait(10.0) and data(observer) == b"2" and first.stop()
    assert second.stop()


@pytest.mark.parametrize("operation", ["create", "get", "set", "delete"])
def test_a_kill_of_its_greenlet_leaves_nothing(
    client: Client, proxy: Any, observer: Any, zookeeper: Any, operation: str
) -> None:
    client.ensure_path("/hosts")
    before = watches(zookeeper)
    node = PersistentNode(client, PATH)
    if operation != "create":
        node.start()
        assert node.wait(5.0)
    with proxy.lose_answer_to(operation, then="hold") as lost:
        if operation == "delete":
            node.stop(0.0)
        else:
            node.set_data(b"new")
            node.start()
        lost.wait()
        node._greenlet.kill()
        assert not node.is_present
    proxy.heal()
    gone(observer)
    eventually(lambda: node.stop(), "all is taken back")
    eventually(lambda: watches(zookeeper) == before, "no watch is left")
    assert node.start() and node.wait(5.0) and node.stop()


def test_a_kill_before_its_greenlet_has_begun_leaves_nothing(client: Client) -> None:
    node = PersistentNode(client, PATH)
    node.start()
    node._greenlet.kill()
    eventually(lambda: node.stop(), "all is taken back")
    assert client.exists(PATH) is None


@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit, KeyboardInterrupt])
def test_a_kill_of_who_waits_concerns_nobody_else(
    client: Client, observer: Any, error: type[BaseException]
) -> None:
    observer.create(PATH, ephemeral=True, makepath=True)
    with PersistentNode(client, PATH) as node:

        def wait() -> BaseException | None:
            try:
                node.wait()
            except BaseException as e:
                return e
            return None

        waiter = gevent.spawn(wait)
        gevent.sleep(0.05)
        waiter.kill(error, timeout=1.0)
        assert isinstance(waiter.value, error) and not node._waiters
        observer.delete(PATH)
        assert node.wait(5.0)


def test_no_watch_is_left_behind(client: Client, zookeeper: Any, observer: Any) -> None:
    before = watches(zookeeper)
    for _ in range(3):
        with PersistentNode(client, PATH) as node:
            assert node.wait(5.0)
            assert watches(zookeeper) == before + 1
    observer.create(PATH, ephemeral=True)
    with PersistentNode(client, PATH) as node:
        assert not node.wait(0.05)
    client.sync("/")
    assert watches(zookeeper) == before


# What it knows.


def test_it_says_not_present_before_the_servers_can_have_deleted_it(
    proxy: Any, observer: Any
) -> None:
    with Client(proxy.hosts, timeout=1.0) as client, PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        proxy.hold()
        assert node.is_present
        gone(observer)
        assert not node.is_present
        proxy.heal()
        assert node.wait(10.0) and owner(observer) == client.session.session_id


def test_it_is_present_over_a_short_cut(client: Client, proxy: Any) -> None:
    told = Told()
    with PersistentNode(client, PATH, on_change=told.append) as node:
        assert node.wait(5.0)
        proxy.cut()
        assert client.session.wait(SessionState.SUSPENDED, 5.0) and node.is_present
        assert client.session.wait(SessionState.CONNECTED, 5.0) and node.wait(5.0)
        told.comes_to(True)


def test_one_deleted_while_cut_off_is_made_again(client: Client, proxy: Any, observer: Any) -> None:
    with PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        cut_off(client, proxy)
        observer.delete(PATH)
        proxy.heal()
        eventually(lambda: owner(observer) == client.session.session_id, "it is there again")


def test_one_not_seen_for_a_session_timeout_after_a_reconnect_is_not_called_present(
    proxy: Any,
) -> None:
    unanswered: list[Any] = []

    class Deaf(Client):
        """Whose pings are answered and whose reads are not."""

        deaf = False

        def get_async(self, *args: Any, **options: Any) -> Any:
            if not self.deaf:
                return super().get_async(*args, **options)
            unanswered.append(self.handler.async_result())
            return unanswered[-1]

    with Deaf(proxy.hosts, timeout=1.0) as client, PersistentNode(client, PATH) as node:
        assert node.wait(5.0)
        client.deaf = True
        proxy.cut()
        eventually(lambda: unanswered, "it looks again")
        assert node.is_present
        eventually(lambda: not node.is_present, "it is not called present", 3.0)
        assert client.session.state is SessionState.CONNECTED
        client.deaf = False
        unanswered[-1].set_exception(ConnectionLoss())
        eventually(lambda: node.is_present, "it was seen again")


def test_what_the_server_refuses_is_told_and_tried_again(
    client: Client, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    observer.create("/hosts", acl=READ_ACL_UNSAFE)
    with PersistentNode(client, PATH) as node:
        eventually(lambda: node.error, "the error is told")
        assert str(node.error) == f"persistent node {PATH}: NoAuthError"
        gevent.sleep(0.2)
        observer.delete("/hosts")
        assert node.wait(10.0) and node.error is None
    words = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert words == [f"persistent node {PATH}: NoAuthError, trying on"]


# Its client, its callbacks, other threads.


def test_what_nobody_has_thought_of_is_told_and_tried_again(
    client: Client, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.default_acl = ["nonsense"]  # it cannot be sent
    with PersistentNode(client, PATH, b"1") as node:
        eventually(lambda: node.error, "it is told")
        assert "Traceback" in caplog.text and "trying on" in caplog.text
        client.default_acl = None
        assert node.wait(10.0)
    gone(observer)


def test_a_client_that_stops_ends_it(client: Client, observer: Any) -> None:
    node = PersistentNode(client, PATH)
    node.start()
    assert node.wait(5.0)
    waiting = gevent.spawn(refused, node.wait)
    node.set_data(b"never there")
    client.stop()
    assert not node.is_present
    gone(observer)
    with pytest.raises(ZookeeperMisused, match="stopped"):
        node.wait(5.0)
    assert isinstance(node.error, ZookeeperMisused)
    assert waiting.get(timeout=5.0)

    client.start()
    assert node.start() and node.wait(5.0) and node.error is None
    assert data(observer) == b"never there"
    assert node.stop()


def test_waiting_for_one_that_is_not_started_is_refused(client: Client) -> None:
    with pytest.raises(ZookeeperMisused, match="is not started"):
        PersistentNode(client, PATH).wait(5.0)


def test_a_wait_obeys_the_current_deadline(client: Client, observer: Any) -> None:
    observer.create(PATH, ephemeral=True, makepath=True)
    with deadline(0.1), PersistentNode(client, PATH) as node:
        with pytest.raises(DeadlineExceeded):
            node.wait(5.0)
        observer.delete(PATH)  # what it does goes on without it
        with deadline(0.01):
            gevent.sleep(0.1)
        eventually(lambda: node.is_present, "the node is there")


def test_a_callback_may_fail_or_stop_it(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    def fail(present: bool) -> None:
        told.append(present)
        if len(told) == 1:
            raise gevent.Timeout
        node.stop()

    told = Told()
    node = PersistentNode(client, PATH, on_change=fail)
    node.start()
    assert node.wait(5.0)
    client.delete(PATH)
    told.comes_to(True, False)
    eventually(lambda: node.stop(), "it is stopped")
    assert client.exists(PATH) is None
    assert [record for record in caplog.records if "on_change of persistent" in record.message]


def test_another_thread_may_stop_it_and_nothing_else(client: Client, observer: Any) -> None:
    results: list[bool] = []

    def run() -> None:
        results.extend(refused(call) for call in (node.start, node.wait, node.stop))

    node = PersistentNode(client, PATH)
    node.start()
    assert node.wait(5.0)
    gevent.get_hub().threadpool.apply(run)
    assert results == [True, True, False]
    gone(observer)
