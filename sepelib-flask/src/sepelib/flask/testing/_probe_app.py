"""A WSGI application that does what the path says, well or badly, and keeps a journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import gevent

import flask

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["application", "journal"]

journal: list[str] = []


def application(environ: WSGIEnvironment, start: StartResponse) -> Any:
    path = environ["PATH_INFO"]
    journal.append(f"{environ['REQUEST_METHOD']} {path}")
    if path.startswith("/flask/"):
        return _with_flask(environ, start)
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    handler = _PAGES.get(path.strip("/").split("/")[0], _missing)
    return handler(environ, start, query)


def _answer(start: StartResponse, body: bytes, status: str = "200 OK") -> list[bytes]:
    start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _missing(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    return _answer(start, b"no such page", "404 Not Found")


def _hello(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    return _answer(start, b"hello")


def _environ(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    shown = {k: v for k, v in environ.items() if isinstance(v, str | int | float | tuple)}
    return _answer(start, json.dumps(shown).encode())


def _echo(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    body = environ["wsgi.input"].read()
    return _answer(start, body)


def _pieces(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    size = int(query["size"])
    pieces = list(iter(lambda: environ["wsgi.input"].read(size), b""))
    return _answer(start, json.dumps([piece.decode() for piece in pieces]).encode())


def _lines(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    size = int(query.get("size", -1))
    lines = list(iter(lambda: environ["wsgi.input"].readline(size), b""))
    return _answer(start, json.dumps([line.decode() for line in lines]).encode())


def _some(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    return _answer(start, environ["wsgi.input"].read(int(query["n"])))


def _sleep(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    try:
        gevent.sleep(float(query["s"]))
    except gevent.GreenletExit:
        journal.append("killed")
        raise
    return _answer(start, b"slept")


def _stubborn(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    until = time.monotonic() + float(query["s"])
    while time.monotonic() < until:
        try:
            gevent.sleep(0.05)
        except gevent.GreenletExit:
            journal.append("ignored")
    return _answer(start, b"at last")


def _block(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    """Compute without letting anything else run; with `stop`, stop the server next."""
    if "stop" in query:
        gevent.spawn(environ["probe.server"].stop, float(query["stop"]))
    _compute(float(query["s"]))
    return _answer(start, b"blocked")


def _compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def _stop(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    begin = time.monotonic()
    environ["probe.server"].stop(float(query["timeout"]))
    return _answer(start, str(time.monotonic() - begin).encode())


class _Closing:
    """An iterable that notes when it is closed, and how often."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        journal.append("closed")


def _stream(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    def parts() -> Iterator[bytes]:
        for _ in range(int(query.get("n", 3))):
            yield b"x" * int(query.get("size", 5))
            gevent.sleep(float(query.get("every", 0)))
        if "fail" in query:
            raise RuntimeError("failed in the middle")

    headers = [("Content-Type", "text/plain")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    start("200 OK", headers)
    return _Closing(parts())


def _big(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    if "block" in query:
        gevent.spawn_later(0.05, _compute, float(query["block"]))
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"y" * int(query["n"])]


def _parts(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    start("200 OK", [])
    return [b"one", b"", b"two"]


def _fail(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    match query.get("how"):
        case "started":
            start("200 OK", [("X-Half", "1")])
            raise RuntimeError("failed after start_response")
        case "close":
            start("200 OK", [("Content-Length", "2")])

            class Fails(_Closing):
                def close(self) -> None:
                    raise RuntimeError("failed in close")

            return Fails(iter([b"ok"]))
        case "timeout":
            raise gevent.Timeout(1.0)
        case "connection":
            raise ConnectionResetError("a database went away")
        case "silent":
            return [b"no start_response"]
        case "str":
            start("200 OK", [])
            return ["text"]
        case "header":
            start("200 OK", [("X-Name", query["value"])])
            return [b"split"]
        case "number":
            start("200 OK", [("X-Number", 1)])  # type: ignore[list-item]
            return [b""]
        case "status":
            start(query["value"], [])
            return [b""]
        case "framing":
            start("200 OK", [("Transfer-Encoding", "chunked")])
            return [b""]
    raise RuntimeError("failed before start_response")


def _recovers(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    import sys

    start("200 OK", [("X-First", "1")])
    try:
        raise RuntimeError("noticed in time")
    except RuntimeError:
        start("502 Bad Gateway", [("Content-Length", "4")], sys.exc_info())
    return [b"oops"]


def _status(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    start(f"{query['code']} Whatever", [("Content-Length", query.get("length", "4"))])
    return [b"body"]


def _write(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    write = start("200 OK", [])
    write(b"written ")
    return [b"and returned"]


def _ends(environ: WSGIEnvironment, start: StartResponse, query: dict[str, str]) -> Any:
    if query.get("how") == "header":
        start("200 OK", [("Content-Length", "3"), ("Connection", "close")])
    else:
        environ["sepelib.connection"].close_after_answer()
        start("200 OK", [("Content-Length", "3")])
    return [b"end"]


_Page = Callable[["WSGIEnvironment", "StartResponse", dict[str, str]], Any]

_PAGES: dict[str, _Page] = {
    "hello": _hello,
    "environ": _environ,
    "echo": _echo,
    "pieces": _pieces,
    "lines": _lines,
    "some": _some,
    "sleep": _sleep,
    "stubborn": _stubborn,
    "block": _block,
    "stop": _stop,
    "stream": _stream,
    "big": _big,
    "parts": _parts,
    "fail": _fail,
    "recovers": _recovers,
    "status": _status,
    "write": _write,
    "ends": _ends,
}

_with_flask = flask.Flask("probe")


@_with_flask.post("/flask/upload")
def _upload() -> str:
    return f"{len(flask.request.get_data())} bytes"


@_with_flask.post("/flask/form")
def _form() -> str:
    return ",".join(sorted(flask.request.form))
