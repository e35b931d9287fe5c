"""Greenlets that gevent times out or kills, at any moment of a request.

An unpatched process has none: there, this file runs itself in a patched one.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
import requests
from gevent.monkey import is_module_patched

from sepelib.http import InstrumentedSession
from sepelib.http.testing import HttpTestServer, ReceivedRequest, Reply, faults
from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.util.testing import MemoryRecorder

LIMIT = 20.0

if not is_module_patched("socket"):

    def test_these_pass_in_a_patched_process() -> None:
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", __file__]
        done = subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

else:

    @pytest.fixture
    def server() -> Iterator[HttpTestServer]:
        with HttpTestServer() as server:
            yield server

    @pytest.fixture
    def recorder() -> MemoryRecorder:
        return MemoryRecorder()

    @pytest.fixture
    def session(server: HttpTestServer, recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
        with InstrumentedSession(
            "s", base_url=server.url, max_concurrency=2, recorder=recorder
        ) as session:
            yield session

    def in_flight(recorder: MemoryRecorder) -> float:
        return recorder.value("http_client_in_flight", "s")

    STAGES = [faults.hold(), faults.drip_headers(0.01), faults.hold_after_headers()]

    @pytest.mark.parametrize("fault", [*STAGES, faults.drip_body(0.01)], ids=lambda f: f.name)
    def test_the_next_caller_never_sees_the_answer_to_a_cancelled_one(
        server: HttpTestServer,
        session: InstrumentedSession,
        recorder: MemoryRecorder,
        fault: faults.Fault,
    ) -> None:
        server.route("GET", "/{who}", lambda request: Reply(body=request.args["who"] * 200))
        assert session.get("/warm").ok
        server.next(fault)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            session.get("/ALICE")
        assert in_flight(recorder) == 0
        server.release()
        gevent.sleep(0.05)  # the late answer is under way
        assert session.get("/bob").text == "bob" * 200
        assert recorder.value("http_client_errors", "s", "cancelled") == 1
        assert recorder.value("http_client_retries", "s") == 0
        status = recorder.series("http_client_requests")
        assert status["s", server.url, "GET", "error"] == 1
        server.wait_for(lambda: server.connections.open == 1)

    def test_a_kill_is_a_cancellation_too(
        server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
    ) -> None:
        server.next(faults.hold())
        greenlet = gevent.spawn(session.get, "/")
        server.wait_for(lambda: server.requests)
        greenlet.kill()
        assert isinstance(greenlet.value, gevent.GreenletExit)
        assert in_flight(recorder) == 0
        assert recorder.value("http_client_errors", "s", "cancelled") == 1
        server.wait_for(lambda: server.connections.open == 0)

    def test_three_thousand_cancelled_calls_lose_no_slot_and_break_no_other(
        server: HttpTestServer, recorder: MemoryRecorder
    ) -> None:
        """urllib3's blocking pool fails two of three innocent calls of this loop."""

        def answer(request: ReceivedRequest) -> Reply:
            time.sleep(0.004)
            return Reply(body=b"x")

        server.route("GET", "/", answer)
        failures: list[BaseException] = []
        cancelled = 0
        with InstrumentedSession(
            "s", base_url=server.url, max_concurrency=4, recorder=recorder
        ) as session:

            def work(number: int) -> None:
                nonlocal cancelled
                for turn in range(75):
                    try:
                        with gevent.Timeout(0.0005 * ((number + turn) % 12)):
                            session.get("/")
                    except gevent.Timeout:
                        cancelled += 1
                    except BaseException as error:
                        failures.append(error)

            def bystand() -> None:
                for _ in range(100):
                    assert session.get("/").content == b"x"

            bystanders = [gevent.spawn(bystand) for _ in range(2)]
            workers = [gevent.spawn(work, number) for number in range(40)]
            gevent.joinall([*workers, *bystanders], timeout=60, raise_error=True)
            assert failures == [] and cancelled > 1000
            assert in_flight(recorder) == 0
            streams = [session.get("/", stream=True) for _ in range(4)]  # each slot is there
            for stream in streams:
                stream.close()
        assert recorder.value("http_client_errors", "s", "cancelled") > 1000
        assert set(recorder.series("http_client_errors")) == {("s", "cancelled")}

    def test_one_who_is_cancelled_in_the_queue_leaves_it(
        server: HttpTestServer, recorder: MemoryRecorder
    ) -> None:
        with InstrumentedSession(
            "s", base_url=server.url, max_concurrency=1, recorder=recorder
        ) as session:
            holder = session.get("/", stream=True)
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
                session.get("/")
            assert in_flight(recorder) == 1
            holder.close()
            assert session.get("/").ok
        assert in_flight(recorder) == 0
        assert recorder.value("http_client_errors", "s", "cancelled") == 1

    def test_a_wait_for_a_retry_can_be_cancelled(
        server: HttpTestServer, recorder: MemoryRecorder
    ) -> None:
        policy = RetryPolicy(requests.HTTPError, attempts=2, backoff=Backoff(20, 1, 20, "none"))
        server.next(faults.unavailable())
        with (
            InstrumentedSession(
                "s", base_url=server.url, retries=policy, recorder=recorder
            ) as session,
            pytest.raises(gevent.Timeout),
            gevent.Timeout(0.1),
        ):
            session.get("/")
        assert len(server.requests) == 1 and in_flight(recorder) == 0

    def test_a_cancelled_upload_is_closed(
        server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
    ) -> None:
        def forever() -> Iterator[bytes]:
            while True:
                yield bytes(10_000)
                gevent.sleep(0.005)

        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            session.put("/", data=forever())
        assert in_flight(recorder) == 0
        assert session.get("/").ok
        server.wait_for(lambda: server.connections.open == 1)

    def test_a_stream_that_is_cancelled_gives_all_back(
        server: HttpTestServer, session: InstrumentedSession, recorder: MemoryRecorder
    ) -> None:
        server.next(faults.drip_body(0.01))
        response = session.get("/", stream=True)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            for _ in response.iter_content(1):
                pass
        assert in_flight(recorder) == 0
        assert recorder.value("http_client_errors", "s", "cancelled") == 1
        server.wait_for(lambda: server.connections.open == 0)

    def test_greenlets_go_on_while_others_wait(
        server: HttpTestServer, session: InstrumentedSession
    ) -> None:
        server.next(faults.late(0.3), times=2)
        waiting = [gevent.spawn(session.get, "/") for _ in range(2)]
        ticks = 0
        while not all(greenlet.ready() for greenlet in waiting):
            gevent.sleep(0.01)
            ticks += 1
        assert ticks > 10 and all(greenlet.value.ok for greenlet in waiting)

    def test_nothing_is_left_behind(server: HttpTestServer, recorder: MemoryRecorder) -> None:
        def greenlets() -> int:
            gc.collect()
            return sum(isinstance(o, gevent.Greenlet) and not o.dead for o in gc.get_objects())

        before = greenlets()
        with InstrumentedSession("s", base_url=server.url, recorder=recorder) as session:
            server.next(faults.hold(), times=5)
            for _ in range(5):
                with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
                    session.get("/")
        server.wait_for(lambda: server.connections.open == 0)
        wait_until(lambda: greenlets() <= before)

    def wait_until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end
            gevent.sleep(0.01)
