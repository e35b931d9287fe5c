"""An XML-RPC call over a kept connection, and what writing and reading XML costs alone.

Peer: the standard library's xmlrpc.client. It has no timeout, no limit and no check of what it
sends; it speaks through http.client, where ours goes through requests.
"""

import atexit
import subprocess
import sys
import xmlrpc.client
from datetime import datetime

from benchmarks.runner import Comparison
from sepelib.rpc._xml_parse import parse_reply
from sepelib.rpc._xml_write import write_call
from sepelib.rpc.xml import ServerProxy

SERVER = """
from socketserver import ThreadingMixIn
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

class Handler(SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"

class Server(ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler, logRequests=False)
server.register_function(lambda: "pong", "ping")
print(server.server_address[1], flush=True)
server.serve_forever()
"""
ROWS = [
    {
        "name": f"worker-{number}",
        "group": "workers & <others>",
        "pid": 1000 + number,
        "load": number / 7,
        "running": number % 3 == 0,
        "since": datetime(2024, 5, 6, 7, 8, number % 60),
        "log": "",
        "tags": ["a", "b"],
    }
    for number in range(1000)
]


def comparisons() -> list[Comparison]:
    url = f"http://127.0.0.1:{_start()}/RPC2"
    ours, theirs = ServerProxy(url), xmlrpc.client.ServerProxy(url)
    reply = xmlrpc.client.dumps((ROWS,), methodresponse=True).encode()
    assert parse_reply(reply, aware=False).value == ROWS
    return [
        Comparison(
            "xmlrpc: ping over a kept connection",
            lambda: ours.ping(),
            {"xmlrpc.client": lambda: theirs.ping()},
        ),
        Comparison(
            "xmlrpc: 1000 structs read",
            lambda: parse_reply(reply, aware=True),
            {"xmlrpc.client": lambda: xmlrpc.client.loads(reply, use_builtin_types=True)},
        ),
        Comparison(
            "xmlrpc: 1000 structs written",
            lambda: write_call("put", (ROWS,), allow_none=True, big_ints="i8"),
            {"xmlrpc.client": lambda: xmlrpc.client.dumps((ROWS,), "put").encode()},
        ),
    ]


def _start() -> int:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    atexit.register(server.wait)
    atexit.register(server.kill)
    assert server.stdout is not None
    return int(server.stdout.readline())
