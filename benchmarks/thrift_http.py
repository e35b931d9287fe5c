"""Thrift over HTTP on a kept connection, with all that ours adds, beside thriftpy2's own client.

Peers: thriftpy2.http with keep_alive=True (which compares nothing of the reply, changes the default
timeout of every socket of the process for the time of each call and sends again in silence), and
as it comes, with a new connection for each call.

Seconds are wall time, and both ends share one core: else each sample is 30 or 70 us a call, by
where the scheduler happens to wake which.
"""

import atexit
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import thriftpy2
import thriftpy2.http
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.transport import TCyBufferedTransportFactory

from benchmarks.runner import Comparison, Goal
from sepelib.rpc.thrift import ThriftHttpClient

CALLS = 100

IDL = """
struct Row {1: i64 id, 2: string name, 3: double load, 4: bool up, 5: i32 port, 6: string group,
            7: list<string> tags}
service Bench {void ping(), Row echo(1: Row row), list<Row> many(1: i32 count)}
"""
# A thread for each connection, TCP_NODELAY, and a reply in one write: the servers of the libraries
# would be measured instead of their clients.
SERVER = """
import io, os, re, socketserver, sys
import thriftpy2
from thriftpy2.protocol.cybin import TCyBinaryProtocol
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TCyMemoryBuffer

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
service = thriftpy2.load_fp(io.StringIO(sys.argv[1]), "bench_thrift")

class Bench:
    row = service.Row(1, "name", 0.5, True, 80, "group", ["a", "b"])
    def ping(self): pass
    def echo(self, row): return row
    def many(self, count): return [self.row] * count

class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        processor = TProcessor(service.Bench, Bench())
        length = re.compile(rb"(?i)\\r\\ncontent-length: *([0-9]+)")
        while True:
            head = b""
            while not head.endswith(b"\\r\\n\\r\\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            asked = TCyMemoryBuffer(self.rfile.read(int(length.search(head)[1])))
            reply = TCyMemoryBuffer()
            processor.process(TCyBinaryProtocol(asked), TCyBinaryProtocol(reply))
            body = reply.getvalue()
            self.request.sendall(
                b"HTTP/1.1 200 OK\\r\\nContent-Type: application/x-thrift\\r\\n"
                b"Content-Length: %d\\r\\n\\r\\n%b" % (len(body), body)
            )

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def comparisons() -> list[Comparison]:
    bench: Any = thriftpy2.load_fp(io.StringIO(IDL), "bench_thrift")
    url = f"http://127.0.0.1:{_start()}/thrift"
    ours: Any = ThriftHttpClient(bench.Bench, url)
    kept, new = _theirs(bench, url, True), _theirs(bench, url, False)
    row = bench.Row(1, "name", 0.5, True, 80, "group", ["a", "b"])
    assert ours.echo(row) == kept.echo(row) == row
    return [
        Comparison(
            "thrift over HTTP: ping",
            _wall(lambda: ours.ping()),
            {
                "thriftpy2 keep_alive": _wall(lambda: kept.ping()),
                "thriftpy2": _wall(lambda: new.ping()),
            },
            goals=[Goal("thriftpy2 keep_alive", 0.60)],
            clocked=False,
        ),
        Comparison(
            "thrift over HTTP: a struct there and back",
            _wall(lambda: ours.echo(row)),
            {"thriftpy2 keep_alive": _wall(lambda: kept.echo(row))},
            goals=[Goal("thriftpy2 keep_alive", 0.60)],
            clocked=False,
        ),
        Comparison(
            "thrift over HTTP: 100 structs back",
            _wall(lambda: ours.many(100)),
            {"thriftpy2 keep_alive": _wall(lambda: kept.many(100))},
            clocked=False,
        ),
    ]


def _wall(call: Callable[[], object]) -> Callable[[], float]:
    def sample() -> float:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            began = time.perf_counter()
            for _ in repeat(None, CALLS):
                call()
            return (time.perf_counter() - began) / CALLS
        finally:
            os.sched_setaffinity(0, cores)

    return sample


def _theirs(bench: Any, url: str, keep_alive: bool) -> Any:
    protocol: Any = TCyBinaryProtocolFactory
    return thriftpy2.http.make_client(
        bench.Bench,
        url=url,
        proto_factory=protocol(),
        trans_factory=TCyBufferedTransportFactory(),
        timeout=10_000,
        keep_alive=keep_alive,
    )


def _start() -> int:
    command = [sys.executable, "-c", SERVER, IDL]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    atexit.register(server.wait)
    atexit.register(server.kill)
    assert server.stdout is not None
    return int(server.stdout.readline())
