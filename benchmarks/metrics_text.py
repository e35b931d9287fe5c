"""A registry as a document, and how long the requests beside a scrape wait for it.

The peer is prometheus_client's generate_latest, without the `_created` lines which it would write
for each metric on top. 10,000 counters are a hundred metrics of a hundred series each.
"""

import contextlib
import math
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.runner import Comparison, Goal

FAMILIES = SERIES = 100
HISTOGRAMS = 1000
NEW_VALUES = 20  # of each histogram, from one scrape to the next
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = 2000  # for one p99,
RATE = 1000  # of them a second,
SCRAPES = 0.5  # seconds from one scrape to the next

Body = Callable[[], bytes]


def comparisons() -> list[Comparison]:
    return [
        Comparison(
            "metrics: text of 10,000 counters",
            our_counters("prometheus"),
            {
                "prometheus_client": their_counters(),
                "our openmetrics": our_counters("openmetrics"),
                "our json": our_counters("json"),
                "our yasm": our_counters("yasm"),
                "our yaml": our_counters("yaml"),
            },
            goals=[Goal("prometheus_client", 0.05)],
        ),
        Comparison(
            "metrics: text of 1,000 histograms",
            our_histograms("prometheus", 0),
            {
                "prometheus_client": their_histograms(0),
                "our json": our_histograms("json", 0),
                "our yasm": our_histograms("yasm", 0),
            },
            goals=[Goal("prometheus_client", 1 / 15)],
            clocked=False,
        ),
        Comparison(
            f"metrics: text of 1,000 histograms, each with {NEW_VALUES} values since the last one",
            our_histograms("prometheus", NEW_VALUES),
            {"prometheus_client": their_histograms(NEW_VALUES)},
            clocked=False,
        ),
        Comparison(
            "metrics: p99 of 1,000 requests a second, a scrape of 10,000 counters each 0.5 s",
            lambda: p99("our_counters"),
            {
                "prometheus_client": lambda: p99("their_counters"),
                "no scrapes": lambda: p99("our_counters", scraped=False),
            },
            goals=[Goal("prometheus_client", 0.1)],
            clocked=False,
        ),
    ]


def our_counters(fmt: str = "prometheus") -> Body:
    from sepelib.metrics import Registry

    registry = Registry(max_series=SERIES)
    for family in range(FAMILIES):
        counter = registry.counter(f"requests_of_{family}", "Answers.", ("method", "endpoint"))
        for series in range(SERIES):
            counter.labels("GET", f"/api/{series}").inc(family * series)
    return lambda: registry.dump(fmt)[0]


def their_counters() -> Body:
    client, registry = peer()
    for family in range(FAMILIES):
        counter = client.Counter(
            f"requests_of_{family}", "Answers.", ["method", "endpoint"], registry=registry
        )
        for series in range(SERIES):
            counter.labels("GET", f"/api/{series}").inc(family * series)
    return lambda: client.generate_latest(registry)


def our_histograms(fmt: str, news: int) -> Callable[[], float]:
    from sepelib.metrics import Registry

    registry = Registry()
    family = registry.histogram("seconds", "Until the answer.", ("endpoint",), buckets=BUCKETS)
    children = [family.labels(f"/api/{number}") for number in range(HISTOGRAMS)]
    observe(children, NEW_VALUES)
    return lambda: after_new_values(children, news, lambda: registry.dump(fmt)[0])


def their_histograms(news: int) -> Callable[[], float]:
    client, registry = peer()
    family = client.Histogram(
        "seconds", "Until the answer.", ["endpoint"], buckets=BUCKETS, registry=registry
    )
    children = [family.labels(f"/api/{number}") for number in range(HISTOGRAMS)]
    observe(children, NEW_VALUES)
    return lambda: after_new_values(children, news, lambda: client.generate_latest(registry))


def observe(histograms: list[Any], number: int) -> None:
    values = [random.lognormvariate(-4, 1) for _ in range(number)]
    for histogram in histograms:
        for value in values:
            histogram.observe(value)


def after_new_values(histograms: list[Any], news: int, dump: Body) -> float:
    """Seconds of the dump alone."""
    observe(histograms, news)
    start = time.perf_counter()
    dump()
    return time.perf_counter() - start


def peer() -> tuple[Any, Any]:
    import prometheus_client

    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    return prometheus_client, prometheus_client.CollectorRegistry()


SERVER = """
import gevent.os, gevent.server, sys
from benchmarks import metrics_text
dump = getattr(metrics_text, sys.argv[1])()

def serve(connection, _):
    with connection:
        while request := connection.recv(1000):
            body = dump() if request.startswith(b"GET /metrics") else b"hello"
            head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
            connection.sendall(head + body)

server = gevent.server.StreamServer(("127.0.0.1", 0), serve)
server.start()
print(server.server_port, flush=True)
gevent.os.tp_read(0, 1)
"""


SCRAPER = "import sys; from benchmarks import metrics_text; metrics_text.scrape(int(sys.argv[1]))"


@contextlib.contextmanager
def running(code: str, argument: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends when its input does."""
    command = [sys.executable, "-c", code, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        with process.stdin:
            yield process


def p99(dump: str, *, scraped: bool = True) -> float:
    """Of latencies that count from when a request was due: one that cannot be sent since the one
    before is not answered waits, too."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(SERVER, dump))
        assert server.stdout is not None
        port = int(server.stdout.readline())
        connection = stack.enter_context(connected(port))
        get(connection, b"/")
        if scraped:
            stack.enter_context(running(SCRAPER, str(port)))
        latencies = []
        due = time.perf_counter()
        for _ in range(REQUESTS):
            due += 1 / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            get(connection, b"/")
            latencies.append(time.perf_counter() - due)
    return sorted(latencies)[math.ceil(0.99 * REQUESTS) - 1]


def scrape(port: int) -> None:
    with connected(port) as connection:
        while not select.select([sys.stdin], [], [], SCRAPES)[0]:
            get(connection, b"/metrics")


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60.0)


def get(connection: socket.socket, path: bytes) -> None:
    connection.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    missing = int(head.rpartition(b" ")[2]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(min(missing, 1 << 20)))
