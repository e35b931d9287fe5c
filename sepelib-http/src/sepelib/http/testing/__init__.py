"""A real HTTP server on the loopback which answers as a test says, and fails as a test says.

    with HttpTestServer() as server:
        server.route("GET", "/users/{id}", json={"login": "ann"})
        server.next(faults.reset())                      # the next request, whichever it is
        ...
        assert [request.target for request in server.requests] == ["/users/7", "/users/7"]

    HttpTestServer      routes, a journal of what came, faults
    ReceivedRequest     a request as it came
    Reply               what a route answers
    faults              what can go wrong on the way: one function for each fault
    Exchange, Fault     for faults of your own
    unanswered_address  an address where nobody ever takes up a connection

Standard library only: no pytest (fixtures: `sepelib.http.pytest_plugin`), no client.
"""

from __future__ import annotations

from sepelib.http.testing import faults
from sepelib.http.testing._exchange import Exchange, Fault
from sepelib.http.testing._server import HttpTestServer
from sepelib.http.testing._unanswered import unanswered_address
from sepelib.http.testing._wire import ReceivedRequest, Reply

__all__ = [
    "Exchange",
    "Fault",
    "HttpTestServer",
    "ReceivedRequest",
    "Reply",
    "faults",
    "unanswered_address",
]
