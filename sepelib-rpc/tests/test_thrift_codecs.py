"""Both codecs on bytes: torn anywhere, with lengths that lie, and without the libraries."""

import logging
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.rpc._codec import Ending, Method, Mismatch, codec_for, heads
from sepelib.rpc._codec_thriftpy2 import HAS_CYTHON, Thriftpy2Codec, _CythonDecoder
from sepelib.rpc._connection import Connection, PeerClosed, ReplyRefused
from sepelib.rpc.thrift import ProtocolViolation, ThriftBinClient, ThriftError

pytest_plugins = ["sepelib.rpc.pytest_plugin"]

MAX = 1 << 20
STRING, LIST, MAP, SET, STRUCT = 11, 15, 13, 14, 12


class Pieces(Connection):
    """Gives *data* as it was cut, then raises *end*."""

    def __init__(self, *data: bytes, end: BaseException | None = None) -> None:
        self.data = list(data)
        self.end = end or PeerClosed("the end")

    def receive(self, size: int) -> bytes:
        if not self.data:
            raise self.end
        data = self.data.pop(0)
        if len(data) > size:
            self.data.insert(0, data[size:])
        return data[:size]

    def send(self, message: bytes, end: float) -> None: ...

    def is_at_end(self) -> bool:
        return True

    def is_fresh(self) -> bool:
        return True

    def close(self) -> None: ...


KINDS = ["cython", "pure", "compact", "apache", "apache compact", "apache pure"]


@pytest.fixture(params=[*KINDS, "apache pure compact"])
def codec(
    request: pytest.FixtureRequest, thriftpy: Any, apache: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """`codec.method(name)` of each kind; `codec.types` has the structs."""
    assert HAS_CYTHON
    if "apache pure" in request.param:
        from thrift.protocol import fastbinary

        # As where its C extension is not built.
        monkeypatch.delattr(sys.modules["thrift.protocol"], fastbinary.__name__.rpartition(".")[2])
        monkeypatch.setitem(sys.modules, fastbinary.__name__, None)
    protocol: Any = "compact" if "compact" in request.param else "binary"
    library = apache if "apache" in request.param else thriftpy
    if library is thriftpy:
        cython = request.param == "cython"
        made: Any = Thriftpy2Codec(thriftpy.service, protocol, MAX, cython=cython)
    else:
        made = codec_for(apache.service, protocol, MAX)
    made.types, made.protocol, made.kind = library.types, protocol, request.param
    return made


def reply_of(codec: Any, method: str, value: Any, seqid: int = 7) -> bytes:
    """What a server would send, made by the library's own writer."""
    library = "apache" if "apache" in codec.kind else "thriftpy2"
    if library == "apache":
        from thrift.protocol.TBinaryProtocol import TBinaryProtocol
        from thrift.protocol.TCompactProtocol import TCompactProtocol
        from thrift.transport.TTransport import TMemoryBuffer

        home = codec._homes[method]
        result = getattr(home, f"{method}_result")(success=value)
    else:
        from thriftpy2.protocol.binary import TBinaryProtocol
        from thriftpy2.protocol.compact import TCompactProtocol
        from thriftpy2.transport.base import TTransportBase as _  # noqa: F401

        class TMemoryBuffer:  # type: ignore[no-redef]
            def __init__(self) -> None:
                self.data = b""

            def write(self, data: bytes) -> None:
                self.data += bytes(data)

            def getvalue(self) -> bytes:
                return self.data

        result = getattr(codec.types.Directory, f"{method}_result")()
        result.success = value
    sink = TMemoryBuffer()
    result.write((TCompactProtocol if codec.protocol == "compact" else TBinaryProtocol)(sink))
    beginning = heads(method, False, codec.protocol)(seqid)[1]
    return beginning + bytes(sink.getvalue())


def read(method: Method, *pieces: bytes, seqid: int = 7) -> Any:
    _, beginning = method.encode(seqid, ("x",) if method.name == "echo" else (), {})
    return method.decode(Pieces(*pieces), beginning, seqid)


def person(types: Any, **fields: Any) -> Any:
    return types.Person(
        **{"name": "Änn", "age": -3, "tags": ["a", ""], "counters": {"x": 1 << 40}} | fields
    )


def test_a_reply_may_be_torn_anywhere(codec: Any) -> None:
    method = codec.method("put")
    ann = person(codec.types, mail="a@b", score=2.5, kind=2)
    whole = reply_of(codec, "put", ann)
    _, beginning = method.encode(7, (ann, True), {})

    for place in range(len(whole) + 1):
        pieces = [piece for piece in (whole[:place], whole[place:]) if piece]
        assert method.decode(Pieces(*pieces), beginning, 7) == ann
    dripping = [whole[place : place + 1] for place in range(len(whole))]
    assert method.decode(Pieces(*dripping), beginning, 7) == ann


class Killed(BaseException):
    """What a GreenletExit is to the code that it strikes."""


@pytest.mark.parametrize("end", [PeerClosed("gone"), TimeoutError("timed out"), Killed()])
def test_what_ends_the_reading_of_a_reply_passes_through_the_library(
    codec: Any, end: BaseException
) -> None:
    method = codec.method("put")
    ann = person(codec.types)
    whole = reply_of(codec, "put", ann)
    _, beginning = method.encode(7, (ann, True), {})

    for place in range(1, len(whole)):
        with pytest.raises(type(end)) as raised:
            method.decode(Pieces(whole[:place], end=end), beginning, 7)
        assert raised.value is end
    assert method.decode(Pieces(whole), beginning, 7) == ann  # nothing of those is left in a buffer


def test_bytes_behind_a_reply_are_seen_wherever_they_are_cut(codec: Any) -> None:
    method = codec.method("echo")
    whole = reply_of(codec, "echo", "hello")
    for place in range(1, len(whole) + 1):
        pieces = [piece for piece in (whole[:place], whole[place:] + b"!") if piece]
        if place == len(whole):
            pieces = [whole + b"!"]
        ending = read(method, *pieces)
        assert isinstance(ending, Ending)
        assert (ending.value, ending.keep, ending.kind) == ("hello", False, "ok")
    assert read(method, whole) == "hello"


def test_a_void_reply_with_bytes_behind_it(codec: Any) -> None:
    method = codec.method("ping")
    void = heads("ping", False, codec.protocol)(7)[1] + b"\0"
    assert read(method, void) is None
    ending = read(method, void + b"!")
    assert ending.value is None and not ending.keep


def test_fields_of_a_newer_server_are_skipped(codec: Any) -> None:
    if codec.protocol == "compact":
        unknown = b"\x15\x02" + b"\x19\x25\x02\x04" + b"\x1b\x01\x88\x01a\x01b"
        value = b"\x08\0\5hello\0"
    else:
        unknown = b"\x08\0\x51\0\0\0\1" + b"\x0f\0\x52\x08\0\0\0\1\0\0\0\2"
        unknown += b"\x0d\0\x53\x0b\x0b\0\0\0\1\0\0\0\1a\0\0\0\1b"
        value = b"\x0b\0\0\0\0\0\5hello\0"
    beginning = heads("echo", False, codec.protocol)(7)[1]
    assert read(codec.method("echo"), beginning + unknown + value) == "hello"


def test_the_reply_of_another_call_is_not_read(codec: Any) -> None:
    method = codec.method("echo")
    for whole in (reply_of(codec, "echo", "ALICE", seqid=6), reply_of(codec, "whoami", "ALICE")):
        with pytest.raises(Mismatch):
            read(method, whole)
        for place in (1, 3, 6):
            with pytest.raises(Mismatch):
                read(method, whole[:place], whole[place:])


def test_the_seqid_goes_out_and_has_to_come_back(codec: Any) -> None:
    method = codec.method("echo")
    for seqid in (0, 1, 127, 128, 300, 1 << 20, (1 << 31) - 1):
        request, beginning = method.encode(seqid, ("x",), {})
        assert method.decode(Pieces(reply_of(codec, "echo", "hello", seqid)), beginning, seqid) == (
            "hello"
        )
        assert request != method.encode((seqid + 1) & 0x7FFFFFFF, ("x",), {})[0]


def test_a_large_reply_comes_whole(codec: Any) -> None:
    text = "ä" * 200_000
    whole = reply_of(codec, "echo", text)
    pieces = [whole[place : place + 5000] for place in range(0, len(whole), 5000)]
    assert read(codec.method("echo"), *pieces) == text
    request, _ = codec.method("echo").encode(1, (text,), {})
    assert len(request) > 400_000
    assert len(codec.method("echo").encode(1, ("x",), {})[0]) < 100


def test_encoders_forget_what_they_could_not_write(codec: Any) -> None:
    method = codec.method("put")
    good, _ = method.encode(1, (person(codec.types), True), {})
    for _ in range(2):
        with pytest.raises(Exception, match=r"old|int"):  # each library has its own words
            method.encode(1, (person(codec.types, age="old"), True), {})
        assert method.encode(1, (person(codec.types), True), {})[0] == good


@given(
    name=st.text(max_size=30),
    age=st.integers(-(1 << 31), (1 << 31) - 1),
    tags=st.lists(st.text(max_size=5), max_size=20),
    counters=st.dictionaries(st.text(max_size=5), st.integers(-(1 << 63), (1 << 63) - 1)),
    cuts=st.lists(st.integers(1, 40), max_size=10),
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_what_one_codec_writes_every_codec_reads(
    thriftpy: Any, apache: Any, cuts: list[int], **fields: Any
) -> None:
    for protocol in ("binary", "compact"):
        kinds: list[Any] = [Thriftpy2Codec(thriftpy.service, protocol, MAX, cython=False)]
        kinds += [codec_for(library.service, protocol, MAX) for library in (thriftpy, apache)]
        for kind, library in zip(kinds, (thriftpy, thriftpy, apache), strict=True):
            kind.types, kind.protocol, kind.kind = library.types, protocol, library.name
        requests = [
            kind.method("put").encode(3, (person(kind.types, **fields), False), {})[0]
            for kind in kinds
        ]
        assert requests[0] == requests[1]  # Apache writes the values that are defaults, too
        for kind in kinds:
            expected = person(kind.types, **fields)
            whole = reply_of(kind, "put", expected, 3)
            pieces, place = [], 0
            for cut in cuts:
                pieces.append(whole[place : place + cut])
                place += cut
            pieces = [piece for piece in [*pieces, whole[place:]] if piece]
            method = kind.method("put")
            beginning = method.encode(3, (expected, False), {})[1]
            assert method.decode(Pieces(*pieces), beginning, 3) == expected


# Lengths that lie.


def binary(method: str, body: bytes) -> bytes:
    return heads(method, False, "binary")(7)[1] + body


def refused(codec: Any, method: str, body: bytes) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        read_connection(codec, method, binary(method, body))
    return raised.value


def read_connection(codec: Any, method: str, whole: bytes) -> Any:
    compiled = codec.method(method)
    _, beginning = compiled.encode(7, ("x",) if method == "echo" else (), {})
    return compiled.decode(Pieces(whole), beginning, 7)


@pytest.mark.parametrize("claim", [MAX * 2 + (1 << 17), 1 << 28, (1 << 31) - 5000, (1 << 31) - 1])
def test_a_string_longer_than_any_message_is_refused_before_its_bytes_are_awaited(
    codec: Any, claim: int
) -> None:
    if codec.protocol == "compact":
        return
    error = refused(codec, "echo", bytes([STRING, 0, 0]) + struct.pack(">i", claim) + b"x")
    assert not isinstance(error, PeerClosed)


@pytest.mark.parametrize("claim", [-1, -(1 << 31)])
def test_a_negative_length_is_no_string(codec: Any, claim: int) -> None:
    if codec.protocol == "compact":
        return
    error = refused(codec, "echo", bytes([STRING, 0, 0]) + struct.pack(">i", claim) + b"x")
    assert not isinstance(error, OSError)


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("kind", [LIST, SET, MAP])
def test_a_container_takes_no_more_memory_than_the_bytes_that_come(
    codec: Any, kind: int, skipped: bool
) -> None:
    if codec.protocol == "compact":
        return
    method = {LIST: "many", SET: "numbers", MAP: "counters"}[kind]
    items = {LIST: bytes([STRUCT]), SET: b"\x08", MAP: bytes([STRING, 10])}[kind]
    field = b"\0\x63" if skipped else b"\0\0"
    body = bytes([kind]) + field + items + struct.pack(">i", (1 << 31) - 1) + bytes(4096)
    before = peak_memory()

    error = refused(codec, method, body)

    assert peak_memory() - before < 64 << 20
    if (codec.kind == "apache" and kind != MAP) or codec.kind == "apache pure":
        # Its lists in C are as long as they claim before they have an item.
        assert isinstance(error, ReplyRefused)


def test_the_buffer_in_cython_is_never_given_more_than_it_asks_for() -> None:
    decoder = _CythonDecoder(MAX)
    decoder.begin(Pieces(b"defgh"), b"abc")

    assert [decoder.read(2) for _ in range(4)] == [b"ab", b"c", b"de", b"fg"]


def test_nesting_has_an_end(codec: Any) -> None:
    deep = bytes([STRUCT, 0, 99]) * 100_000 + bytes(100_001)
    if codec.protocol == "compact":
        deep = b"\xfc" * 100_000 + bytes(100_001)
    compiled = codec.method("echo")
    _, beginning = compiled.encode(7, ("x",), {})
    with pytest.raises(Exception) as raised:  # noqa: PT011
        compiled.decode(Pieces(beginning + deep), beginning, 7)
    assert not isinstance(raised.value, OSError)


def test_containers_of_compact_are_bounded_by_the_message(thriftpy: Any) -> None:
    codec = Thriftpy2Codec(thriftpy.service, "compact", MAX)
    numbers = codec.method("numbers")
    _, beginning = numbers.encode(7, (), {})
    for body in (
        b"\x0a\0\xf5\xff\xff\xff\xff\x07",  # items of i32, 2 GiB of them
        b"\x1a\xf0\xff\xff\xff\xff\x07",  # to be skipped, of a type without bytes
        b"\x1a\xf0\x10",  # no more than fits, but without bytes
        b"\x1b\xff\xff\xff\xff\x07\x00",
        b"\x08\0\xff\xff\xff\xff\x07",
    ):
        began = time.monotonic()
        with pytest.raises(ReplyRefused):
            numbers.decode(Pieces(beginning + body), beginning, 7)
        assert time.monotonic() - began < 5.0


def peak_memory() -> int:
    """Bytes that this process has had at once, of real memory."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_gigabytes_claimed_are_not_needed(thrift_server: Any, thriftpy: Any) -> None:
    """The codec in Cython reserves what a string claims; where that is not to be had it fails well.

    In a process that may have a gigabyte of addresses, and asks for two.
    """
    server = thrift_server(thriftpy.service, None)
    server.rogue("string", (1 << 31) - 5000, times=None)

    class Handler:
        def echo(self, text: str) -> str:
            return text

    server._handler = Handler()
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        import logging, thriftpy2
        logging.disable(logging.CRITICAL)
        from sepelib.rpc.thrift import ProtocolViolation, ThriftBinClient
        types = thriftpy2.load({thriftpy.types.__thrift_file__!r}, module_name="limited_thrift")
        with ThriftBinClient(types.Directory, {server.endpoint!r}) as client:
            try:
                client.echo("x")
            except ProtocolViolation as error:
                print("refused", error.reason)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("refused"), done.stderr


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("rogue", ["string", "list", "set", "map", "depth"])
def test_rogue_replies_are_violations_or_end_in_time(
    thrift_server: Any, library: Any, handler: Any, rogue: str, framed: bool
) -> None:
    server = thrift_server(library.service, handler, transport="framed" if framed else "buffered")
    calls: dict[str, Callable[[Any], Any]] = {
        "string": lambda client: client.echo("x"),
        "list": lambda client: client.many(1),
        "set": lambda client: client.numbers(),
        "map": lambda client: client.counters(),
        "depth": lambda client: client.echo("x"),
    }
    logging.getLogger("sepelib.rpc").setLevel(logging.CRITICAL)
    try:
        with ThriftBinClient(
            library.service, server.endpoint, framed=framed, timeout=0.5
        ) as client:
            before = peak_memory()
            for claim in (1000, 100_000) if rogue == "depth" else (1 << 28, (1 << 31) - 1):
                server.rogue(rogue, claim)
                expected = ThriftError if not framed else ProtocolViolation
                with pytest.raises(expected):
                    calls[rogue](client)
            assert peak_memory() - before < 100 << 20
            assert client.echo("fine") == "fine"
    finally:
        logging.getLogger("sepelib.rpc").setLevel(logging.NOTSET)


def test_a_reply_over_max_message_is_refused(
    thrift_server: Any, library: Any, handler: Any
) -> None:
    handler.echo = lambda text: text * 1000
    for transport in ("buffered", "framed"):
        server = thrift_server(library.service, handler, transport=transport)
        with ThriftBinClient(
            library.service, server.endpoint, framed=transport == "framed", max_message=10_000
        ) as client:
            assert len(client.echo("12345678")) == 8000
            with pytest.raises(ProtocolViolation, match="max_message=10000"):
                client.echo("12345678" * 100)
            assert len(client.echo("12345678")) == 8000


# Services, and which library they need.


def test_a_service_may_be_named_by_its_module_or_its_client(apache: Any, thriftpy: Any) -> None:
    for service in (apache.service, apache.service.Client):
        codec = codec_for(service, "binary", MAX)
        assert codec.service_name == "Directory"
        assert codec.method_names == frozenset(thriftpy.service.thrift_services)
    assert codec_for(thriftpy.service, "binary", MAX).service_name == "Directory"
    for stranger in (object(), int, logging, type("Client", (), {})):
        with pytest.raises(TypeError, match="neither a service of thriftpy2 nor"):
            codec_for(stranger, "binary", MAX)


def test_required_arguments_are_asked_for(tmp_path: Any) -> None:
    import thriftpy2

    idl = tmp_path / "strict.thrift"
    idl.write_text("service Strict { string f(1: required string a, 2: i32 b = 5) }")
    strict = thriftpy2.load(str(idl), module_name="strict_thrift")
    method = codec_for(strict.Strict, "binary", MAX).method("f")
    with pytest.raises(TypeError, match=r"f\(\) misses the argument 'a'"):
        method.encode(1, (), {"b": 1})
    request, _ = method.encode(1, ("x",), {})
    assert request.endswith(b"\x0b\0\1\0\0\0\1x\x08\0\2\0\0\0\5\0")


BLOCKED = """
    import sys
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {names!r}:
                raise ModuleNotFoundError(name, name=name)
    sys.meta_path.insert(0, Blocked())
"""


def run_without(names: tuple[str, ...], code: str) -> str:
    blocked = textwrap.dedent(BLOCKED.format(names=names))
    done = subprocess.run(
        [sys.executable, "-c", blocked + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_clients_import_without_either_library() -> None:
    loaded = run_without(
        ("thriftpy2", "thrift", "gevent"),
        """
        from sepelib.rpc.thrift import ThriftBinClient, ThriftHttpClient
        print(sorted({"thriftpy2", "thrift", "ssl", "requests", "gevent"} & set(sys.modules)))
        class Service: thrift_services = []
        class Client:
            def send_ping(self): pass
        for service in (Service, Client):
            try:
                ThriftBinClient(service, "a:1")
            except ImportError as error:
                print(error)
        """,
    )
    assert loaded.splitlines() == [
        "[]",
        "services of thriftpy2 need thriftpy2: pip install 'sepelib-rpc[thrift]'",
        "services made by Apache's compiler need thrift: pip install 'sepelib-rpc[apache-thrift]'",
    ]


def test_thriftpy2_without_cython_is_read_by_its_pure_codec(thriftpy: Any) -> None:
    out = run_without(
        (),
        f"""
        import thriftpy2._compat
        thriftpy2._compat.CYTHON = False
        from sepelib.rpc import _codec_thriftpy2
        path = {thriftpy.types.__thrift_file__!r}
        types = thriftpy2.load(path, module_name="pure_thrift")
        codec = _codec_thriftpy2.Thriftpy2Codec(types.Directory, "binary", 1 << 20)
        request, _ = codec.method("echo").encode(1, ("x",), {{}})
        print(_codec_thriftpy2.HAS_CYTHON, request.hex())
        """,
    )
    request, _ = (
        Thriftpy2Codec(thriftpy.service, "binary", MAX).method("echo").encode(1, ("x",), {})
    )
    assert out.split() == ["False", request.hex()]
