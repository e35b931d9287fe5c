"""A kept-alive GET of a small JSON document on the loopback: what a session costs.

The server is another process that answers the same bytes to each request, with TCP_NODELAY (else
the kernel's 40 ms are measured). Ours has all limits, and a recorder that keeps its figures.

    python -m benchmarks http_session
    python -m gevent.monkey --module benchmarks http_session      # the same, monkey-patched

What requests itself costs depends on the number of environment variables, which it reads for each
request: about 2.5 us for each; the head of the report has their number.
"""

import atexit
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import requests
import urllib3

from benchmarks.runner import Comparison, Goal
from sepelib.http import InstrumentedSession
from sepelib.util.testing import MemoryRecorder

SERVER = """if True:
    import socket, sys, threading
    BODY = b'{"id": 7, "login": "ann", "name": "Ann Example", "groups": ["a", "b"]}  '
    REPLY = (
        b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nServer: bench\\r\\n"
        b"Date: Mon, 23 Nov 2026 00:00:00 GMT\\r\\nContent-Length: %d\\r\\n\\r\\n%b"
    ) % (len(BODY), BODY)
    def serve(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while data := connection.recv(65536):
            request += data
            while b"\\r\\n\\r\\n" in request:
                request = request.partition(b"\\r\\n\\r\\n")[2]
                connection.sendall(REPLY)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()        # until the benchmark is gone
"""


def comparisons() -> list[Comparison]:
    command = [sys.executable, "-I", "-S", "-c", SERVER]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    ours = InstrumentedSession("bench", base_url=url, recorder=_Forgetful())
    plain = requests.Session()
    no_env = requests.Session()
    no_env.trust_env = False
    pool = urllib3.PoolManager()
    goal = Goal("requests", 0.80)
    found = [
        Comparison(
            "HTTP: keep-alive GET, one URL",
            read(lambda: ours.get("/users/7")),
            {
                "requests": read(lambda: plain.get(url + "/users/7")),
                "requests, no environment": read(lambda: no_env.get(url + "/users/7")),
                "urllib3": lambda: pool.request("GET", url + "/users/7").data,
            },
            goals=[goal],
        ),
        Comparison(
            "HTTP: keep-alive GET, a template and a query",
            read(lambda: ours.get("/users/{id}", path={"id": "ann"}, params={"full": "1"})),
            {
                "requests": read(lambda: plain.get(url + "/users/ann", params={"full": "1"})),
                "requests, no environment": read(
                    lambda: no_env.get(url + "/users/ann", params={"full": "1"})
                ),
            },
            goals=[goal],
        ),
    ]
    # The first call of each connects and imports: the runner would take it for the usual one.
    for comparison in found:
        for variant in (comparison.ours, *comparison.peers.values()):
            for _ in range(20):
                variant()
    return found


def read(get: Callable[[], requests.Response]) -> Callable[[], object]:
    return lambda: get().content


class _Forgetful(MemoryRecorder):
    """Counts as the other, and keeps no list of seconds that would grow for hours."""

    def histogram(self, *args: Any, **kwargs: Any) -> Any:
        return _Sum()


class _Sum:
    def __init__(self) -> None:
        self._total = self._count = 0.0

    def labels(self, *values: str) -> "_Sum":
        return self

    def observe(self, value: float, /) -> None:
        self._total += value
        self._count += 1
