"""Where a server listens, and how it starts and ends."""

import logging
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests
import trustme

from sepelib.flask.server import AdminOptions, CannotListen, Limits, RequestTimedOut, Server
from sepelib.flask.testing import AppProcess, RunningServer, SlowClient
from sepelib.util.testing import check_error

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0

HEAD = """
import flask, gevent, logging, time
from sepelib.flask.server import AdminOptions, Limits, Server
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
app = flask.Flask("service")

@app.get("/slow")
def slow():
    logging.info("began %s", flask.request.full_path)
    time.sleep(float(flask.request.args["s"]))
    return "slept"
"""


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=LIMIT, **options)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def begin(app: AppProcess, client: SlowClient, target: str) -> None:
    """Returns when the handler has the request."""
    client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: f"began {target}" in app.log_tail(1000))


# -- Listening.


def test_port_0_is_a_free_one(server: Servers) -> None:
    one, two = server(), server()

    assert one.server.port != two.server.port
    assert one.url == f"http://127.0.0.1:{one.server.port}"
    assert get(f"{two.url}/ping").text == "pong"


def test_before_the_start_there_is_no_address() -> None:
    server = Server()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.admin_url
    server.stop()
    with pytest.raises(RuntimeError, match="starts once"):
        server.start()


@pytest.mark.parametrize("which", ["main", "admin"])
def test_a_port_in_use_is_one_clear_error(server: Servers, which: str) -> None:
    port = server().server.port
    options: dict[str, Any] = {"port": port}
    if which == "admin":
        options = {"admin": AdminOptions(port=port)}

    with pytest.raises(CannotListen) as caught:
        server(**options)

    text = str(caught.value)
    assert text.startswith(f"cannot listen at 127.0.0.1:{port}: the address is in use;")
    assert "\n" not in text


def test_when_the_second_listener_fails_the_first_is_closed_again(server: Servers) -> None:
    taken = server().server.port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]

    with pytest.raises(CannotListen):
        server(port=free, admin=AdminOptions(port=taken))

    assert server(port=free).server.port == free


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("192.0.2.1", 0, "no such address"),
        ("no such host", 0, "no address of a host"),
        ("127.0.0.1", 70000, "0 to 65535"),
    ],
)
def test_an_address_that_is_none_is_one_clear_error(host: str, port: int, words: str) -> None:
    with pytest.raises(CannotListen, match=words):
        Server(host=host, port=port).start()


def test_errors_survive_a_trip_between_processes() -> None:
    check_error(CannotListen("127.0.0.1:80", "in use"))

    twin = pickle.loads(pickle.dumps(RequestTimedOut(5.0)))
    assert str(twin) == "the request did not end within 5 s"


# -- A socket file.


def test_a_unix_socket_serves_with_its_mode_and_goes_at_the_end(
    server: Servers, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    running = server(unix=str(path), unix_mode=0o600)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.server.port is None
    assert running.url == "http+unix://" + str(path).replace("/", "%2F")
    with SlowClient(running.address) as client:
        assert client.get("/ping").body == b"pong"
    running.close()

    assert os.listdir(tmp_path) == []


def test_a_stale_socket_file_is_replaced(server: Servers, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    running = server(unix=str(path))

    with SlowClient(running.address) as client:
        assert client.get("/ping").body == b"pong"


def test_the_socket_of_a_living_server_is_left_alone(server: Servers, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    first = server(unix=path)

    with pytest.raises(CannotListen, match="another server listens there"):
        server(unix=path)

    with SlowClient(first.address) as client:
        assert client.get("/ping").body == b"pong"


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    with pytest.raises(CannotListen, match="is no socket"):
        Server(unix=str(path)).start()

    assert path.read_text() == "data"


def test_a_file_that_another_server_has_put_there_is_not_removed_at_the_end(
    server: Servers, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    first = server(unix=str(path))
    path.unlink()
    second = server(unix=str(path))

    first.close()

    with SlowClient(second.address) as client:
        assert client.get("/ping").body == b"pong"


@pytest.mark.parametrize("path", ["missing/http.sock", "x" * 200])
def test_a_path_that_cannot_be_is_one_clear_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(CannotListen, match="cannot listen at "):
        Server(unix=str(tmp_path / path)).start()
    assert os.listdir(tmp_path) == []


# -- TLS.


def test_tls_is_spoken_with_the_context_that_is_given(server: Servers, tmp_path: Path) -> None:
    from gevent import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    running = server(ssl_context=context)

    assert running.url.startswith("https://127.0.0.1:")
    assert get(f"{running.url}/ping", verify=str(tmp_path / "ca.pem")).text == "pong"


# -- The end.


def test_a_server_is_a_context_manager_and_stop_may_be_repeated() -> None:
    def life() -> None:
        with Server(drain_delay=0) as server:
            assert not server.draining
            server.stop()
            assert server.draining
            server.stop()
        server.stop()

    gevent.spawn(life).get(timeout=LIMIT)


def test_all_who_stop_it_wait_for_the_end() -> None:
    def life() -> list[float]:
        server = Server(drain_delay=0.3)
        server.start()
        start = time.monotonic()

        def stop() -> float:
            server.stop()
            return time.monotonic() - start

        return [g.get() for g in [gevent.spawn(stop) for _ in range(3)]]

    took = gevent.spawn(life).get(timeout=LIMIT)
    assert min(took) >= 0.29


def test_a_stop_that_is_cancelled_still_closes_everything() -> None:
    def life() -> None:
        server = Server(drain_delay=LIMIT)
        server.start()
        port = server.port
        with gevent.Timeout(0.1, False):
            server.stop()
        server.stop()  # returns: it is over
        again = Server(port=port or 0, drain_delay=0)
        again.start()
        again.stop()

    gevent.spawn(life).get(timeout=LIMIT)


def test_while_it_drains_ping_says_so_and_requests_are_served() -> None:
    with AppProcess(HEAD + "server = Server(app, drain_delay=1.0)") as app:
        with SlowClient(app.address) as busy:
            begin(app, busy, "/slow?s=1.5")
            assert get(f"{app.url}/ping").text == "pong"

            app.signal(signal.SIGTERM)

            until(lambda: get(f"{app.url}/ping").status_code == 503)
            assert get(f"{app.url}/ping").text == "draining\n"
            assert get(f"{app.url}/ping?live=1").text == "pong"
            verbose = get(f"{app.url}/ping?verbose=1")
            assert (verbose.status_code, verbose.json()["status"]) == (503, "draining")
            served = get(f"{app.url}/slow?s=0")
            assert (served.text, served.headers["Connection"]) == ("slept", "close")

            answer = busy.answer()
            assert (answer.body, answer.headers["connection"]) == (b"slept", "close")
            assert busy.closed()
        assert app.wait(LIMIT) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_connections_do_not_delay_the_end(signum: int) -> None:
    script = HEAD + "server = Server(app, drain_delay=0, stop_timeout=60)"
    with AppProcess(script) as app, ExitStack() as stack:
        idle = [stack.enter_context(SlowClient(app.address)) for _ in range(5)]
        for client in idle:
            assert client.get("/ping").body == b"pong"
        start = time.monotonic()
        app.signal(signum)
        assert app.wait(LIMIT) == 0
        assert time.monotonic() - start < LIMIT / 2
        assert all(client.closed() for client in idle)


def test_what_does_not_end_is_killed_after_the_stop_timeout() -> None:
    script = HEAD + "server = Server(app, drain_delay=0, stop_timeout=0.3)"
    with AppProcess(script) as app, SlowClient(app.address) as busy:
        begin(app, busy, "/slow?s=600")
        app.signal(signal.SIGTERM)
        assert app.wait(LIMIT) == 0
        assert "1 requests did not end in time" in app.log_tail()


def test_a_second_signal_ends_it_at_once() -> None:
    with AppProcess(HEAD + "server = Server(app, drain_delay=600)") as app:
        app.signal(signal.SIGTERM)
        until(lambda: get(f"{app.url}/ping").status_code == 503)
        app.signal(signal.SIGINT)
        assert app.wait(LIMIT) == 128 + signal.SIGINT
        assert "SIGINT: the second signal, ending at once" in app.log_tail()


def test_a_second_signal_is_heard_when_the_hub_is_blocked() -> None:
    script = (
        HEAD
        + """
@app.get("/spin")
def spin():
    print("spinning", flush=True)
    while True: pass

server = Server(app, drain_delay=0)
"""
    )
    with AppProcess(script) as app, SlowClient(app.address) as client:
        client.send(b"GET /spin HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: "spinning" in app.log_tail())
        app.signal(signal.SIGTERM)
        time.sleep(0.1)
        assert app.running
        app.signal(signal.SIGTERM)
        assert app.wait(LIMIT) == 128 + signal.SIGTERM


def test_run_ends_with_a_stop_from_inside_and_gives_the_signals_back() -> None:
    script = (
        HEAD
        + """
import signal, sys
server = Server(app, drain_delay=0)
@app.post("/stop")
def stop():
    gevent.spawn(server.stop)
    return ""
run = server.run
def checked():
    status = run()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    return status
server.run = checked
"""
    )
    with AppProcess(script) as app:
        requests.post(f"{app.url}/stop", timeout=LIMIT)
        assert app.wait(LIMIT) == 0


def test_the_admin_listener_can_be_asked_until_the_last_request_has_ended() -> None:
    script = HEAD + "server = Server(app, drain_delay=0, admin=AdminOptions(port=0))"
    with AppProcess(script) as app:
        with SlowClient(app.address) as busy:
            begin(app, busy, "/slow?s=1")
            app.signal(signal.SIGTERM)
            until(lambda: get(f"{app.admin_url}/ping").status_code == 503)
            assert busy.answer().body == b"slept"
        assert app.wait(LIMIT) == 0


def test_many_keep_alive_connections_lose_no_request_in_a_drain() -> None:
    # Small here; the server's own tests do it with a thousand.
    script = HEAD + "server = Server(app, drain_delay=0.3)"
    answered: list[int] = []
    lost: list[BaseException] = []

    def ask(address: tuple[str, int]) -> None:
        try:
            with SlowClient(address) as client:
                while True:
                    answer = client.get("/slow?s=0.02")
                    answered.append(answer.status)
                    if answer.headers.get("connection") == "close":
                        return
        except BaseException as error:
            lost.append(error)

    with AppProcess(script) as app:
        threads = [threading.Thread(target=ask, args=(app.address,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 100)
        app.signal(signal.SIGTERM)
        for thread in threads:
            thread.join(LIMIT)
        assert app.wait(LIMIT) == 0

    assert lost == []
    assert set(answered) == {200}


def test_a_failed_start_in_run_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = f"from sepelib.flask.server import Server; Server(port={port}).run()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"CannotListen: cannot listen at 127.0.0.1:{port}: the address is in use" in last


def test_a_process_that_is_not_patched_is_warned_about_once(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    from gevent import monkey

    server()

    warnings = [r for r in caplog.records if "has not patched" in r.getMessage()]
    assert len(warnings) == (0 if monkey.is_module_patched("socket") else 1)


def test_one_keep_alive_connection_is_not_stalled_by_delayed_acknowledgements(
    server: Servers,
) -> None:
    running = server()
    with SlowClient(running.address) as client:
        start = time.monotonic()
        for _ in range(50):
            assert client.get("/version").status == 200
        # 40 ms each, 2 s in all, when head and body leave apart.
        assert time.monotonic() - start < 1.5


def test_nothing_is_left_of_a_stopped_server(server: Servers) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    server().close()  # what the first one loads, stays
    before = descriptors()
    for _ in range(5):
        running = server(limits=Limits(max_connections=5))
        assert get(f"{running.url}/ping").text == "pong"
        running.close()
    assert descriptors() <= before


def test_the_access_log_can_be_switched_off(
    server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = server(access_log=False)
    get(f"{running.url}/ping")
    running.close()

    assert [r for r in caplog.records if r.name == "sepelib.flask.access"] == []
