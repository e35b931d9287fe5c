"""What a singleton service promises while the network, the servers and the hosts fail."""

import itertools
import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest
from gevent.event import Event
from kazoo.exceptions import NotEmptyError

from sepelib.zookeeper import Client, LockLost, SessionState, SingletonService
from sepelib.zookeeper.singleton import Leadership, ServiceState

PATH = "/app/judge"
SESSION = 1.5
TICK = 0.2
LIMIT = 20.0  # seconds; far more than anything here takes


class Host:
    """A service with a client of its own, behind a proxy of its own.

    Its target notes when it lives, without asking anybody whether it may.
    """

    def __init__(self, zookeeper: Any, exits: ExitStack, **options: Any) -> None:
        self.proxy = exits.enter_context(zookeeper.proxy())
        self.client = Client("{}:{}{}".format(*self.proxy.address, chroot(zookeeper)), SESSION)
        exits.callback(self.client.close)
        self.client.start(timeout=LIMIT)
        self.events: list[str] = []
        self.lived: list[float] = []
        self.died = Event()
        options = {"requeue_delay": (0.05, 0.1)} | options
        self.service = SingletonService(self.client, PATH, self._target, **options)
        exits.callback(self._stop)
        self.service.start()

    @property
    def state(self) -> ServiceState:
        return self.service.state

    def _target(self, leadership: Leadership) -> None:
        self.events.append("start")
        try:
            while True:
                self.lived.append(time.monotonic())
                gevent.sleep(0.005)
        except (LockLost, gevent.GreenletExit):
            self.lived.append(time.monotonic())
            if leadership.lost.is_set():
                with pytest.raises(LockLost) as error:
                    leadership.check()
                self.events.append(error.value.reason)
            raise
        finally:
            self.died.set()

    def _stop(self) -> None:
        assert self.service.stop(LIMIT), f"{self.service} does not stop"


def chroot(zookeeper: Any) -> str:
    _, slash, path = zookeeper.hosts.partition("/")
    return f"{slash}{path}"


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as exits:
        yield exits


def eventually(condition: Callable[[], object], what: str) -> None:
    with gevent.Timeout(LIMIT, AssertionError(what)):
        while not condition():
            gevent.sleep(0.002)


def until(host: Host, state: ServiceState) -> None:
    eventually(lambda: host.state is state, f"{host.service} is not {state.value}")


def leader_and_heir(zookeeper: Any, exits: ExitStack, **options: Any) -> tuple[Host, Host]:
    leader = Host(zookeeper, exits, **options)
    until(leader, ServiceState.RUNNING)
    heir = Host(zookeeper, exits)
    eventually(lambda: len(heir.client.get_children(PATH)) == 2, "the heir is not in the queue")
    eventually(lambda: leader.events, "the target runs")
    return leader, heir


def test_a_leader_in_a_partition_is_dead_before_another_starts(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    leader.proxy.hold()
    until(heir, ServiceState.RUNNING)
    eventually(lambda: heir.lived, "the heir's target runs")
    assert leader.events == ["start", "the lease is running out"]
    assert leader.lived[-1] < heir.lived[0]
    assert leader.state is ServiceState.WAITING and not leader.service.is_leader

    leader.proxy.heal()
    leader.proxy.cut()
    heir.service.stop()
    until(leader, ServiceState.RUNNING)


def test_a_leader_that_is_never_answered_though_it_sends_is_dead_before_another_starts(
    zookeeper: Any, exits: ExitStack
) -> None:
    """Answers are lost, requests arrive: the server keeps the session, the leader cannot know."""
    leader, heir = leader_and_heir(zookeeper, exits)
    leader.proxy.hold_replies()
    assert leader.died.wait(LIMIT)
    assert leader.events == ["start", "the lease is running out"]
    leader.proxy.heal()
    eventually(lambda: len(leader.events) + len(heir.events) == 3, "somebody leads again")


def test_a_short_outage_is_sat_out(zookeeper: Any, exits: ExitStack) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    leader.proxy.cut()
    assert leader.client.session.wait(SessionState.SUSPENDED, LIMIT)
    assert leader.client.session.wait(SessionState.CONNECTED, LIMIT)
    gevent.sleep(SESSION)  # the outage must not count later either
    assert leader.events == ["start"] and leader.service.is_leader and heir.events == []


def test_on_suspend_stop_ends_the_target_at_the_first_sign(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, _ = leader_and_heir(zookeeper, exits, on_suspend="stop")
    leader.proxy.cut()
    assert leader.died.wait(LIMIT)
    assert leader.events == ["start", "the session is suspended"]


def test_an_expired_leader_ends_its_target_and_queues_again(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    former = leader.service.token
    zookeeper.expire(leader.client)
    assert leader.died.wait(LIMIT)
    assert leader.events[1] == "session"
    until(heir, ServiceState.RUNNING)
    assert former is not None and heir.service.token is not None and former < heir.service.token
    eventually(
        lambda: len(heir.client.get_children(PATH)) == 2, "the former leader is in the queue"
    )
    heir.service.stop()
    until(leader, ServiceState.RUNNING)


def test_a_leader_whose_node_is_deleted_ends_its_target_and_queues_again(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    nodes = heir.client.get_children(PATH)
    own = min(nodes, key=lambda node: node[-10:])
    gevent.sleep(0.5)  # a node is watched once it has been held for a moment
    heir.client.delete(f"{PATH}/{own}")
    assert leader.died.wait(LIMIT)
    assert leader.events == ["start", "deleted"]
    until(heir, ServiceState.RUNNING)


def test_the_servers_away_end_the_target_and_back_again_there_is_one_leader(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    with zookeeper.stop():
        assert leader.died.wait(LIMIT)
        assert leader.events == ["start", "the lease is running out"]
        assert not leader.service.is_leader
    eventually(lambda: len(leader.events) + len(heir.events) == 3, "somebody leads again")


def test_a_stop_while_the_servers_are_away_does_not_wait_for_them(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    for host in (leader, heir):
        host.proxy.refuse()
        host.proxy.cut()
    eventually(
        lambda: leader.client.session.state is not SessionState.CONNECTED, "the outage is noticed"
    )
    with gevent.Timeout(LIMIT / 2, AssertionError("it did not come true")):
        assert heir.service.stop() and leader.service.stop()
    assert leader.died.is_set()


def test_a_queue_that_somebody_removes_is_made_again(zookeeper: Any, exits: ExitStack) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    observer = exits.enter_context(Client(zookeeper.hosts, 10.0))
    gevent.sleep(0.5)  # as above
    eventually(lambda: removed(observer, PATH), "nobody is faster than the removal")
    assert leader.died.wait(LIMIT)
    eventually(lambda: ServiceState.RUNNING in (leader.state, heir.state), "one leads again")
    eventually(
        lambda: observer.exists(PATH) and len(observer.get_children(PATH)) == 2, "both queue"
    )


def removed(observer: Client, path: str) -> bool:
    try:
        observer.delete(path, recursive=True)
    except NotEmptyError:
        return False  # by then somebody was in the queue again
    return True


def test_a_client_that_is_stopped_under_the_service_ends_the_target(
    zookeeper: Any, exits: ExitStack
) -> None:
    leader, heir = leader_and_heir(zookeeper, exits)
    leader.client.stop()
    assert leader.died.wait(LIMIT)
    until(leader, ServiceState.FAILED)
    eventually(lambda: heir.lived, "the heir's target runs")
    assert leader.lived[-1] < heir.lived[0]


def test_greenlets_of_the_target_live_on_and_are_told_by_check(
    zookeeper: Any, exits: ExitStack
) -> None:
    strays: list[Any] = []

    def stray(leadership: Leadership) -> None:
        while True:
            leadership.check()
            gevent.sleep(0.005)

    def target(leadership: Leadership) -> None:
        strays.append(gevent.spawn(_error_of, stray, leadership))
        leadership.sleep(LIMIT)

    client = exits.enter_context(Client(zookeeper.hosts, SESSION))
    service = exits.enter_context(SingletonService(client, PATH, target))
    eventually(lambda: strays, "it leads")
    zookeeper.expire(client)
    eventually(strays[0].ready, "the stray is told")
    assert isinstance(strays[0].value, LockLost)
    eventually(lambda: len(strays) == 2, "it leads again, in the same process")
    service.stop()
    eventually(strays[1].ready, "the stray is told")


def _error_of(call: Callable[..., object], *args: object) -> BaseException | None:
    try:
        call(*args)
    except Exception as error:
        return error
    return None


def test_a_target_that_outlives_its_lease_is_critical_and_its_service_leads_no_more(
    zookeeper: Any, exits: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    obey, started, ended = Event(), Event(), Event()

    def undying(leadership: Leadership) -> None:
        started.set()
        while not obey.is_set():
            with suppress(LockLost, gevent.GreenletExit):
                gevent.sleep(LIMIT)
        ended.set()

    client = exits.enter_context(Client(zookeeper.hosts, SESSION))
    service = exits.enter_context(SingletonService(client, PATH, undying))
    assert started.wait(LIMIT)
    zookeeper.expire(client)
    eventually(lambda: any(r.levelno == logging.CRITICAL for r in caplog.records), "it is critical")
    assert service.state is ServiceState.STOPPING and not service.is_leader
    heir = Host(zookeeper, exits)
    until(heir, ServiceState.RUNNING)
    obey.set()
    assert ended.wait(LIMIT)
    eventually(lambda: service.state is ServiceState.WAITING, "it is back in the queue")
    assert len([r for r in caplog.records if r.levelno == logging.CRITICAL]) == 1


# In processes of their own.

WORKER = """
import os, sys, time
if sys.argv[1] == "green":
    from gevent import monkey; monkey.patch_all()
import gevent
from sepelib.zookeeper import Client, SingletonService

hosts, out, behaviour = sys.argv[2:5]
owner = os.getppid()

def end_with_the_owner():
    while os.getppid() == owner:
        gevent.sleep(0.2)
    os._exit(1)

def note(kind, at, token):
    os.write(file, f"{kind} {at!r} {token}\\n".encode())

def lives(leadership):
    # "lives" asks nobody; "leads" was allowed to, after the time was taken.
    while True:
        at = time.monotonic()
        note("lives", at, leadership.token)
        if leadership.is_leader:
            note("leads", at, leadership.token)
        gevent.sleep(0.01)

def never_dies(leadership):
    note("lives", time.monotonic(), leadership.token)
    while True:
        try:
            gevent.sleep(100)
        except BaseException:
            pass

file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
gevent.spawn(end_with_the_owner)
target = never_dies if behaviour == "exit" else lives
fence = "exit" if behaviour == "exit" else "kill"
with Client(hosts, timeout=2.0) as client:
    SingletonService(
        client, "/app/judge", target, fence=fence, requeue_delay=(0.05, 0.1)
    ).run_forever()
"""


class Line(NamedTuple):
    kind: str
    at: float
    token: int


class Worker:
    """A host that is a process, behind a proxy of its own."""

    def __init__(
        self, zookeeper: Any, exits: ExitStack, folder: Path, name: str, behaviour: str = ""
    ) -> None:
        from gevent import monkey

        self.world = "green" if monkey.is_module_patched("socket") else "plain"
        self.behaviour = behaviour
        self.out = folder / name
        self.log = folder / f"{name}.log"
        self.proxy = exits.enter_context(zookeeper.proxy())
        self.hosts = "{}:{}{}".format(*self.proxy.address, chroot(zookeeper))
        exits.callback(self.kill)
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, self.world, self.hosts, self.out, self.behaviour],
                stdout=log,
                stderr=log,
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        eventually(lambda: self.process.poll() is not None, "the kernel kills")

    def history(self) -> list[Line]:
        if not self.out.exists():
            return []
        rows = (line.split() for line in self.out.read_text().splitlines(keepends=True))
        # The last line of a killed process may be a part of one.
        return [Line(row[0], float(row[1]), int(row[2])) for row in rows if len(row) == 3]

    def leads_since(self, when: float) -> bool:
        return any(line.kind == "leads" and line.at > when for line in self.history())


def leads(worker: Worker) -> None:
    now = time.monotonic()
    eventually(lambda: worker.leads_since(now), f"no lead: {worker.log.read_text()}")


def test_after_kill_9_of_the_leader_another_leads_within_the_session_and_two_ticks(
    zookeeper: Any, exits: ExitStack, tmp_path: Path
) -> None:
    leader = Worker(zookeeper, exits, tmp_path, "leader")
    leads(leader)
    heir = Host(zookeeper, exits)
    eventually(lambda: len(heir.client.get_children(PATH)) == 2, "the heir is not in the queue")
    leader.kill()
    killed = time.monotonic()
    until(heir, ServiceState.RUNNING)
    # The proxy has told the server that the connection is gone: that ends no session. What is
    # beyond two ticks is this machine's.
    assert time.monotonic() - killed < SESSION + 2 * TICK + 2.0


def test_a_leader_that_was_stopped_by_a_signal_leads_no_more_when_it_wakes_up(
    zookeeper: Any, exits: ExitStack, tmp_path: Path
) -> None:
    leader = Worker(zookeeper, exits, tmp_path, "leader")
    leads(leader)
    heir = Worker(zookeeper, exits, tmp_path, "heir")
    leader.signal(signal.SIGSTOP)
    leads(heir)
    leader.signal(signal.SIGCONT)
    heir.signal(signal.SIGINT)
    leads(leader)
    refuse_two_leaders([leader, heir], "leads")
    assert "Traceback" not in leader.log.read_text()


def test_fence_exit_ends_a_process_whose_target_outlives_the_lease(
    zookeeper: Any, exits: ExitStack, tmp_path: Path
) -> None:
    leader = Worker(zookeeper, exits, tmp_path, "leader", "exit")
    eventually(leader.history, f"no lead: {leader.log}")
    heir = Host(zookeeper, exits)
    leader.proxy.hold()
    eventually(lambda: leader.process.poll() is not None, "it ends")
    assert leader.process.returncode == 70, leader.log.read_text()
    assert "the target is not dead; ending this process" in leader.log.read_text()
    assert heir.lived == [], "dead before another leads"


def refuse_two_leaders(workers: list[Worker], kind: str) -> None:
    """No line of an older token after one of a younger: then the two never ran side by side."""
    lines = sorted(
        (line.at, line.token, worker.out.name)
        for worker in workers
        for line in worker.history()
        if line.kind == kind
    )
    stale = [(a, b) for a, b in itertools.pairwise(lines) if a[1] > b[1]]
    assert not stale, f"two leaders: {stale[:5]}"
    owners: dict[int, str] = {}
    for _, token, name in lines:
        assert owners.setdefault(token, name) == name, f"one token for two: {token}"


@pytest.mark.slow
def test_there_are_never_two_leaders_whatever_happens_to_them(
    zookeeper: Any, exits: ExitStack, tmp_path: Path
) -> None:
    workers = [Worker(zookeeper, exits, tmp_path, f"worker-{n}") for n in range(3)]
    faults = ["kill", "hold", "hold_replies", "cut", "stop", "kill"]
    random.Random(7).shuffle(faults)
    for fault in faults:
        worker = the_leader(workers)
        match fault:
            case "kill":
                worker.kill()
                worker.start()
            case "hold":
                worker.proxy.hold()
                gevent.sleep(1.2 * SESSION)
            case "hold_replies":
                worker.proxy.hold_replies()
                gevent.sleep(0.5 * SESSION)
            case "cut":
                worker.proxy.cut()
            case "stop":
                worker.signal(signal.SIGSTOP)
                gevent.sleep(1.2 * SESSION)
                worker.signal(signal.SIGCONT)
        worker.proxy.heal()
    the_leader(workers)
    refuse_two_leaders(workers, "leads")
    tokens = {line.token for worker in workers for line in worker.history()}
    assert len(tokens) >= 4, "the lead has changed with each that ended a session"


def test_targets_that_ask_nobody_do_not_live_side_by_side_either(
    zookeeper: Any, exits: ExitStack, tmp_path: Path
) -> None:
    """As long as their hosts run: who is stopped by SIGSTOP lives on for a moment afterwards."""
    workers = [Worker(zookeeper, exits, tmp_path, f"worker-{n}") for n in range(2)]
    leader = the_leader(workers)
    (other,) = [worker for worker in workers if worker is not leader]
    leader.proxy.hold()
    leads(other)
    refuse_two_leaders(workers, "lives")


def the_leader(workers: list[Worker]) -> Worker:
    """Who leads from now on; waits until somebody does."""
    now = time.monotonic()
    found: list[Worker] = []

    def look() -> bool:
        found[:] = [worker for worker in workers if worker.leads_since(now)]
        return bool(found)

    eventually(look, "nobody leads")
    return found[0]
