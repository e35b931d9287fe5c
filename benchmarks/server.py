"""Answers over kept connections on loopback: our server, gunicorn's gevent worker, gevent.pywsgi.

Each server is a process, and so is the client, whose requests are made before: it costs a third of
a bare answer, and answers of a server that only writes canned bytes show how fast it can go. The
wall time of a closed loop on a machine with few cores measures the client too; what the servers
themselves took is printed at the end, as CPU time a request.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.runner import Comparison, Goal, Variant
from sepelib.util.testing import ServerProcess, free_port

APPS = """
from flask import Flask

BODY = b'{"status": "ok", "value": 42, "text": "some text to make it seventy-one"}'

def bare(environ, start_response):
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]
    start_response("200 OK", headers)
    return [BODY]

routed = Flask("benchmark")

@routed.get("/")
def index():
    return {"status": "ok", "value": 42, "text": "some text to make it seventy-one"}
"""

HEAD = "from gevent import monkey; monkey.patch_all()\nimport gevent, gevent.socket, logging, sys\n"

OURS_BARE = """
from apps import bare
from sepelib.flask.server._http import HttpServer

listener = gevent.socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(1024)
HttpServer(listener, bare).serve_forever()
"""

OURS_ROUTED = """
from apps import routed
from sepelib import metrics
from sepelib.flask.server import AccessLog, Server
from sepelib.util import instrument

instrument.install(metrics.default_registry)
log = False
if len(sys.argv) > 2:
    logger = logging.getLogger("sepelib.flask.access")
    logger.addHandler(logging.FileHandler("access.log"))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    log = AccessLog(sys.argv[2])
server = Server(routed, port=int(sys.argv[1]), metrics=metrics.default_registry, access_log=log)
sys.exit(server.run())
"""

STOCK = """
from apps import bare
from gevent.pywsgi import WSGIServer

WSGIServer(("127.0.0.1", int(sys.argv[1])), bare, log=None).serve_forever()
"""

CANNED = """
from gevent.server import StreamServer

ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 76\\r\\n\\r\\n" + b"x" * 76

def answer(sock, _):
    sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
    while sock.recv(65536):
        sock.sendall(ANSWER)

StreamServer(("127.0.0.1", int(sys.argv[1])), answer).serve_forever()
"""

# Reads "PORT CONNECTIONS REQUESTS" a line; says "done" when all have their answers.
CLIENT = r"""
import select, socket, sys

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"
kept = {}

def connected(port):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock

def size_of_answer(sock):
    sock.sendall(REQUEST)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length"))
    size = len(head) + 4 + int(length.partition(b":")[2])
    while len(data) < size:
        data += sock.recv(65536)
    return size

def run(port, connections, requests):
    socks = kept.setdefault((port, connections), {})
    while len(socks) < connections:
        sock = connected(port)
        socks[sock.fileno()] = sock, size_of_answer(sock)
    poll = select.epoll()
    missing = {}
    for fd, (sock, size) in socks.items():
        poll.register(fd, select.EPOLLIN)
        sock.send(REQUEST)
        missing[fd] = size
    asked, answered = connections, 0
    while answered < requests:
        for fd, _ in poll.poll():
            sock, size = socks[fd]
            data = sock.recv(65536)
            assert data, "the server closed a connection"
            missing[fd] -= len(data)
            if missing[fd] == 0:
                answered += 1
                if asked < requests:
                    asked += 1
                    sock.send(REQUEST)
                    missing[fd] = size
    poll.close()

for line in sys.stdin:
    run(*map(int, line.split()))
    print("done", flush=True)
"""


class Servers:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-server-")
        self._all: dict[str, ServerProcess] = {}
        self._ports: dict[str, int] = {}
        self._spent: dict[str, tuple[float, int]] = {}
        self._client = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        Path(self._folder.name, "apps.py").write_text(APPS)
        atexit.register(self.close)

    def start(self, name: str, *command: str) -> None:
        """Of *command*, which gets the port in place of `PORT`."""
        port = free_port()
        process = ServerProcess(
            [word.replace("PORT", str(port)) for word in command],
            ready=lambda _: self._answers(port),
            name=name,
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": self._folder.name},
        )
        self._all[name] = process
        process.start()
        self._ports[name] = port

    @staticmethod
    def _answers(port: int) -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        return True

    def asked(self, name: str, connections: int, requests: int) -> Variant:
        def ask() -> None:
            stdin, stdout = self._client.stdin, self._client.stdout
            assert stdin is not None and stdout is not None
            before = self._cpu(name)
            print(self._ports[name], connections, requests, file=stdin, flush=True)
            if stdout.readline() != "done\n":
                raise RuntimeError(f"the client failed with {name}")
            seconds, number = self._spent.get(name, (0.0, 0))
            self._spent[name] = seconds + self._cpu(name) - before, number + requests

        return ask

    def _cpu(self, name: str) -> float:
        """Seconds that a server and its children have computed."""
        pid = self._all[name].pid
        assert pid is not None
        return sum(_cpu(p) for p in [pid, *_children(pid)])

    def close(self) -> None:
        for name, (seconds, number) in self._spent.items():
            print(f"# CPU time a request: {name:<34}{seconds / number * 1e6:8.1f} us")
        self._client.communicate()
        for process in self._all.values():
            process.close()
        self._folder.cleanup()


def _cpu(pid: int) -> float:
    # The scheduler's own count in nanoseconds; the ticks of /proc/PID/stat are 10 ms.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def comparisons() -> list[Comparison]:
    servers = Servers()

    def python(name: str, code: str, *arguments: str) -> None:
        servers.start(name, sys.executable, "-c", HEAD + code, "PORT", *arguments)

    def gunicorn(name: str, app: str) -> None:
        options = ["-k", "gevent", "-w", "1", "-b", "127.0.0.1:PORT", "--log-level", "error"]
        servers.start(name, sys.executable, "-m", "gunicorn", *options, f"apps:{app}")

    python("ours, bare", OURS_BARE)
    python("ours, Flask and metrics", OURS_ROUTED)
    python("ours, Flask, metrics, access log", OURS_ROUTED, "combined")
    python("gevent.pywsgi, bare", STOCK)
    python("canned bytes", CANNED)
    gunicorn("gunicorn, bare", "bare")
    gunicorn("gunicorn, Flask", "routed")

    def busy(name: str) -> Variant:
        return servers.asked(name, 16, 400)

    def alone(name: str) -> Variant:
        return servers.asked(name, 1, 5)

    return [
        Comparison(
            "server: 400 bare answers over 16 connections",
            busy("ours, bare"),
            {"gunicorn -k gevent": busy("gunicorn, bare"), "canned bytes": busy("canned bytes")},
            goals=[Goal("gunicorn -k gevent", 0.4)],
        ),
        Comparison(
            "server: 400 answers of a Flask route over 16 connections, ours with metrics",
            busy("ours, Flask and metrics"),
            {"gunicorn -k gevent": busy("gunicorn, Flask")},
            goals=[Goal("gunicorn -k gevent", 0.667)],
        ),
        Comparison(
            "server: the same with the access log",
            busy("ours, Flask, metrics, access log"),
            {"without it": busy("ours, Flask and metrics")},
            goals=[Goal("without it", 1.1)],
        ),
        Comparison(
            "server: 5 bare answers over one connection",
            alone("ours, bare"),
            {"gevent.pywsgi": alone("gevent.pywsgi, bare")},
            goals=[Goal("gevent.pywsgi", 0.01)],
        ),
    ]
