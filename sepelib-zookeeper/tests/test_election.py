"""An election: who runs the function, how it ends, and what is left then."""

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn

import gevent
import pytest
from gevent.event import Event
from kazoo.client import KazooClient

from sepelib.util.deadline import Deadline, DeadlineExceeded, deadline
from sepelib.zookeeper import (
    Client,
    ConfigurationError,
    Election,
    Interrupted,
    Lock,
    LockLost,
    LockTimeout,
    SessionState,
    SingletonService,
    WouldDeadlock,
    ZookeeperMisused,
)

SESSION = 2.0
PATH = "/app/migration"


@pytest.fixture
def client(proxy: Any) -> Iterator[Client]:
    with Client(proxy.hosts, timeout=SESSION) as client:
        yield client


@pytest.fixture
def other(zookeeper: Any) -> Iterator[Client]:
    """A client which no fault of the proxy touches."""
    with Client(zookeeper.hosts, timeout=SESSION) as client:
        yield client


def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    with gevent.Timeout(seconds, AssertionError(f"not within {seconds} s: {what}")):
        while not condition():
            gevent.sleep(0.005)


def nobody_stands(observer: Any) -> None:
    eventually(lambda: not observer.get_children(PATH), "nobody is in the queue")


def greenlets() -> list[Any]:
    return [it for it in gc.get_objects() if isinstance(it, gevent.Greenlet)]


class Running:
    """A `run()` in a greenlet; *func* gets this to say what it does."""

    def __init__(self, election: Election, func: Callable[["Running"], Any], **kw: Any) -> None:
        self.led = Event()
        self.ended = False
        self.greenlet = gevent.spawn(self._run, election, func, kw)

    def _run(self, election: Election, func: Callable[["Running"], Any], kw: Any) -> Any:
        try:
            return election.run(self._lead, func, **kw)
        except BaseException as error:
            return error

    def _lead(self, func: Callable[["Running"], Any]) -> Any:
        self.led.set()
        try:
            return func(self)
        finally:
            self.ended = True

    def result(self, seconds: float = 10.0) -> Any:
        """What it has returned, or raised."""
        return self.greenlet.get(timeout=seconds)


def forever(_: Running) -> NoReturn:
    while True:
        gevent.sleep(60.0)


# Leading once.


def test_the_function_is_run_and_its_result_is_that_of_run(client: Client, observer: Any) -> None:
    def lead(*args: int, **kwargs: int) -> object:
        leadership = election.leadership
        assert leadership is not None and leadership.is_leader
        assert leadership.token == observer.exists(f"{PATH}/{one()}").czxid
        return args, kwargs

    def one() -> str:
        [name] = observer.get_children(PATH)
        return str(name)

    election = Election(client, PATH, "web1")
    assert election.run(lead, 1, 2, three=3) == ((1, 2), {"three": 3})
    assert election.leadership is None and observer.get_children(PATH) == []
    assert election.run(lambda: None) is None


def test_what_the_function_raises_is_raised_as_it_is(client: Client, observer: Any) -> None:
    for error in (
        ValueError("x"),
        LockLost("/other", "session"),
        KeyboardInterrupt(),
        SystemExit(3),
    ):

        def fail(error: BaseException = error) -> NoReturn:
            raise error

        with pytest.raises(type(error)) as caught:
            Election(client, PATH).run(fail)
        assert caught.value is error and error.__cause__ is None
        assert "in fail" in "".join(traceback.format_tb(caught.value.__traceback__))
        assert observer.get_children(PATH) == []


def test_a_function_that_ends_itself_as_a_greenlet_ends_the_caller(client: Client) -> None:
    def end() -> NoReturn:
        raise gevent.GreenletExit

    with pytest.raises(gevent.GreenletExit):
        Election(client, PATH).run(end)


def test_one_leads_at_a_time_in_the_order_of_asking(client: Client, other: Client) -> None:
    leading: list[str] = []
    most = 0

    def lead(name: str) -> str:
        nonlocal most
        leading.append(name)
        most = max(most, len(leading))
        gevent.sleep(0.01)
        leading.remove(name)
        return name

    election = Election(client, PATH)
    runs = [
        gevent.spawn(each.run, lead, f"{number}")
        for number in range(5)
        for each in (election, Election(other, PATH))
    ]
    gevent.joinall(runs, timeout=10.0, raise_error=True)
    assert [run.value for run in runs] == [f"{number}" for number in range(5) for _ in "12"]
    assert most == 1


def test_it_excludes_a_lock_and_a_singleton_at_the_path(client: Client, other: Client) -> None:
    election = Election(client, PATH)
    with Lock(other, PATH), pytest.raises(LockTimeout):
        election.run(lambda: None, timeout=0.05)
    with SingletonService(other, PATH, lambda leadership: leadership.sleep(60.0)) as service:
        eventually(lambda: service.is_leader, "it leads")
        with pytest.raises(LockTimeout):
            election.run(lambda: None, timeout=0.05)


def test_the_contenders_are_shown_in_their_order(client: Client, other: Client) -> None:
    elections = [Election(client, PATH, "a"), Election(other, PATH, "b")]
    assert elections[0].contenders() == []
    runs = [Running(elections[0], forever)]
    runs[0].led.wait()
    runs.append(Running(elections[1], forever))
    eventually(lambda: len(elections[0].contenders()) == 2, "both stand")
    assert [it.identifier for it in elections[1].contenders(5.0)] == ["a", "b"]
    for election in elections:
        election.cancel()
    assert [type(run.result()) for run in runs] == [Interrupted, Interrupted]
    assert elections[0].contenders() == []


def test_the_function_has_the_context_of_the_caller_without_its_deadline(client: Client) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("ours")
    with deadline(5.0):
        assert Election(client, PATH).run(lambda: (variable.get(), Deadline.current())) == (
            "ours",
            None,
        )


def test_bad_arguments_are_refused_at_once(client: Client) -> None:
    with pytest.raises(TypeError, match="callable"):
        Election(client, PATH).run("no function")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_suspend"):
        Election(client, PATH, on_suspend="panic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fence"):
        Election(client, PATH, fence="high")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stop_timeout"):
        Election(client, PATH, stop_timeout=0.0)
    with pytest.raises(ValueError, match="below the root"):
        Election(client, "")
    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        Election(KazooClient(), PATH)


def test_a_stop_timeout_that_does_not_fit_into_the_session_is_refused(
    client: Client, observer: Any
) -> None:
    with pytest.raises(ConfigurationError, match="more than half"):
        Election(client, PATH, stop_timeout=1.5).run(lambda: None)
    assert observer.get_children(PATH) == []


# Waiting.


def test_a_wait_that_is_too_long_ends_with_lock_timeout(
    client: Client, other: Client, observer: Any
) -> None:
    with Lock(other, PATH):
        with pytest.raises(LockTimeout):
            Election(client, PATH).run(lambda: None, timeout=0.05)
        with deadline(0.05), pytest.raises(DeadlineExceeded):
            Election(client, PATH).run(lambda: None)
        eventually(lambda: len(observer.get_children(PATH)) == 1, "nobody else stands")


def test_cancel_ends_those_who_wait_now(client: Client, other: Client, observer: Any) -> None:
    election = Election(client, PATH)
    with Lock(other, PATH):
        waiting = [Running(election, forever) for _ in range(3)]
        eventually(lambda: len(observer.get_children(PATH)) == 4, "they stand")
        election.cancel()
        assert [type(run.result(1.0)) for run in waiting] == [Interrupted] * 3
        eventually(lambda: len(observer.get_children(PATH)) == 1, "nobody else stands")
        later = Running(election, lambda _: "led")
        gevent.sleep(0.02)
        assert not later.greenlet.ready()
    assert later.result() == "led"


def test_cancel_is_heard_without_a_connection(client: Client, proxy: Any) -> None:
    proxy.refuse()
    proxy.cut()
    assert client.session.wait(SessionState.SUSPENDED, 5.0)
    election = Election(client, PATH)
    run = Running(election, forever)
    gevent.sleep(0.02)
    election.cancel()
    assert isinstance(run.result(0.5), Interrupted)


@pytest.mark.parametrize("operation", ["create", "get_children", "get"])
def test_a_wait_that_is_killed_at_a_request_leaves_nobody(
    client: Client, other: Client, proxy: Any, observer: Any, operation: str
) -> None:
    lock = Lock(other, PATH)
    lock.acquire()
    with proxy.lose_answer_to(operation, then="hold") as lost:
        run = Running(Election(client, PATH), forever)
        lost.wait()
        run.greenlet.kill(timeout=1.0)
        assert run.greenlet.ready() and not run.led.is_set()
    proxy.cut()
    proxy.heal()
    lock.release()
    nobody_stands(observer)


# Cancelled while it leads.


def test_cancel_ends_a_function_that_leads(client: Client, observer: Any) -> None:
    election = Election(client, PATH, stop_timeout=0.05)
    run = Running(election, forever)
    run.led.wait()
    election.cancel()
    error = run.result(5.0)
    assert isinstance(error, Interrupted) and str(error).startswith(f"election {PATH}: ")
    assert run.ended and observer.get_children(PATH) == []
    assert election.run(lambda: "again") == "again"


def test_a_function_that_heeds_the_cancel_is_not_killed(client: Client) -> None:
    def heed(_: Running) -> str:
        assert election.leadership is not None
        election.leadership.stopping.wait()
        gevent.sleep(0.02)  # it has some time
        return "half done"

    election = Election(client, PATH, stop_timeout=0.9)
    run = Running(election, heed)
    run.led.wait()
    election.cancel()
    assert run.result(5.0) == "half done"


def test_a_function_that_sleeps_by_its_leadership_ends_at_once(client: Client) -> None:
    def sleep(_: Running) -> None:
        assert election.leadership is not None
        election.leadership.sleep(60.0)

    election = Election(client, PATH, stop_timeout=0.9)
    run = Running(election, sleep)
    run.led.wait()
    gevent.sleep(0)
    election.cancel()
    assert isinstance(run.result(0.7), Interrupted)


def test_what_a_cancelled_function_raises_while_it_cleans_up_is_raised(client: Client) -> None:
    def fail(_: Running) -> None:
        try:
            gevent.sleep(60.0)
        finally:
            raise ValueError("in the clean-up")

    election = Election(client, PATH, stop_timeout=0.05)
    run = Running(election, fail)
    run.led.wait()
    election.cancel()
    assert isinstance(run.result(), ValueError)


def test_a_function_that_would_wait_for_its_own_end_is_told_so(
    client: Client, observer: Any
) -> None:
    election = Election(client, PATH)

    def nested() -> str:
        with pytest.raises(WouldDeadlock, match="own end"):
            election.run(nested, timeout=5.0)
        return "done"

    with gevent.Timeout(4.0):
        assert election.run(nested) == "done"
    nobody_stands(observer)


def test_an_election_made_in_another_thread_can_be_cancelled(client: Client) -> None:
    election = gevent.get_hub().threadpool.apply(Election, (client, PATH))
    run = Running(election, forever)
    run.led.wait()
    election.cancel()
    assert isinstance(run.result(5.0), Interrupted)


def test_a_cancel_after_the_end_or_before_a_run_is_nothing(client: Client) -> None:
    election = Election(client, PATH)
    election.cancel()
    assert election.run(lambda: 1) == 1
    election.cancel()
    assert election.run(lambda: 2) == 2


def test_a_cancel_in_the_moment_of_the_grant_lets_nothing_run(
    client: Client, observer: Any
) -> None:
    class CancelledThen(Election):
        def _term(self, *args: Any) -> Any:
            self.cancel()
            return super()._term(*args)

    run = Running(CancelledThen(client, PATH), forever)
    assert isinstance(run.result(5.0), Interrupted)
    assert not run.led.is_set() and observer.get_children(PATH) == []


def test_another_thread_may_cancel_and_nothing_else(client: Client) -> None:
    def from_thread() -> None:
        with pytest.raises(ZookeeperMisused):
            election.run(lambda: None)
        election.cancel()

    election = Election(client, PATH, stop_timeout=0.05)
    run = Running(election, forever)
    run.led.wait()
    gevent.get_hub().threadpool.apply(from_thread)
    assert isinstance(run.result(5.0), Interrupted)


# Lost while it leads.


def test_a_leader_cut_off_is_dead_before_another_leads(proxy: Any, other: Client) -> None:
    with Client(proxy.hosts, timeout=1.0) as client:
        run = Running(Election(client, PATH), forever)
        run.led.wait()
        proxy.hold()
        assert Election(other, PATH).run(lambda: run.ended)
        error = run.result()
        proxy.heal()
    assert isinstance(error, LockLost) and error.reason == "the lease is running out"


def test_a_leader_whose_session_or_node_is_gone_is_told(
    client: Client, zookeeper: Any, observer: Any
) -> None:
    run = Running(Election(client, PATH), forever)
    run.led.wait()
    zookeeper.expire(client)
    error = run.result()
    assert isinstance(error, LockLost) and error.reason == "session" and run.ended

    run = Running(Election(client, PATH), forever)
    run.led.wait()
    gevent.sleep(0.4)  # from then on its node is watched
    for name in observer.get_children(PATH):
        observer.delete(f"{PATH}/{name}")
    error = run.result()
    assert isinstance(error, LockLost) and error.reason == "deleted" and run.ended
    nobody_stands(observer)


def test_on_suspend_stop_ends_a_leader_without_contact(client: Client, proxy: Any) -> None:
    run = Running(Election(client, PATH, on_suspend="stop"), forever)
    run.led.wait()
    proxy.refuse()
    proxy.cut()
    error = run.result(1.5)
    assert isinstance(error, LockLost) and error.reason == "the session is suspended"
    proxy.heal()


def test_a_leader_that_was_lost_has_no_result(client: Client, zookeeper: Any) -> None:
    def swallow(_: Running) -> str:
        try:
            gevent.sleep(60.0)
        except BaseException:
            return "as if nothing had happened"
        return ""

    def fail(_: Running) -> None:
        try:
            gevent.sleep(60.0)
        finally:
            raise ValueError("in the clean-up")

    for func, cause in ((swallow, type(None)), (fail, ValueError)):
        run = Running(Election(client, PATH), func)
        run.led.wait()
        zookeeper.expire(client)
        error = run.result()
        assert isinstance(error, LockLost) and isinstance(error.__cause__, cause)


def test_a_client_that_stops_ends_the_leader_and_those_who_wait(client: Client) -> None:
    election = Election(client, PATH)
    first = Running(election, forever)
    first.led.wait()
    second = Running(election, forever)
    gevent.sleep(0.02)
    client.stop()
    assert isinstance(first.result(), LockLost) and first.ended
    assert isinstance(second.result(), ZookeeperMisused) and not second.led.is_set()


# Releasing.


def test_without_a_connection_the_result_comes_and_the_lead_goes_later(
    client: Client, proxy: Any, observer: Any
) -> None:
    def cut() -> str:
        proxy.refuse()
        proxy.cut()
        client.session.wait(SessionState.SUSPENDED, 5.0)
        return "done"

    with gevent.Timeout(1.5):
        assert Election(client, PATH).run(cut) == "done"
    proxy.heal()
    nobody_stands(observer)


@pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit, KeyboardInterrupt])
def test_whatever_strikes_the_caller_ends_the_function_first(
    client: Client, observer: Any, error: type[BaseException]
) -> None:
    def slow(run: Running) -> None:
        try:
            gevent.sleep(60.0)
        finally:
            gevent.sleep(0.01)

    run = Running(Election(client, PATH), slow)
    run.led.wait()
    run.greenlet.kill(error, block=False)
    assert isinstance(run.result(5.0), error)
    assert run.ended and observer.get_children(PATH) == []


def test_a_caller_struck_twice_leaves_and_the_lead_is_kept_until_the_function_is_dead(
    client: Client, other: Client, observer: Any
) -> None:
    def stubborn(run: Running) -> None:
        while not free.is_set():
            with suppress(gevent.GreenletExit):
                free.wait()

    free = Event()
    run = Running(Election(client, PATH), stubborn)
    run.led.wait()
    run.greenlet.kill(block=False)
    gevent.sleep(0.02)
    run.greenlet.kill(timeout=1.0)
    assert run.greenlet.ready() and not run.ended
    [keeper] = [it for it in greenlets() if it.name == f"election {PATH}" and not it.dead]
    keeper.kill(timeout=1.0)  # as whoever kills all that there is
    assert keeper.dead
    with pytest.raises(LockTimeout):
        Election(other, PATH).run(lambda: None, timeout=0.05)
    free.set()
    assert Election(other, PATH).run(lambda: run.ended, timeout=5.0)
    nobody_stands(observer)


def test_a_caller_struck_in_the_moment_of_the_grant_leaves_nobody(
    client: Client, observer: Any
) -> None:
    run = Running(election := Election(client, PATH), forever)
    eventually(lambda: election._bids, "it is asked for")
    [bid] = election._bids
    with gevent.Timeout(5.0):
        while bid.term is None:
            gevent.sleep(0)
    run.greenlet.kill(timeout=5.0)
    assert run.greenlet.ready() and run.ended == run.led.is_set()
    nobody_stands(observer)
