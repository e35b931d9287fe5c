"""Ask a target once: run its program, or be a new client: connect, GET or call, read to the end.

Redirects are not followed: a 3xx is an answer, and what it points to is a target of its own.
A request is measured as `http_client_requests` and the like, with the name of its target.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from datetime import UTC, datetime

import gevent
import requests

from lookout import program
from lookout.answers import Answer, NotConnected, Unreachable, said_by_http
from lookout.calls import call_thrift, call_xmlrpc
from lookout.records import Result
from lookout.targets import Program, Target, ThriftCall, XmlRpcCall
from sepelib.http import InstrumentedSession
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.retry import Backoff, RetryPolicy

__all__ = ["RETRIES", "probe"]

BODY_CAP = 1 << 20
SLACK = 0.05  # seconds
ONCE = RetryPolicy(requests.RequestException, attempts=1)


class Session(InstrumentedSession):
    """One for each probe: over a kept connection a server answers that no longer accepts any.

    It has no limits of its own: the deadline of the probe is that of all it does, and of the body
    no more is read than is wanted.
    """

    def __init__(self) -> None:
        super().__init__(
            "probe",
            timeout=None,
            total_timeout=None,
            retries=ONCE,
            max_concurrency=None,
            max_body=None,
            user_agent="lookout",
        )
        self.headers["Accept-Encoding"] = "identity"

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Asked also when redirects are not followed, and then all of the body would be read.
        return None


# Only what is worth a second look: a lost SYN, a server that restarts. Not an answer, however
# bad; not a timeout, which leaves no time to try again in; not a certificate.
RETRIES = RetryPolicy(NotConnected, attempts=2, backoff=Backoff(base=0.1, cap=1.0))


def probe(target: Target, *, retries: RetryPolicy = RETRIES) -> Result:
    """A result within `target.timeout` seconds, retries included. No failure of a peer is raised.

    Needs a patched process: `gevent.Timeout` is what ends the wait for a name server, which knows
    of no deadline.
    """
    if isinstance(target.how, Program):
        return program.probe(target, target.how)
    at = datetime.now(UTC)
    started = time.monotonic()
    tries = 1
    answer: Answer | None = None
    error: str | None = f"no complete answer within {target.timeout:g} s"
    # Later than the deadline, which knows what it has ended. False: it ends the block without an
    # exception, which the stubs do not know.
    limit = gevent.Timeout(target.timeout + SLACK, False)  # type: ignore[arg-type]
    with limit, deadline(target.timeout):
        try:
            for attempt in retries:
                with attempt:
                    tries, started = attempt.number, time.monotonic()
                    answer = _asked(target)
            error = None
        except Unreachable as unreachable:
            error = str(unreachable)
        except TimeoutError:
            pass  # the same sentence
    latency = time.monotonic() - started
    if answer is not None and error is None:
        error = answer.complaint
        if error is None and target.max_latency is not None and latency > target.max_latency:
            error = f"answered in {latency:.2f} s, slower than {target.max_latency:g} s"
    return Result(at, latency, None if answer is None else answer.status, error, tries)


def _asked(target: Target) -> Answer:
    match target.how:
        case ThriftCall():
            return call_thrift(target, target.how)
        case XmlRpcCall():
            return call_xmlrpc(target, target.how)
    return _got(target)


def _got(target: Target) -> Answer:
    """The answer, once the body has been read or is larger than anybody should wait for."""
    with Session() as session:
        try:
            with session.get(
                target.url, endpoint=target.name, stream=True, allow_redirects=False
            ) as answer:
                size = 0
                for chunk in answer.iter_content(1 << 16):
                    size += len(chunk)
                    if size >= BODY_CAP:
                        break
                status = answer.status_code
        except requests.RequestException as error:
            raise _explained(error, target.host) from error
    expected = status == target.status if target.status else 200 <= status < 400
    if expected:
        return Answer(status)
    wanted = f", expected {target.status}" if target.status else ""
    return Answer(status, said_by_http(status) + wanted)


def _explained(error: requests.RequestException, host: str) -> Exception:
    """What happened below the layers of requests and urllib3, whose own texts quote the URL."""
    if isinstance(error, DeadlineExceeded):
        return TimeoutError("the time of the probe is over")
    cause: BaseException = error
    while deeper := cause.__cause__ or cause.__context__:
        cause = deeper
    match cause:
        case socket.gaierror():
            return NotConnected(f"{host} does not resolve ({cause.strerror})")
        case ssl.SSLCertVerificationError():
            return Unreachable(f"certificate refused ({cause.verify_message})")
        case ssl.SSLError():
            return Unreachable(f"TLS failed ({cause.reason or 'no reason given'})")
        case TimeoutError():
            return TimeoutError("the socket timed out")
        case http.client.RemoteDisconnected():
            return NotConnected("connection closed without an answer")
        case ConnectionRefusedError():
            return NotConnected("connection refused")
        case OSError() if cause.strerror:
            return NotConnected(f"connection failed ({cause.strerror})")
        case http.client.IncompleteRead():
            return Unreachable("the answer ended too early")
        case _:
            return Unreachable(f"not an HTTP answer ({type(cause).__name__})")
