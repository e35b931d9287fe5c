"""Greenlets on one client, timed out or killed at any moment of a call.

An unpatched process has none: there, this file runs itself in a patched one.
"""

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.monkey import is_module_patched

from sepelib.util.testing import MemoryRecorder
from sepelib.yandex.auth import OAuthToken
from sepelib.yandex.base import ApiClient
from sepelib.yandex.testing import FakeRequest, FakeService, route

LIMIT = 20.0


class FakeEcho(FakeService[None]):
    service = "echo"

    def new_state(self) -> None:
        return None

    @route("GET", "/things/{key}", op="things.get", auth=False)
    def _echo(self, request: FakeRequest) -> object:
        return {"key": request.args["key"], "for": request.headers.get("X-For"), "pad": "x" * 2000}


class EchoClient(ApiClient):
    service = "echo"
    PATHS = {"things.get": "/things/{key}"}

    def get(self, key: str, **options: Any) -> Any:
        return self.request("things.get", "GET", at={"key": key}, **options).data


if not is_module_patched("socket"):

    def test_these_pass_in_a_patched_process() -> None:
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", __file__]
        done = subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

else:

    @pytest.fixture
    def echo() -> Iterator[FakeEcho]:
        fake = FakeEcho()
        with fake.serve():
            yield fake

    @pytest.fixture
    def recorder() -> MemoryRecorder:
        return MemoryRecorder()

    @pytest.fixture
    def client(echo: FakeEcho, recorder: MemoryRecorder) -> Iterator[EchoClient]:
        with EchoClient(echo.url, OAuthToken("t"), recorder=recorder) as client:
            yield client
        gc.collect()  # a connection that nobody has closed is a warning, hence an error

    def test_two_hundred_greenlets_get_each_its_own_answer(
        echo: FakeEcho, client: EchoClient
    ) -> None:
        def ask(number: int) -> None:
            for turn in range(5):
                key = f"{number}-{turn}"
                answer = client.get(key, headers={"X-For": key})
                assert (answer["key"], answer["for"]) == (key, key)

        jobs = [gevent.spawn(ask, number) for number in range(200)]
        gevent.joinall(jobs, timeout=60.0, raise_error=True)
        assert all(job.successful() for job in jobs)
        assert echo.server is not None and echo.server.connections.accepted <= 10
        assert client._slots.free == 10

    def test_a_timeout_in_mid_read_leaves_no_slot_and_no_connection(
        echo: FakeEcho, client: EchoClient, recorder: MemoryRecorder
    ) -> None:
        echo.faults.on("*", drip=0.01)
        for _ in range(20):
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.03):
                client.get("k")
        echo.faults.clear()
        assert client._slots.free == 10
        assert recorder.value("yandex_requests", "echo", "things.get", "cancelled") == 20
        assert [client.get(str(n))["key"] for n in range(5)] == ["0", "1", "2", "3", "4"]

    def test_whenever_a_greenlet_is_killed_nothing_is_lost(
        echo: FakeEcho, client: EchoClient
    ) -> None:
        wrong: list[Any] = []

        def ask(number: int) -> None:
            while True:
                answer = client.get(str(number))
                if answer["key"] != str(number):
                    wrong.append(answer)

        for step in range(40):
            jobs = [gevent.spawn(ask, number) for number in range(20)]
            gevent.sleep(0.001 * step)
            gevent.killall(jobs, timeout=LIMIT)
            assert client._slots.free == 10
        assert wrong == [] and client.get("alive")["key"] == "alive"

    def test_whenever_the_reader_of_a_stream_is_killed_nothing_is_lost(
        echo: FakeEcho, client: EchoClient
    ) -> None:
        def read(close: bool) -> None:
            while True:
                stream = client.request("x", "GET", "/things/x", stream=True)
                pieces = stream.pieces()
                next(pieces)
                if close:
                    stream.close()
                del stream, pieces  # which nobody has closed, else

        for step in range(30):
            jobs = [gevent.spawn(read, number % 2 == 0) for number in range(20)]
            gevent.sleep(0.002 * step)
            assert client._slots.free <= 10
            gevent.killall(jobs, timeout=LIMIT)
            del jobs
            gc.collect()
            assert client._slots.free == 10
        assert client.get("alive")["key"] == "alive"

    def test_one_who_waits_for_a_connection_can_be_cancelled(client: EchoClient) -> None:
        streams = [client.request("x", "GET", "/things/x", stream=True) for _ in range(10)]
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            client.get("k")
        for stream in streams:
            stream.close()
        assert client._slots.free == 10 and client.get("k")["key"] == "k"

    def test_a_wait_for_a_retry_can_be_cancelled(echo: FakeEcho, client: EchoClient) -> None:
        echo.faults.on("*", status=503, headers={"Retry-After": "15"})
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            client.get("k")
        assert client._slots.free == 10 and len(echo.calls.ops) == 1
