"""What a singleton service promises while all is well, and how it is started and stopped."""

import contextlib
import itertools
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from sepelib.util.deadline import Deadline, deadline
from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import (
    Client,
    ConfigurationError,
    SessionState,
    SingletonService,
    TransactionError,
    ZookeeperMisused,
)
from sepelib.zookeeper.singleton import Leadership, ServiceState

PATH = "/app/judge"
SESSION = 2.0
LIMIT = 20.0  # seconds; far more than anything here takes


class Hosts:
    """As many hosts of one service as a test wants, each with a client of its own."""

    def __init__(self, hosts: str) -> None:
        self._hosts = hosts
        self._services: list[SingletonService] = []
        self._clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        client = Client(self._hosts, **{"timeout": SESSION} | options)
        self._clients.append(client)
        client.start(timeout=LIMIT)
        return client

    def service(
        self, target: Callable[[Leadership], object], client: Client | None = None, **options: Any
    ) -> SingletonService:
        """Not started yet."""
        client = client or self.client()
        service = SingletonService(client, PATH, target, **{"requeue_delay": (0.05, 0.1)} | options)
        self._services.append(service)
        return service

    def close(self) -> None:
        for service in self._services:
            assert service.stop(LIMIT), f"{service} does not stop"
        for client in self._clients:
            client.close()


@pytest.fixture
def hosts(zookeeper: Any) -> Iterator[Hosts]:
    hosts = Hosts(zookeeper.hosts)
    yield hosts
    hosts.close()


def until(service: SingletonService, state: ServiceState) -> None:
    eventually(lambda: service.state is state, f"{service} is not {state.value}")


def eventually(condition: Callable[[], object], what: str) -> None:
    with gevent.Timeout(LIMIT, AssertionError(what)):
        while not condition():
            gevent.sleep(0.002)


def works(leadership: Leadership) -> None:
    while True:
        leadership.sleep(LIMIT)


def contenders(client: Client) -> int:
    return len(client.get_children(PATH)) if client.exists(PATH) else 0


def natively(call: Callable[[], Any]) -> Any:
    """What *call* gives in a native thread; the hub turns meanwhile."""
    pool = ThreadPool(1)
    try:
        return pool.apply(call)
    finally:
        pool.kill()


# Who leads.


def test_one_host_runs_the_target_and_the_others_wait(hosts: Hosts) -> None:
    first, second = hosts.service(works), hosts.service(works)
    first.start()
    until(first, ServiceState.RUNNING)
    second.start()
    eventually(lambda: contenders(hosts.client()) == 2, "the second is not in the queue")
    assert first.is_leader and first.token is not None
    assert second.state is ServiceState.WAITING and not second.is_leader and second.token is None


def test_a_clean_stop_hands_over_at_once_to_a_greater_token(hosts: Hosts) -> None:
    tokens, started = [], Event()

    def target(leadership: Leadership) -> None:
        tokens.append(leadership.token)
        if len(tokens) == 2:
            started.set()
        works(leadership)

    first, second = hosts.service(target), hosts.service(target)
    first.start()
    until(first, ServiceState.RUNNING)
    second.start()
    eventually(lambda: contenders(hosts.client()) == 2, "the second is not in the queue")
    began = time.monotonic()
    assert first.stop()
    assert started.wait(LIMIT)
    assert time.monotonic() - began < 1.0, "far less than a session takes to end"
    assert first.state is ServiceState.IDLE and tokens[0] < tokens[1]


def test_a_target_that_returns_gives_the_lead_to_the_next_and_queues_again(hosts: Hosts) -> None:
    order: list[str] = []

    def once(name: str) -> Callable[[Leadership], object]:
        return lambda leadership: order.append(name)

    first, second = hosts.service(once("first")), hosts.service(once("second"))
    first.start()
    second.start()
    eventually(lambda: order.count("first") > 2 < order.count("second"), f"only {order}")
    assert first.error is None and second.error is None


def test_a_target_that_returns_waits_for_the_shortest_delay(hosts: Hosts) -> None:
    starts: list[float] = []
    service = hosts.service(
        lambda leadership: starts.append(time.monotonic()), requeue_delay=(0.2, 5.0)
    )
    service.start()
    eventually(lambda: len(starts) == 4, "four terms")
    assert all(b - a >= 0.2 for a, b in itertools.pairwise(starts))


def test_a_target_that_raises_is_logged_once_with_its_traceback_and_another_leads(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[int] = []

    def fails(leadership: Leadership) -> None:
        failures.append(leadership.token)
        raise ValueError("no such verdict")

    first = hosts.service(fails, requeue_delay=(LIMIT, LIMIT))
    second = hosts.service(works)
    first.start()
    eventually(lambda: failures, "the first leads")
    second.start()
    until(second, ServiceState.RUNNING)
    assert first.state is ServiceState.WAITING
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == "judge: the target failed: ValueError: no such verdict"
    assert record.exc_info is not None and "in fails" in str(logging.Formatter().format(record))
    assert record.token == failures[0]  # type: ignore[attr-defined]


def test_a_target_that_fails_and_fails_is_tried_again_later_and_later(hosts: Hosts) -> None:
    starts: list[float] = []

    def fails(leadership: Leadership) -> None:
        starts.append(time.monotonic())
        raise ValueError

    service = hosts.service(fails, requeue_delay=(0.01, 1000.0))
    service.start()
    # The waits are drawn from up to 10 ms, 20 ms, 40 ms, ...
    eventually(lambda: len(starts) == 7, "seven tries")
    assert starts[-1] - starts[0] > 0.02
    assert service.stop(), "in the middle of a wait"


def test_a_gevent_timeout_out_of_the_target_is_a_failure(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    recovered = Event()
    errors = [gevent.Timeout(3.0)]

    def target(leadership: Leadership) -> None:
        if errors:
            raise errors.pop()
        recovered.set()
        works(leadership)

    service = hosts.service(target)
    service.start()
    assert recovered.wait(LIMIT)
    assert [r.levelname for r in caplog.records if "failed" in r.getMessage()] == ["ERROR"]


def test_the_target_has_the_callers_context_without_its_deadline(hosts: Hosts) -> None:
    seen: list[Deadline | None] = []

    def target(leadership: Leadership) -> None:
        seen.append(Deadline.current())
        works(leadership)

    service = hosts.service(target)
    with deadline(0.001):
        service.start()
    until(service, ServiceState.RUNNING)
    eventually(lambda: seen, "the target runs")
    assert seen == [None]
    with deadline(0.001):
        time.sleep(0.002)
        assert service.stop(), "to stop is to clean up"


def test_a_transaction_of_a_deposed_leader_changes_nothing(hosts: Hosts) -> None:
    observer = hosts.client()
    observer.create("/value", b"old")
    done: list[object] = []

    def target(leadership: Leadership) -> None:
        transaction = leadership.transaction()
        transaction.set_data("/value", b"new")
        (node,) = observer.get_children(PATH)
        observer.delete(f"{PATH}/{node}")
        try:
            done.append(transaction.commit())
        except TransactionError as error:
            done.append(error)
        works(leadership)

    service = hosts.service(target)
    service.start()
    eventually(lambda: done, "the transaction")
    assert isinstance(done[0], TransactionError), done
    assert observer.get("/value")[0] == b"old"


# Starting and stopping.


def test_stop_before_the_grant_leaves_the_queue_at_once(hosts: Hosts) -> None:
    first, second = hosts.service(works), hosts.service(works)
    first.start()
    until(first, ServiceState.RUNNING)
    second.start()
    observer = hosts.client()
    eventually(lambda: contenders(observer) == 2, "the second is not in the queue")
    assert second.stop()
    assert second.state is ServiceState.IDLE
    eventually(lambda: contenders(observer) == 1, "the node of the second stays")
    assert first.is_leader


def test_stop_right_after_start_and_start_right_after_stop(hosts: Hosts) -> None:
    runs: list[int] = []

    def target(leadership: Leadership) -> None:
        runs.append(leadership.token)
        works(leadership)

    service = hosts.service(target)
    for _ in range(5):
        service.start()
        assert service.stop()
    assert runs == []
    service.start()
    until(service, ServiceState.RUNNING)
    eventually(lambda: runs, "it runs")
    assert contenders(hosts.client()) == 1


@pytest.mark.parametrize("after", [0.0005, 0.001, 0.002, 0.004, 0.008])
def test_a_stop_at_any_moment_of_the_grant_leaves_nothing(hosts: Hosts, after: float) -> None:
    client, observer = hosts.client(), hosts.client()
    for _ in range(5):
        service = hosts.service(works, client)
        service.start()
        gevent.sleep(after)
        assert service.stop() and service.state is ServiceState.IDLE
    eventually(lambda: contenders(observer) == 0, "a node stays")


def test_start_twice_is_a_mistake_and_stop_twice_is_not(hosts: Hosts) -> None:
    service = hosts.service(works)
    assert service.stop(), "it was never started"
    service.start()
    with pytest.raises(ZookeeperMisused, match="service judge is waiting: stop it first"):
        service.start()
    until(service, ServiceState.RUNNING)
    with pytest.raises(ZookeeperMisused, match="running"):
        service.start()
    assert service.stop() and service.stop()


def test_several_greenlets_may_stop_it_at_once(hosts: Hosts) -> None:
    service = hosts.service(works)
    service.start()
    until(service, ServiceState.RUNNING)
    stops = [gevent.spawn(service.stop) for _ in range(5)]
    gevent.joinall(stops, timeout=LIMIT)
    assert [stop.value for stop in stops] == [True] * 5


def test_as_a_context_manager_it_starts_and_stops(hosts: Hosts) -> None:
    service = hosts.service(works)
    with service:
        until(service, ServiceState.RUNNING)
    assert service.state is ServiceState.IDLE


def test_stop_in_the_target_asks_only(hosts: Hosts) -> None:
    answers: list[bool] = []

    def target(leadership: Leadership) -> None:
        answers.append(service.stop())
        assert leadership.stopping.is_set() is False, "the watcher has had no turn yet"
        works(leadership)

    service = hosts.service(target)
    service.start()
    until(service, ServiceState.IDLE)
    assert answers == [False] and service.error is None


def test_stop_in_the_hub_asks_only(hosts: Hosts) -> None:
    answers: list[bool] = []
    service = hosts.service(works)
    service.start()
    until(service, ServiceState.RUNNING)
    gevent.get_hub().loop.run_callback(lambda: answers.append(service.stop()))
    until(service, ServiceState.IDLE)
    assert answers == [False]


def test_stop_in_a_callback_of_the_session_and_of_a_watch(hosts: Hosts, zookeeper: Any) -> None:
    client = hosts.client()
    for trouble in ("session", "watch"):
        service, answers = hosts.service(works, client), []
        service.start()
        until(service, ServiceState.RUNNING)

        def stop(*_: object, service: Any = service, answers: Any = answers) -> None:
            answers.append(service.stop())

        if trouble == "session":
            remove = client.session.add_listener(
                lambda state, epoch, stop=stop: stop() if state is SessionState.LOST else None
            )
            zookeeper.expire(client)
        else:
            remove = None
            client.exists("/watched", stop)
            client.create("/watched")
        eventually(lambda answers=answers: answers, f"the callback of the {trouble}")
        assert answers == [True] and service.state is ServiceState.IDLE
        if remove is not None:
            remove()
            assert client.session.wait(SessionState.CONNECTED, LIMIT)


def test_stop_in_a_native_thread_waits_as_elsewhere(hosts: Hosts) -> None:
    service = hosts.service(works)
    for state in (ServiceState.RUNNING, ServiceState.IDLE):
        if state is ServiceState.RUNNING:
            service.start()
            until(service, state)
        assert natively(service.stop) is True
        assert service.state is ServiceState.IDLE


def test_stop_in_a_native_thread_before_the_grant(hosts: Hosts) -> None:
    first, second = hosts.service(works), hosts.service(works)
    first.start()
    until(first, ServiceState.RUNNING)
    second.start()
    eventually(lambda: contenders(hosts.client()) == 2, "the second is not in the queue")
    assert natively(second.stop) is True


def test_start_in_a_native_thread_is_refused(hosts: Hosts) -> None:
    service = hosts.service(works)
    with pytest.raises(ZookeeperMisused, match="thread"):
        natively(service.start)
    assert service.state is ServiceState.IDLE


def test_native_threads_may_ask_who_leads(hosts: Hosts) -> None:
    service = hosts.service(works)
    service.start()
    until(service, ServiceState.RUNNING)
    assert natively(lambda: (service.is_leader, service.token)) == (True, service.token)


def test_a_target_in_native_code_is_checked_there(hosts: Hosts) -> None:
    """A target that lets a thread work: the thread asks by itself."""
    lost: list[bool] = []

    def target(leadership: Leadership) -> None:
        def work() -> None:
            sleep = get_original("time", "sleep")
            while leadership.is_leader and not leadership.stopping.is_set():
                sleep(0.005)
            lost.append(True)

        natively(work)

    service = hosts.service(target)
    service.start()
    until(service, ServiceState.RUNNING)
    assert service.stop()
    assert lost == [True]


def test_a_target_that_does_not_die_keeps_the_lead_and_stop_says_so(hosts: Hosts) -> None:
    obey = Event()

    def undying(leadership: Leadership) -> None:
        while not obey.is_set():
            with contextlib.suppress(gevent.GreenletExit):
                gevent.sleep(LIMIT)

    first, second = hosts.service(undying, stop_timeout=0.1), hosts.service(works)
    first.start()
    until(first, ServiceState.RUNNING)
    second.start()
    assert first.stop(0.5) is False
    assert first.state is ServiceState.STOPPING and first.is_leader
    with pytest.raises(ZookeeperMisused, match="stopping"):
        first.start()
    assert second.state is ServiceState.WAITING
    obey.set()
    assert first.stop()
    until(second, ServiceState.RUNNING)


def test_killing_the_greenlet_of_the_service_ends_the_target_and_the_lead(hosts: Hosts) -> None:
    """As `gevent.killall()` of everything at the end of a program does it."""
    service, observer = hosts.service(works), hosts.client()
    for state in (ServiceState.WAITING, ServiceState.RUNNING):
        service.start()
        until(service, state)
        assert service._greenlet is not None
        service._greenlet.kill()
        until(service, ServiceState.IDLE)
        eventually(lambda: contenders(observer) == 0, "a node stays")


def test_a_service_on_a_client_that_was_stopped_fails_and_may_be_started_again(
    hosts: Hosts,
) -> None:
    client = hosts.client()
    service = hosts.service(works, client)
    client.stop()
    with pytest.raises(ZookeeperMisused, match="stopped"):
        service.run_forever()
    assert service.state is ServiceState.FAILED and isinstance(service.error, ZookeeperMisused)
    assert service.stop(), "there is nothing to stop"
    client.start(timeout=LIMIT)
    service.start()
    until(service, ServiceState.RUNNING)
    assert service.error is None


def test_a_stop_timeout_that_the_session_cannot_afford_fails(hosts: Hosts) -> None:
    service = hosts.service(works, stop_timeout=SESSION * 0.6)
    with pytest.raises(ConfigurationError, match=r"a stop_timeout of 1.2 s is more than half"):
        service.run_forever()
    eventually(lambda: contenders(hosts.client()) == 0, "the node stays")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"on_suspend": "hope"}, "on_suspend"),
        ({"fence": "pray"}, "fence"),
        ({"stop_timeout": 0}, "stop_timeout"),
        ({"stop_timeout": float("inf")}, "stop_timeout"),
        ({"requeue_delay": (2, 1)}, "requeue_delay"),
        ({"requeue_delay": (0, 1)}, "requeue_delay"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], match: str) -> None:
    client = Client("127.0.0.1:1")
    with pytest.raises(ValueError, match=match):
        SingletonService(client, PATH, works, **options)
    client.close()


def test_a_plain_client_and_a_target_that_is_none_are_refused() -> None:
    from kazoo.client import KazooClient

    with pytest.raises(ZookeeperMisused, match="KazooClient"):
        SingletonService(KazooClient("127.0.0.1:1"), PATH, works)
    client = Client("127.0.0.1:1")
    with pytest.raises(TypeError, match="callable"):
        SingletonService(client, PATH, None)  # type: ignore[arg-type]
    client.close()


# Running for ever.


def test_run_forever_returns_after_a_stop(hosts: Hosts) -> None:
    service = hosts.service(works)
    main = gevent.spawn(service.run_forever)
    until(service, ServiceState.RUNNING)
    service.stop()
    main.get(timeout=LIMIT)


@pytest.mark.parametrize("error", [gevent.GreenletExit(), gevent.Timeout(1), KeyboardInterrupt()])
def test_run_forever_stops_the_service_and_passes_on_what_strikes(
    hosts: Hosts, error: BaseException
) -> None:
    service, caught = hosts.service(works), []

    def main() -> None:
        try:
            service.run_forever()
        except BaseException as e:
            caught.append((e, service.state))

    greenlet = gevent.spawn(main)
    until(service, ServiceState.RUNNING)
    greenlet.kill(error)
    assert caught == [(error, ServiceState.IDLE)]


def test_run_forever_stops_when_the_wait_of_its_thread_says_so(hosts: Hosts) -> None:
    service, asked = hosts.service(works), Event()

    def wait(seconds: float) -> bool:
        assert 0 < seconds < 10
        return bool(asked.wait(seconds))

    main = gevent.spawn(service.run_forever, wait=wait)
    until(service, ServiceState.RUNNING)
    asked.set()
    main.get(timeout=LIMIT)
    assert service.state is ServiceState.IDLE


RUN_FOREVER = "service.run_forever()"
SCRIPT = """
import sys
if sys.argv[1] == "green":
    from gevent import monkey; monkey.patch_all()
import gevent
from sepelib.zookeeper import Client, SingletonService
def target(leadership):
    try:
        print("leads", flush=True)
        {body}
    finally:
        print("cleaned up", flush=True)
with Client(sys.argv[2], timeout=2.0) as client:
    service = SingletonService(client, "/app/judge", target, stop_timeout=0.5)
    {main}
print("over")
"""


@pytest.mark.parametrize("world", ["plain", "green"])
def test_ctrl_c_stops_a_program_cleanly(zookeeper: Any, world: str, tmp_path: Path) -> None:
    program, out = start(world, zookeeper, tmp_path, "leadership.sleep(100)", RUN_FOREVER)
    try:
        eventually(lambda: "leads" in out.read_text(), "it leads")
        program.send_signal(signal.SIGINT)
        eventually(lambda: program.poll() is not None, "it ends")
    finally:
        program.kill()
    log = out.read_text()
    assert "cleaned up" in log and "over" not in log
    assert log.rstrip().endswith("KeyboardInterrupt"), log
    assert program.returncode == -signal.SIGINT


@pytest.mark.parametrize("main", [RUN_FOREVER, "service.start(); gevent.sleep(100)"])
@pytest.mark.parametrize("world", ["plain", "green"])
def test_a_target_that_exits_ends_the_program(
    zookeeper: Any, world: str, main: str, tmp_path: Path
) -> None:
    program, out = start(world, zookeeper, tmp_path, "sys.exit(3)", main)
    try:
        eventually(lambda: program.poll() is not None, "it ends")
    finally:
        program.kill()
    assert program.returncode == 3, out.read_text()
    assert "cleaned up" in out.read_text() and "over" not in out.read_text()


def start(
    world: str, zookeeper: Any, tmp_path: Path, body: str, main: str
) -> tuple[subprocess.Popen[bytes], Path]:
    out = tmp_path / "out"
    with open(out, "wb") as file:
        program = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(body=body, main=main), world, zookeeper.hosts],
            stdout=file,
            stderr=file,
        )
    return program, out


# What it tells.


def test_metrics_and_log_lines(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sepelib.zookeeper.singleton")
    recorder, ends = MemoryRecorder(), Event()

    def target(leadership: Leadership) -> None:
        while not ends.is_set():
            leadership.sleep(0.001)
        ends.clear()

    service = hosts.service(target, hosts.client(recorder=recorder), name="the judge")

    def value(name: str) -> float:
        return recorder.value(name, "the judge")

    assert value("zk_service_state") == 0
    service.start()
    assert value("zk_service_state") == 1
    until(service, ServiceState.RUNNING)
    assert value("zk_service_state") == 2 and value("zk_service_restarts") == 0
    token = service.token
    ends.set()
    eventually(lambda: value("zk_service_restarts") == 1, "the second term")
    until(service, ServiceState.RUNNING)
    service.stop()
    assert value("zk_service_state") == 0
    records = [r for r in caplog.records if r.name == "sepelib.zookeeper.singleton"]
    assert [r.getMessage() for r in records] == [
        "the judge: waiting, was idle",
        "the judge: running, was waiting",
        "the judge: stopping, was running",
        "the judge: waiting, was stopping",
        "the judge: running, was waiting",
        "the judge: stopping, was running",
        "the judge: idle, was stopping",
    ]
    assert {(r.path, r.service) for r in records} == {(PATH, "the judge")}  # type: ignore[attr-defined]
    assert records[1].token == token  # type: ignore[attr-defined]
