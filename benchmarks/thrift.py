"""Thrift calls with a pool, sequence numbers, retries and metrics, beside the libraries' bare ones.

Own work: replies recorded beforehand, no sockets; the steady figures. On loopback the seconds are
those of this process's CPU, and both ends share one core: else each sample is 10 or 34 us a call,
by where the scheduler happens to wake which. The server there replies by recorded bytes from
another process, in one write and without Nagle's delay.
"""

import atexit
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import thriftpy2
import thriftpy2.rpc
from thrift.protocol.TBinaryProtocol import (  # type: ignore[import-untyped]
    TBinaryProtocolAccelerated,
)
from thrift.transport import TSocket, TTransport  # type: ignore[import-untyped]
from thriftpy2.protocol import TCyBinaryProtocol, TCyBinaryProtocolFactory
from thriftpy2.thrift import TClient
from thriftpy2.transport import TCyBufferedTransport, TCyBufferedTransportFactory

from benchmarks.runner import Comparison, Goal
from sepelib.metrics import Registry
from sepelib.rpc._connection import Connection
from sepelib.rpc._hosts import Host
from sepelib.rpc.thrift import ThriftBinClient, _Client

TESTS = Path(__file__).parent.parent / "sepelib-rpc" / "tests"
CALLS = 200  # in one sample of CPU
SERVER = r"""
import os, socketserver, struct, sys

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
replies = {name: (bytes.fromhex(head), bytes.fromhex(tail))
           for name, head, tail in (line.split() for line in sys.stdin)}

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(6, 1, 1)
        while asked := self.request.recv(65536):
            end = 8 + struct.unpack_from(">i", asked, 4)[0]
            head, tail = replies[asked[8:end].decode()]
            self.request.sendall(head + asked[end:end + 4] + tail)

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

Call = Callable[[Any], object]


def comparisons() -> list[Comparison]:
    types: Any = thriftpy2.load(str(TESTS / "directory.thrift"), module_name="bench_dir_thrift")
    sys.path.append(str(TESTS))
    apache: Any = importlib.import_module("directory_apache.Directory")
    apache_types: Any = importlib.import_module("directory_apache.ttypes")
    sys.path.remove(str(TESTS))
    person, apache_person = a_person(types), a_person(apache_types)
    calls: dict[str, tuple[str, Call, Call, object]] = {
        "ping": ("ping", lambda c: c.ping(), lambda c: c.ping(), None),
        "a string back": ("whoami", lambda c: c.whoami(), lambda c: c.whoami(), "directory"),
        "a struct of 7 fields there and back": (
            *("put", lambda c: c.put(person, True), lambda c: c.put(apache_person, True)),
            person,
        ),
        "100 structs back": ("many", lambda c: c.many(100), lambda c: c.many(100), [person] * 100),
    }
    replies = {name: recorded_reply(types, name, value) for name, _, _, value in calls.values()}
    port = start_server(replies)
    return [
        *(_own_work(types, apache, what, *call, replies) for what, call in calls.items()),
        *(_on_loopback(types, apache, what, call, port) for what, call in calls.items()),
    ]


def a_person(types: Any) -> Any:
    return types.Person(
        name="Ann", age=33, mail="ann@example.org", tags=["a", "b"], counters={"x": 1 << 40}
    )


def _own_work(
    types: Any,
    apache: Any,
    what: str,
    name: str,
    call: Call,
    apache_call: Call,
    value: object,
    replies: dict[str, bytes],
) -> Comparison:
    reply = replies[name]
    ours = _client_over(types.Directory, lambda: _Recorded(name, reply))
    protocol: Any = TCyBinaryProtocol
    bare: Any = TClient(types.Directory, protocol(TCyBufferedTransport(_Replies(reply), 16 << 10)))
    buffered = TTransport.TBufferedTransport(_Replies(reply), 16 << 10)
    accelerated = apache.Client(TBinaryProtocolAccelerated(buffered))
    our_apache = _client_over(apache, lambda: _Recorded(name, reply))
    assert call(ours) == call(bare) == value
    assert type(apache_call(our_apache)) is type(apache_call(accelerated))
    goals = {"ping": 0.90, "whoami": 0.90, "put": 1.00}
    return Comparison(
        f"thrift, own work: {what}",
        lambda: call(ours),
        {
            "thriftpy2": lambda: call(bare),
            "apache, C": lambda: apache_call(accelerated),
            "sepelib over apache": lambda: apache_call(our_apache),
        },
        goals=[Goal("thriftpy2", goals[name])] if name in goals else [],
    )


def _on_loopback(
    types: Any, apache: Any, what: str, call: tuple[str, Call, Call, object], port: int
) -> Comparison:
    _, thriftpy_call, apache_call, value = call
    ours: Any = ThriftBinClient(types.Directory, f"127.0.0.1:{port}", recorder=Registry())

    def connect() -> Any:
        factory: Any = TCyBinaryProtocolFactory
        return thriftpy2.rpc.make_client(
            types.Directory,
            "127.0.0.1",
            port,
            proto_factory=factory(),
            trans_factory=TCyBufferedTransportFactory(),
            timeout=10_000,
        )

    def reconnecting() -> None:
        client = connect()
        thriftpy_call(client)
        client.close()

    kept = connect()
    socket = TSocket.TSocket("127.0.0.1", port)
    socket.setTimeout(10_000)
    socket.open()
    accelerated = apache.Client(TBinaryProtocolAccelerated(TTransport.TBufferedTransport(socket)))
    assert thriftpy_call(ours) == thriftpy_call(kept) == value
    return Comparison(
        f"thrift, CPU on loopback: {what}",
        cpu_of(lambda: thriftpy_call(ours)),
        {
            "thriftpy2": cpu_of(lambda: thriftpy_call(kept)),
            "thriftpy2, reconnecting": cpu_of(reconnecting),
            "apache, C": cpu_of(lambda: apache_call(accelerated)),
        },
        goals=[Goal("thriftpy2", 1.05)],
        clocked=False,
    )


def cpu_of(call: Callable[[], object]) -> Callable[[], float]:
    def sample() -> float:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            began = time.process_time()
            for _ in repeat(None, CALLS):
                call()
            return (time.process_time() - began) / CALLS
        finally:
            os.sched_setaffinity(0, cores)

    return sample


class _Replies:
    """What a client of a library reads from: one reply, for ever, with the sequence number 0."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    def read(self, size: int) -> bytes:
        return self._reply

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...


class _Recorded(Connection):
    """The same for ours, which wants its own sequence number back."""

    __slots__ = ("_head", "_place", "_seqid", "_tail")

    def __init__(self, name: str, reply: bytes) -> None:
        self._head, self._tail = _parts(name, reply)
        self._place = len(self._head)

    def send(self, message: bytes, end: float) -> None:
        self.replied = False
        self._seqid = message[self._place : self._place + 4]

    def receive(self, size: int) -> bytes:
        self.replied = True
        return self._head + self._seqid + self._tail

    def is_at_end(self) -> bool:
        return True

    def is_fresh(self) -> bool:
        return True

    def close(self) -> None: ...


def _client_over(service: Any, make: Callable[[], Connection]) -> Any:
    def connect(target: object, end: float) -> Connection:
        return make()

    return _Client(
        service,
        [Host("recorded", None)],
        connect,
        timeout=10.0,
        connect_timeout=3.0,
        pool_size=8,
        pool_timeout=...,
        max_idle=60.0,
        max_age=600.0,
        protocol="binary",
        idempotent=(),
        retries=None,
        name=None,
        recorder=Registry(),
        max_message=16 << 20,
    )


def recorded_reply(types: Any, name: str, value: object) -> bytes:
    sink = bytearray()

    class Sink:
        write = sink.extend

        def flush(self) -> None: ...

    buffered: Any = TCyBufferedTransport(Sink())
    factory: Any = TCyBinaryProtocol
    protocol = factory(buffered)
    protocol.write_message_begin(name, 2, 0)
    result = getattr(types.Directory, f"{name}_result")()
    result.success = value
    protocol.write_struct(result)
    buffered.flush()
    return bytes(sink)


def _parts(name: str, reply: bytes) -> tuple[bytes, bytes]:
    """Before and after the sequence number."""
    place = 8 + len(name)
    return reply[:place], reply[place + 4 :]


def start_server(replies: dict[str, bytes]) -> int:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.wait)
    atexit.register(server.kill)
    assert server.stdin is not None and server.stdout is not None
    for name, reply in replies.items():
        head, tail = _parts(name, reply)
        server.stdin.write(f"{name} {head.hex()} {tail.hex()}\n")
    server.stdin.close()
    return int(server.stdout.readline())
