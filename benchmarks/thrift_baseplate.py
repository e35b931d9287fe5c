"""Our pooled Thrift client beside baseplate's ThriftConnectionPool, in CPU seconds on loopback.

baseplate brings a Thrift of its own that takes the place of Apache's, so it runs in an environment
of its own, made at the first run, and in a process of its own which says what its calls took. Both
talk to the server of `benchmarks.thrift` and share its core.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import thriftpy2

from benchmarks import thrift
from benchmarks.runner import Comparison
from sepelib.metrics import Registry
from sepelib.rpc.thrift import ThriftBinClient

HERE = Path(__file__).parent.parent
PEER = r"""
import os, sys, time, warnings
warnings.simplefilter("ignore")
from baseplate.lib.config import Endpoint
from baseplate.lib.thrift_pool import ThriftConnectionPool
from thrift.protocol.TBinaryProtocol import TBinaryProtocolAccelerated
from thrift.transport.TTransport import TBufferedTransport
from directory_apache import Directory, ttypes

class Buffered:
    def getProtocol(self, transport):
        return TBinaryProtocolAccelerated(TBufferedTransport(transport))

server = Endpoint("127.0.0.1:" + sys.argv[1])
pool = ThriftConnectionPool(server, timeout=10, protocol_factory=Buffered())
person = ttypes.Person(
    name="Ann", age=33, mail="ann@example.org", tags=["a", "b"], counters={"x": 1 << 40}
)
calls = {
    "ping": lambda client: client.ping(),
    "put": lambda client: client.put(person, True),
    "many": lambda client: client.many(100),
}
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for line in sys.stdin:
    name, number = line.split()
    call = calls[name]
    began = time.process_time()
    for _ in range(int(number)):
        with pool.connection() as protocol:
            call(Directory.Client(protocol))
    print((time.process_time() - began) / int(number), flush=True)
"""


def comparisons() -> list[Comparison]:
    types: Any = thriftpy2.load(
        str(thrift.TESTS / "directory.thrift"), module_name="bench_bp_thrift"
    )
    person = thrift.a_person(types)
    values = {"ping": None, "put": person, "many": [person] * 100}
    replies = {name: thrift.recorded_reply(types, name, value) for name, value in values.items()}
    port = thrift.start_server(replies)
    ours: Any = ThriftBinClient(types.Directory, f"127.0.0.1:{port}", recorder=Registry())
    peer = _start_peer(port)
    calls: dict[str, tuple[str, Callable[[], object]]] = {
        "ping": ("ping", lambda: ours.ping()),
        "a struct of 7 fields there and back": ("put", lambda: ours.put(person, True)),
        "100 structs back": ("many", lambda: ours.many(100)),
    }
    return [
        Comparison(
            f"thrift, CPU on loopback with a pool: {what}",
            thrift.cpu_of(call),
            {"baseplate": lambda name=name: peer(name)},  # type: ignore[misc]
            clocked=False,
        )
        for what, (name, call) in calls.items()
    ]


def _start_peer(port: int) -> Callable[[str], float]:
    folder = Path(sys.prefix) / "baseplate"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        # The tree's own constraints are for another Thrift.
        clean = {name: value for name, value in os.environ.items() if name != "UV_CONSTRAINT"}
        install = ["uv", "pip", "install", "-q", "--python", str(python)]
        requirements = ["-r", str(HERE / "requirements-baseplate.txt")]
        subprocess.run(
            ["uv", "venv", "-q", "--clear", "-p", sys.executable, str(folder)], check=True
        )
        subprocess.run([*install, *requirements], check=True, env=clean)
        (folder / "made").touch()
    process = subprocess.Popen(
        [str(python), "-c", PEER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(thrift.TESTS), "PYTHONSAFEPATH": "1"},
    )
    atexit.register(process.wait)
    atexit.register(process.kill)

    def seconds(name: str) -> float:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{name} {thrift.CALLS}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    return seconds
