"""When a term ends, by a clock in the hand, a lock and a session that do what the test says."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import gevent
import pytest
from gevent.event import Event

from sepelib.util.deadline import Deadline, deadline
from sepelib.util.testing import Clock
from sepelib.zookeeper import LockLost, SessionState
from sepelib.zookeeper._lease import Lease, Timings
from sepelib.zookeeper._term import Leadership, Term

LIMIT = 20.0  # seconds; far more than anything here takes


class FakeLock:
    """Held until its lease, by *clock*, or the test says otherwise."""

    def __init__(self, clock: Clock, lease: float) -> None:
        self.clock = clock
        self.fencing_token = 0x2A
        self.lost = Event()
        self.lost_reason: str | None = None
        self.until = clock.now + lease

    @property
    def is_acquired(self) -> bool:
        return self.lost_reason is None and self.lease_remaining() > 0

    def lease_remaining(self) -> float:
        return max(0.0, self.until - self.clock.now) if self.lost_reason is None else 0.0

    def lose(self, reason: str) -> None:
        self.lost_reason = reason
        self.lost.set()

    def transaction(self) -> str:
        return "a transaction"


class FakeSession:
    def __init__(self) -> None:
        self.state = SessionState.CONNECTED
        self.wakes: list[Callable[[], object]] = []

    def subscribe(self, wake: Callable[[], object]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def move(self, state: SessionState) -> None:
        self.state = state
        for wake in list(self.wakes):
            wake()


class Run:
    """A term of T = 10 s: a lease of 9 s and a stop_timeout of 2 s."""

    def __init__(self, target: Callable[[Leadership], object], **options: Any) -> None:
        self.clock = Clock()
        self.lock = FakeLock(self.clock, 9.0)
        self.session = FakeSession()
        options = {"stop_timeout": 2.0} | options
        self.term = Term(
            self.lock, self.session, target, path="/app/judge", name="judge", **options
        )
        self.leadership = self.term.leadership
        self._greenlet = gevent.spawn(self.term.run)

    def advance(self, seconds: float) -> None:
        """Let time pass, and whoever has noticed it act."""
        self.clock.advance(seconds)
        self.session.move(self.session.state)
        turns()

    def join(self) -> Term:
        self._greenlet.join(LIMIT)
        assert self._greenlet.ready(), "the term has not ended"
        return self.term

    def kill(self) -> None:
        self._greenlet.kill()


@contextmanager
def running(target: Callable[[Leadership], object], **options: Any) -> Iterator[Run]:
    run = Run(target, **options)
    try:
        turns()
        yield run
    finally:
        run.lock.lose("the test is over")
        run.join()


def turns() -> None:
    for _ in range(5):
        gevent.sleep(0)


def eventually(condition: Callable[[], object], what: str) -> None:
    with gevent.Timeout(LIMIT, AssertionError(what)):
        while not condition():
            gevent.sleep(0.005)


class Target:
    """Sleeps by the plain `gevent.sleep()`; notes what it is told to die of."""

    def __init__(self, deaths: int = 1) -> None:
        self.deaths = deaths  # how many times it has to be killed
        self.told: list[str] = []

    def __call__(self, leadership: Leadership) -> None:
        self.told.append("start")
        while True:
            try:
                gevent.sleep(LIMIT)
            except (LockLost, gevent.GreenletExit) as error:
                self.told.append(type(error).__name__)
                if len(self.told) > self.deaths:
                    raise


@pytest.mark.parametrize("timeout", [2.0, 3.0, 10.0, 24.0, 25.0, 26.0, 40.0, 60.0])
def test_ping_suspend_stop_and_the_end_of_the_lease_come_in_this_order(timeout: float) -> None:
    timings = Timings.of(timeout)
    stop = timings.lease - timings.stop_timeout
    assert 0 < timings.ping < timings.silence < stop < timings.lease < timeout
    # What the lease has left just before the next ping is answered is more than it takes to stop.
    assert timings.lease - timings.ping > 2 * timings.stop_timeout


def test_a_leader_that_hears_nothing_has_stopped_before_its_lease_ends() -> None:
    target = Target()
    with running(target) as run:
        run.advance(6.9)
        assert target.told == ["start"] and run.leadership.is_leader
        run.advance(0.1)
        assert target.told == ["start", "LockLost"]
        assert run.join().lost == "the lease is running out"
        assert run.lock.is_acquired and run.clock.now < run.lock.until


def test_a_leader_in_contact_leads_on_for_ever() -> None:
    target = Target()
    with running(target) as run:
        for _ in range(20):
            run.advance(6.0)
            run.lock.until = run.clock.now + 9.0
            assert target.told == ["start"]


def test_an_answer_in_the_last_moment_before_the_stop_keeps_the_leader() -> None:
    target = Target()
    with running(target) as run:
        run.session.move(SessionState.SUSPENDED)
        run.advance(6.99)
        run.lock.until = run.clock.now + 9.0
        run.session.move(SessionState.CONNECTED)
        run.advance(6.9)
        assert target.told == ["start"]


def test_a_lease_that_is_prolonged_after_the_stop_began_does_not_revive_the_target() -> None:
    with running(Target()) as run:
        run.advance(7.5)
        run.lock.until = run.clock.now + 9.0
        assert run.join().lost == "the lease is running out"
        with pytest.raises(LockLost, match="the lease is running out"):
            run.leadership.check()


def test_on_suspend_stop_stops_at_once_and_wait_does_not() -> None:
    for on_suspend, told in {"stop": ["start", "LockLost"], "wait": ["start"]}.items():
        target = Target()
        with running(target, on_suspend=on_suspend) as run:
            run.session.move(SessionState.SUSPENDED)
            turns()
            assert target.told == told
            assert run.leadership.is_leader == (on_suspend == "wait")


@pytest.mark.parametrize("reason", ["session", "deleted", "unverified"])
def test_a_target_whose_lock_is_lost_has_no_error_to_swallow_and_can_ask_why(reason: str) -> None:
    caught: list[LockLost] = []

    def target(leadership: Leadership) -> None:
        try:
            leadership.lost.wait(LIMIT)
            gevent.sleep(LIMIT)
        except gevent.GreenletExit:
            with pytest.raises(LockLost) as error:
                leadership.check()
            caught.append(error.value)
            raise

    with running(target) as run:
        run.lock.lose(reason)
        assert run.join().lost == reason
    assert [(error.path, error.reason) for error in caught] == [("/app/judge", reason)]
    assert run.leadership.lost.is_set() and run.term.error is None


def test_a_target_is_not_left_its_time_when_nothing_is_left_of_the_lease() -> None:
    target = Target()
    with running(target, stop_timeout=LIMIT / 4) as run:
        run.advance(100.0)  # as after a SIGSTOP
        assert target.told == ["start", "GreenletExit"]


@pytest.mark.parametrize("how", ["check", "sleep"])
def test_a_target_that_swallows_its_loss_and_goes_on_at_once_dies(how: str) -> None:
    def target(leadership: Leadership) -> None:
        gevent.sleep(0)
        until = time.monotonic() + LIMIT  # or it would never end
        while time.monotonic() < until:
            try:
                leadership.check() if how == "check" else leadership.sleep(LIMIT)
                gevent.sleep(0.001)
            except LockLost:
                continue

    with running(target, stop_timeout=0.2) as run:
        began = time.monotonic()
        run.advance(8.81)
        run.join()
        assert time.monotonic() - began < LIMIT / 2


def test_a_target_that_swallows_its_kills_is_killed_again_and_again() -> None:
    target = Target(deaths=5)
    with running(target, stop_timeout=0.2) as run:
        run.advance(8.81)
        run.join()
        assert target.told == ["start", "LockLost", *["GreenletExit"] * 4]
        assert run.lock.is_acquired, "all that before the end of the lease"


def test_a_target_that_outlives_its_lease_is_critical_once_and_killed_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = Target(deaths=12)
    with running(target, stop_timeout=0.1) as run:
        run.advance(8.95)
        run.advance(0.05)
        assert not run.lock.is_acquired
        run.join()
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "judge: the lease is over and the target is not dead" in record.getMessage()
    assert "in __call__" in record.getMessage(), "where the target is"
    assert (record.path, record.token) == ("/app/judge", 0x2A)  # type: ignore[attr-defined]
    assert len(target.told) == 13


def test_a_target_that_obeys_is_not_critical_though_the_lease_ended_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(Target()) as run:
        run.advance(100.0)  # as after a SIGSTOP
        run.join()
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_a_log_handler_that_blocks_does_not_keep_the_target_alive() -> None:
    never, entered = Event(), Event()

    class Blocks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            never.wait(LIMIT)

    log, handler = logging.getLogger("sepelib.zookeeper.singleton"), Blocks()
    handler.lock = None  # else the others would block for the lock, which is not the point
    log.addHandler(handler)
    try:
        target = Target(deaths=12)
        with running(target, stop_timeout=0.1) as run:
            run.advance(9.0)
            run.join()
        assert entered.is_set() and len(target.told) == 13
    finally:
        log.removeHandler(handler)
        never.set()


def test_a_stop_asks_first_and_a_target_that_listens_ends_by_itself() -> None:
    seen: list[str] = []

    def target(leadership: Leadership) -> None:
        leadership.stopping.wait(LIMIT)
        seen.append("asked")
        leadership.check()  # it still leads

    with running(target) as run:
        run.term.ask()
        term = run.join()
    assert seen == ["asked"] and term.error is None and term.lost is None


def test_a_stop_kills_a_target_that_does_not_listen_after_the_stop_timeout() -> None:
    target = Target()
    with running(target, stop_timeout=0.1) as run:
        run.term.ask()
        turns()
        assert target.told == ["start"], "it is asked first"
        term = run.join()
    assert target.told == ["start", "GreenletExit"] and term.lost is None and term.error is None


def test_a_loss_during_a_stop_kills_at_once() -> None:
    target = Target()
    with running(target, stop_timeout=LIMIT / 4) as run:
        run.lock.until = run.clock.now + 100.0
        run.term.ask()
        turns()
        run.lock.lose("session")
        turns()
        assert target.told == ["start", "GreenletExit"]


def test_a_loss_while_the_stop_kills_is_shown_to_the_others_too() -> None:
    target = Target(deaths=100)
    with running(target, stop_timeout=0.05) as run:
        run.term.ask()
        eventually(lambda: "GreenletExit" in target.told, "the kill")
        assert not run.leadership.lost.is_set()
        run.lock.lose("session")
        eventually(run.leadership.lost.is_set, "the loss")
        target.deaths = 0
        run.join()


def test_sleep_lasts_as_long_as_it_says_and_ends_with_the_leadership() -> None:
    ends: list[str] = []

    def target(leadership: Leadership) -> None:
        leadership.sleep(0.01)
        ends.append("slept")
        try:
            leadership.sleep(LIMIT)
        except LockLost as error:
            ends.append(error.reason)
            raise

    with running(target) as run:
        eventually(lambda: ends, "the first sleep")
        run.lock.lose("deleted")
        run.join()
    assert ends == ["slept", "deleted"]


def test_sleep_ends_the_target_when_the_service_stops() -> None:
    cleaned_up = Event()

    def target(leadership: Leadership) -> None:
        try:
            while True:
                leadership.sleep(LIMIT)
        finally:
            cleaned_up.set()

    with running(target, stop_timeout=8.0) as run:
        began = time.monotonic()
        run.term.ask()
        term = run.join()
        assert time.monotonic() - began < 4.0, "without being killed"
    assert cleaned_up.is_set() and term.error is None and term.lost is None


def test_a_busy_target_learns_by_check_what_nobody_could_tell_it() -> None:
    reasons: list[str] = []

    def target(leadership: Leadership) -> None:
        leadership.check()
        run.clock.advance(7.0)  # without a turn of the hub
        try:
            leadership.check()
        except LockLost as error:
            reasons.append(error.reason)
            raise

    run = Run(target)
    term = run.join()
    assert reasons == ["the lease is running out"] == [term.lost] and term.error is None


def test_a_stray_greenlet_of_a_former_term_is_told_that_it_is_over() -> None:
    strays: list[gevent.Greenlet[..., Any]] = []

    def target(leadership: Leadership) -> None:
        strays.append(gevent.spawn(leadership.lost.wait, LIMIT))

    with running(target) as run:
        run.join()
        assert run.lock.is_acquired, "as if the same lock were held again"
        assert not run.leadership.is_leader
        with pytest.raises(LockLost, match="its term is over"):
            run.leadership.check()
        with pytest.raises(LockLost):
            run.leadership.transaction()
    assert strays[0].get(timeout=LIMIT) is True


def test_a_transaction_is_that_of_the_lock_while_it_is_held() -> None:
    with running(Target()) as run:
        assert run.leadership.transaction() == "a transaction"


@pytest.mark.parametrize("error", [ValueError("a bug"), gevent.Timeout(1), SystemExit(3)])
def test_what_the_target_raises_is_kept(error: BaseException) -> None:
    def target(leadership: Leadership) -> None:
        raise error

    with running(target) as run:
        assert run.join().error is error and run.term.lost is None


def test_the_loss_of_some_other_lock_is_a_failure() -> None:
    def target(leadership: Leadership) -> None:
        raise LockLost("/another", "deleted")

    with running(target) as run:
        assert isinstance(run.join().error, LockLost) and run.term.lost is None


def test_a_clean_up_that_fails_after_a_loss_is_kept_too() -> None:
    def target(leadership: Leadership) -> None:
        try:
            gevent.sleep(LIMIT)
        finally:
            raise OSError("cannot clean up")

    with running(target) as run:
        run.lock.lose("session")
        term = run.join()
    assert isinstance(term.error, OSError) and term.lost == "session"


def test_a_target_whose_greenlet_is_killed_by_somebody_has_ended() -> None:
    greenlets: list[Any] = []

    def target(leadership: Leadership) -> None:
        greenlets.append(gevent.getcurrent())
        gevent.sleep(LIMIT)

    with running(target) as run:
        greenlets[0].kill()
        term = run.join()
    assert term.error is None and term.lost is None


def test_who_kills_the_watcher_kills_the_target_first() -> None:
    target = Target(deaths=3)
    with running(target, stop_timeout=0.1) as run:
        run.kill()
        assert target.told == ["start", *["GreenletExit"] * 3] and run.term.is_over


def test_a_term_whose_lease_is_over_before_the_target_runs_does_not_run_it() -> None:
    target = Target()
    run = Run(target)
    run.lock.lose("session")
    assert run.join().lost == "session" and target.told == []


def test_nothing_is_left_at_the_session() -> None:
    with running(Target()) as run:
        assert len(run.session.wakes) == 1
        run.lock.lose("deleted")
        run.join()
        assert run.session.wakes == []


def test_the_target_has_the_context_of_the_start_and_not_its_deadline() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[object] = []

    def target(leadership: Leadership) -> None:
        seen.extend([request.get(), Deadline.current()])
        request.set("changed")

    request.set("of the start")
    with deadline(0.5):
        context = copy_context()
    with running(target, context=context.copy()) as run:
        run.join()
    assert seen == ["of the start", None]
    assert context[request] == "of the start"


def test_the_lease_of_the_session_gives_the_target_its_time_to_stop() -> None:
    """The real lease, fed by hand: no answer since 0.0, and T = 10 s."""
    lease = Lease()
    lease.connected(1, 10.0, 0.0, 0.0)
    run_out = lease.timings.lease - lease.timings.stop_timeout
    assert run_out == pytest.approx(7.0)
    lease.disconnected(5.0)
    assert lease.holds(1, run_out) and not lease.holds(1, 9.0)
