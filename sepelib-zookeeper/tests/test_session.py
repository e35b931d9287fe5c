"""The lease on a session: what is believed of it, by the clock alone and with a real server."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.monkey
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import Client, SessionState
from sepelib.zookeeper._lease import Lease, Move, Timings
from sepelib.zookeeper.session import Session
from sepelib.zookeeper.testing import ZookeeperServer

CONNECTED, SUSPENDED, LOST = SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.LOST
T = 1.5

# ---- by the clock alone


@given(st.floats(2.0, 60.0))
def test_ping_comes_before_suspend_before_stop_before_the_end_of_the_lease(timeout: float) -> None:
    timings = Timings.of(timeout)
    stop = timings.lease - timings.stop_timeout
    assert 0 < timings.ping < timings.silence < stop < timings.lease < timeout
    # A ping that is not answered has its time before the silence ends the connection.
    assert timings.ping + timings.answer <= timings.silence * (1 + 1e-9)
    assert timings.margin == pytest.approx(max(timeout / 10, 0.1))


@given(st.floats(0.01, 2.0))
def test_short_sessions_have_a_lease_too(timeout: float) -> None:
    timings = Timings.of(timeout)
    assert 0 < timings.ping < timings.silence <= timings.lease < timeout


def held(lease: Lease, now: float) -> bool:
    return lease.holds(lease.epoch, now)


def connected(now: float = 100.0, timeout: float = 10.0) -> Lease:
    lease = Lease()
    assert lease.connected(7, timeout, now, now) == [Move(CONNECTED, 1)]
    return lease


def test_the_lease_counts_from_the_sending_of_the_last_answered_request() -> None:
    lease = connected()
    assert lease.deadline == 109.0
    assert lease.answered(sent=103.0, now=108.0) == []
    assert lease.deadline == 112.0
    assert lease.answered(sent=101.0, now=108.5) == []
    assert lease.deadline == 112.0


def test_it_is_lost_when_nobody_says_so() -> None:
    lease = connected()
    assert lease.disconnected(105.0) == [Move(SUSPENDED, 1)]
    assert held(lease, 108.9)
    assert lease.passed(108.9) == []
    assert not held(lease, 109.0)
    assert lease.passed(109.0) == [Move(LOST, 1)]
    assert lease.passed(110.0) == []


def test_an_answer_read_after_the_deadline_loses_first_and_begins_a_new_epoch() -> None:
    lease = connected()
    assert lease.answered(sent=108.0, now=109.5) == [Move(LOST, 1), Move(CONNECTED, 2)]
    assert not lease.holds(1, 109.5)
    assert lease.holds(2, 109.5)


def test_an_answer_whose_own_lease_is_over_is_no_contact() -> None:
    lease = connected()
    assert lease.answered(sent=101.0, now=111.0) == [Move(LOST, 1)]
    assert not held(lease, 111.0)
    assert lease.answered(sent=111.0, now=111.1) == [Move(CONNECTED, 2)]


def test_a_late_return_of_the_same_session_is_a_new_epoch() -> None:
    lease = connected()
    lease.disconnected(105.0)
    assert lease.connected(7, 10.0, 120.0, 120.1) == [Move(LOST, 1), Move(CONNECTED, 2)]
    assert lease.session_id == 7


def test_a_return_in_time_is_the_same_epoch() -> None:
    lease = connected()
    lease.disconnected(105.0)
    assert lease.connected(7, 10.0, 106.0, 106.1) == [Move(CONNECTED, 1)]
    assert lease.deadline == 115.0


def test_another_session_id_is_never_the_same_epoch() -> None:
    lease = connected()
    lease.disconnected(105.0)
    assert lease.connected(8, 10.0, 106.0, 106.1) == [Move(LOST, 1), Move(CONNECTED, 2)]


def test_a_shorter_timeout_counts_from_the_request_that_asked_for_it() -> None:
    lease = connected()
    lease.disconnected(101.0)
    assert lease.connected(7, 4.0, 102.0, 102.1) == [Move(CONNECTED, 1)]
    assert lease.deadline == pytest.approx(105.6)
    lease.disconnected(103.0)
    assert lease.connected(7, 1.0, 103.1, 104.5) == [Move(CONNECTED, 1), Move(LOST, 1)]


def test_who_was_told_that_it_is_over_is_not_told_otherwise_later() -> None:
    # A thread asks at 109.0, just before an answer of 108.9 is noted in the hub's.
    lease = connected()
    assert not lease.holds(1, 109.0)
    assert lease.answered(sent=108.5, now=108.9) == [Move(LOST, 1), Move(CONNECTED, 2)]
    assert not lease.holds(1, 108.9)


def test_an_end_by_the_servers_word_is_at_once() -> None:
    lease = connected()
    assert lease.ended() == [Move(LOST, 1)]
    assert not held(lease, 100.1)
    assert lease.answered(sent=100.0, now=100.1) == []


class LeaseMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.lease = Lease()
        self.now = 1000.0
        self.moves: list[Move] = []
        self.answers: list[float] = []  # until when each of them proves the session
        self.over: set[int] = set()

    def note(self, moves: list[Move]) -> None:
        self.moves += moves

    def sent(self, ago: float) -> float:
        sent = self.now - ago
        self.answers.append(sent + self.lease.timeout)
        return sent

    @rule(seconds=st.floats(0.0, 30.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(session_id=st.integers(1, 3), timeout=st.floats(0.5, 60.0), ago=st.floats(0.0, 20.0))
    def server_accepts(self, session_id: int, timeout: float, ago: float) -> None:
        self.answers.append(self.now - ago + timeout)
        self.note(self.lease.connected(session_id, timeout, self.now - ago, self.now))

    @rule(ago=st.floats(0.0, 20.0))
    def server_answers(self, ago: float) -> None:
        self.note(self.lease.answered(self.sent(ago), self.now))

    @rule()
    def connection_breaks(self) -> None:
        self.note(self.lease.disconnected(self.now))

    @rule()
    def server_expires(self) -> None:
        self.note(self.lease.ended())

    @rule()
    def timer_fires(self) -> None:
        self.note(self.lease.passed(self.now))

    @invariant()
    def no_epoch_comes_back(self) -> None:
        for epoch in range(self.lease.epoch + 2):
            if self.lease.holds(epoch, self.now):
                assert epoch not in self.over
                assert epoch == self.lease.epoch
                # Some answered request says so, with a margin.
                assert any(self.now < until for until in self.answers)
            elif epoch <= self.lease.epoch:
                self.over.add(epoch)

    @invariant()
    def moves_are_those_of_the_table(self) -> None:
        state, epoch = LOST, 0
        for move in self.moves:
            allowed = {
                LOST: {(CONNECTED, epoch + 1)},
                CONNECTED: {(SUSPENDED, epoch), (LOST, epoch)},
                SUSPENDED: {(CONNECTED, epoch), (LOST, epoch)},
            }
            assert move in allowed[state]
            state, epoch = move
        assert (state, epoch) == (self.lease.state, self.lease.epoch)


LeaseMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestLeaseInAnyOrder = LeaseMachine.TestCase


# ---- with a real server

real_sleep: Callable[[float], None] = gevent.monkey.get_original("time", "sleep")


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def make() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(hosts: str, timeout: float = T, **options: Any) -> Client:
        client = Client(hosts, timeout, **options)
        clients.append(client)
        client.start()
        return client

    yield make
    for client in clients:
        client.close()


class History:
    """Each move of a session, when it was made and what was left of the lease."""

    def __init__(self, client: Client) -> None:
        self.session = client.session
        self.rows: list[tuple[SessionState, int, float]] = []
        client.session.subscribe(self._note)

    def _note(self) -> None:
        session = self.session
        self.rows.append((session.state, session.epoch, session.clock()))

    @property
    def moves(self) -> list[tuple[SessionState, int]]:
        return [row[:2] for row in self.rows]

    def time_of(self, state: SessionState) -> float:
        return next(row[2] for row in self.rows if row[0] is state)


def test_a_session_that_is_answered_stays(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    history = History(client)
    session = client.session
    assert (session.state, session.epoch, session.timeout) == (CONNECTED, 1, T)
    assert session.session_id == client.client_id[0]
    gevent.sleep(1.2 * T)
    assert history.moves == []
    assert session.holds(1)
    assert 0.3 * T < session.lease_remaining() <= 0.9 * T
    client.stop()
    assert history.moves == [(LOST, 1)]
    assert (session.holds(1), session.lease_remaining()) == (False, 0.0)


def test_the_clock_runs_on_while_the_machine_sleeps(server: ZookeeperServer, make: Any) -> None:
    session = make(server.hosts).session
    assert abs(session.clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5.0
    assert session.lease_deadline > session.clock()


def test_in_a_partition_it_is_suspended_and_lost_before_the_server_can_give_it_away(
    server: ZookeeperServer, make: Any
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts)
    other = make(server.hosts, 20.0)
    client.create("/partition", ephemeral=True)
    history = History(client)
    gone = gevent.event.Event()
    when: list[float] = []

    def note(event: object) -> None:
        when.append(client.session.clock())
        gone.set()

    other.exists("/partition", watch=note)
    proxy.hold()
    cut_at = client.session.clock()
    assert client.session.wait(LOST, 10 * T)
    assert gone.wait(10 * T)
    assert history.moves == [(SUSPENDED, 1), (LOST, 1)]
    assert history.time_of(SUSPENDED) - cut_at < 0.6 * T + 0.5
    assert history.time_of(LOST) < when[0]
    assert history.time_of(LOST) >= client.session.lease_deadline
    assert not client.session.holds(1)
    proxy.heal()
    assert client.session.wait(CONNECTED, 10 * T)
    assert client.session.epoch == 2


@pytest.mark.parametrize("sending", [False, True])
def test_silence_is_noticed_also_by_who_keeps_sending(
    server: ZookeeperServer, make: Any, sending: bool
) -> None:
    proxy = server.proxy()
    client = make(proxy.hosts)
    proxy.hold_replies()
    start = client.session.clock()
    while client.session.state is CONNECTED and client.session.clock() < start + 5 * T:
        if sending:
            client.get_async("/")
        gevent.sleep(0.01)
    assert client.session.state is SUSPENDED
    assert client.session.holds(1)


def test_the_servers_word_is_heard(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    history = History(client)
    old = client.session.session_id
    server.expire(client)
    assert client.session.wait(LOST, 10.0)
    assert client.session.wait(CONNECTED, 10.0)
    assert [move for move in history.moves if move[0] is not SUSPENDED] == [
        (LOST, 1),
        (CONNECTED, 2),
    ]
    assert client.session.session_id != old
    assert not client.session.holds(1)
    assert client.session.holds(2)


def test_a_session_found_alive_after_it_was_declared_lost_is_a_new_epoch(make: Any) -> None:
    with ZookeeperServer() as server:
        client = make(server.hosts, 2.0)
        client.create("/late", ephemeral=True)
        old = client.session.session_id
        with server.kill():
            assert client.session.wait(LOST, 10 * T)
        assert client.session.wait(CONNECTED, 20.0)
        # The restarted server knows it from its log, and gave it a fresh T.
        assert (client.session.session_id, client.session.epoch) == (old, 2)
        assert client.get("/late")[1].ephemeralOwner == old
        assert not client.session.holds(1)
        client.close()


def test_a_blocked_hub_within_the_lease_is_no_harm(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    history = History(client)
    for _ in range(2):
        # Its answer waits in the socket's buffer when the hub runs again, behind the timers.
        result = client.exists_async("/")
        real_sleep(0.65 * T)
        assert result.get()
        assert client.exists("/")
    assert history.moves == []
    assert client.session.holds(1)


def test_a_hub_blocked_for_longer_has_lost_its_lease(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    history = History(client)
    client.exists("/")
    real_sleep(0.95 * T)
    assert not client.session.holds(1)
    assert client.session.wait(LOST, 5.0)
    assert client.session.wait(CONNECTED, 20.0)
    assert history.moves[0] == (LOST, 1)
    assert client.session.epoch == 2
    assert not client.session.holds(1)


def test_the_state_is_never_connected_when_the_lease_is_over(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts)
    history = History(client)
    real_sleep(0.95 * T)
    # No timer has had its turn yet.
    assert (client.session.state, history.moves) == (LOST, [])
    assert not client.session.wait(CONNECTED, 0.0)
    assert client.session.wait(CONNECTED, 20.0)
    assert history.moves[0] == (LOST, 1)
    assert client.session.epoch == 2


def test_the_next_ping_is_due_a_fifth_after_the_answer_to_the_last(
    server: ZookeeperServer, make: Any
) -> None:
    client = make(server.hosts)
    connection = client._connection
    answers = 0
    seen = connection._answered_at
    while answers < 3:
        gevent.sleep(0.01)
        if connection._answered_at > seen:
            seen = connection._answered_at
            answers += 1
            assert client._beat.due <= seen + client.session.timings.ping


def test_who_stops_the_client_when_told_is_told_of_that_last() -> None:
    session = Session()
    told: list[tuple[SessionState, int]] = []

    def stop() -> None:
        if session.epoch == 2 and session.state is CONNECTED:
            session._ended("closed")

    session.subscribe(stop)
    session.add_listener(lambda *move: told.append(move))
    session._connected(7, 10.0, session.clock())
    session._lease.deadline = session.clock()
    session._answered(session.clock())
    gevent.sleep(0)
    assert told == [(CONNECTED, 1), (LOST, 1), (CONNECTED, 2), (LOST, 2)]


def test_who_waits_in_a_lost_session_is_woken_by_the_stop() -> None:
    client = Client("127.0.0.1:1")
    client.start_async()
    woken: list[SessionState] = []
    client.session.subscribe(lambda: woken.append(client.session.state))
    client.stop()
    assert woken == [LOST]


def test_a_process_that_stood_still_does_not_believe_in_its_old_lease(
    server: ZookeeperServer,
) -> None:
    script = f"""
import gevent
from sepelib.zookeeper import Client
client = Client("{server.hosts}", {T})
client.start()
session = client.session
while True:
    now = session.clock()
    held = session.holds(1)
    print(f"{{now}} {{held}} {{session.epoch}}", flush=True)
    gevent.sleep(0.02)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.split()[1] == "True"
        os.kill(child.pid, signal.SIGSTOP)
        real_sleep(1.2 * T)
        resumed = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(child.pid, signal.SIGCONT)
        after: list[tuple[float, bool, int]] = []
        while not after or after[-1][2] < 2:
            at, held_then, epoch = child.stdout.readline().split()
            if float(at) >= resumed:
                after.append((float(at), held_then == "True", int(epoch)))
        assert after[0][0] < resumed + 10.0
        assert not any(held_then for _, held_then, _ in after)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_listeners_hear_all_in_order_and_may_use_the_client(
    server: ZookeeperServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(server.hosts)
    heard: list[tuple[SessionState, int, bool]] = []

    def listen(state: SessionState, epoch: int) -> None:
        found = bool(client.exists("/")) if state is CONNECTED else False
        heard.append((state, epoch, found))

    def fail(state: SessionState, epoch: int) -> None:
        raise gevent.Timeout(0.0)

    client.session.add_listener(fail)
    client.session.add_listener(listen)
    removed: list[object] = []
    client.session.add_listener(lambda *move: removed.append(move))()
    server.expire(client)
    until = client.session.clock() + 20.0
    while (CONNECTED, 2, True) not in heard and client.session.clock() < until:
        gevent.sleep(0.01)
    assert [row for row in heard if row[0] is not SUSPENDED] == [
        (LOST, 1, False),
        (CONNECTED, 2, True),
    ]
    assert removed == []
    assert any("listener" in record.message for record in caplog.records)


def test_subscribers_are_called_at_once_and_cannot_harm(
    server: ZookeeperServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(server.hosts)
    states: list[SessionState] = []

    def fail() -> None:
        raise RuntimeError("mine")

    client.session.subscribe(fail)
    remove = client.session.subscribe(lambda: states.append(client.session.state))
    client.stop()
    assert states == [LOST]
    remove()
    client.start()
    assert states == [LOST]
    assert "a subscriber of the session has failed" in caplog.text


def test_wait_gives_up_in_its_time(server: ZookeeperServer, make: Any) -> None:
    client = make(server.hosts)
    assert client.session.wait()
    assert not client.session.wait(LOST, 0.05)
    assert len(client.session._wakes) == 1  # the janitor's


def test_it_can_be_asked_from_any_thread(server: ZookeeperServer, make: Any) -> None:
    session = make(server.hosts).session
    pool = gevent.get_hub().threadpool
    assert pool.apply(lambda: (session.holds(1), session.state, session.epoch)) == (
        True,
        CONNECTED,
        1,
    )
    assert pool.apply(session.lease_remaining) > 0


def test_each_event_is_one_line_and_none_has_credentials(
    server: ZookeeperServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    proxy = server.proxy()
    client = make(proxy.hosts, auth_data=[("digest", "bob:opensesame")])
    assert client.exists("/")
    password = client.client_id[1].hex()
    proxy.hold()
    assert client.session.wait(LOST, 10 * T)
    proxy.heal()
    assert client.session.wait(CONNECTED, 10 * T)
    client.stop()
    lines = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.INFO and record.name.startswith("sepelib.zookeeper")
    ]
    name = lines[0][1].split()[1]
    assert lines[0] == ("INFO", f"session {name} is new, timeout 1.5s")
    texts = [text for _, text in lines]
    assert sum("is suspended: " in text for text in texts) == 1
    assert sum("is lost: no request was answered within its lease" in text for text in texts) == 1
    assert sum(text.endswith("is lost: closed") for text in texts) == 1
    assert sum(level == "WARNING" for level, _ in lines) == 1  # the connection
    everything = "\n".join(record.getMessage() for record in caplog.records)
    assert "opensesame" not in everything
    assert password not in everything


def test_a_margin_that_is_half_used_is_told_once(
    server: ZookeeperServer, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(server.hosts, 3.0)
    results = [client.exists_async("/") for _ in range(20)]
    real_sleep(0.65 * 3.0)
    gevent.wait(results, timeout=10.0)
    told = [r for r in caplog.records if "without an answer for" in r.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "session" in vars(told[0])


def test_the_metrics_of_a_session(server: ZookeeperServer, make: Any) -> None:
    recorder = MemoryRecorder()
    client = make(server.hosts, recorder=recorder)
    assert recorder.value("zk_session_state", "connected") == 1
    assert recorder.value("zk_session_state", "lost") == 0
    assert recorder.value("zk_session_epoch") == 1
    assert 0 < recorder.value("zk_lease_remaining_seconds") <= T
    assert recorder.value("zk_reconnects") == 0
    server.expire(client)
    until = client.session.clock() + 20.0
    while client.session.epoch < 2 and client.session.clock() < until:
        gevent.sleep(0.01)
    assert recorder.value("zk_session_epoch") == 2
    assert recorder.value("zk_reconnects") == 1
    client.stop()
    assert recorder.series("zk_session_state") == {
        ("connected",): 0.0,
        ("suspended",): 0.0,
        ("lost",): 0.0,
    }
