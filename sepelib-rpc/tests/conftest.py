"""One service, directory.thrift, as each Thrift library has it, and a handler for it."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import thriftpy2

from sepelib.rpc.testing import ThriftServer
from sepelib.rpc.thrift import ThriftBinClient, ThriftHttpClient
from sepelib.util.testing import MemoryRecorder

HERE = Path(__file__).parent


class Library(NamedTuple):
    """What the compiler of one library makes of directory.thrift."""

    name: str
    service: Any  # what clients and servers take
    types: Any  # the module of Person, NotFound, Busy, Kind
    application_error: type[Exception]


@pytest.fixture(scope="session")
def thriftpy() -> Library:
    from thriftpy2.thrift import TApplicationException

    module = thriftpy2.load(str(HERE / "directory.thrift"), module_name="directory_thrift")
    return Library("thriftpy2", module.Directory, module, TApplicationException)


@pytest.fixture(scope="session")
def apache() -> Library:
    from thrift.Thrift import TApplicationException

    sys.path.append(str(HERE))
    try:
        service = importlib.import_module("directory_apache.Directory")
        types = importlib.import_module("directory_apache.ttypes")
    finally:
        sys.path.remove(str(HERE))
    return Library("apache", service, types, TApplicationException)


@pytest.fixture(params=["thriftpy2", "apache"])
def library(request: pytest.FixtureRequest) -> Library:
    """Each library in turn."""
    name = {"thriftpy2": "thriftpy", "apache": "apache"}[request.param]
    found: Library = request.getfixturevalue(name)
    return found


class Handler:
    """The directory. What a test wants different, it assigns."""

    def __init__(self, types: Any) -> None:
        self.types = types
        self.people: dict[str, Any] = {}
        self.total = 0
        self.told: list[str] = []

    def whoami(self) -> str:
        return "directory"

    def ping(self) -> None:
        pass

    def echo(self, text: str) -> str:
        return text

    def add(self, number: int) -> int:
        self.total += number
        return self.total

    def put(self, person: Any, replace: bool) -> Any:
        if person.name in self.people and not replace:
            raise self.types.Busy(reason=f"{person.name} is there", retry_in=3)
        self.people[person.name] = person
        return person

    def many(self, count: int) -> list[Any]:
        return [self.types.Person(name=f"person {n}", age=n, tags=["x"]) for n in range(count)]

    def counters(self) -> dict[str, int]:
        return {"calls": 7}

    def numbers(self) -> set[int]:
        return {1, 2, 3}

    def forget(self, key: str) -> None:
        if self.people.pop(key, None) is None:
            raise self.types.NotFound(key=key)

    def tell(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def handler(library: Library) -> Handler:
    return Handler(library.types)


class Served:
    """A running server, and clients that speak as it does."""

    def __init__(self, library: Library, handler: Handler, open_: contextlib.ExitStack) -> None:
        self.library = library
        self.types = library.types
        self.handler = handler
        self.recorder = MemoryRecorder()
        self.server: ThriftServer
        self._open = open_

    def client(self, *addresses: tuple[str, int], **options: Any) -> Any:
        """To *addresses*, by default the server's own; closed when the test ends."""
        options = {"recorder": self.recorder, "name": "dir", "timeout": 10.0} | options
        places = [f"{host}:{port}" for host, port in addresses or [self.server.address]]
        client: Any
        if self.server.transport == "http":
            urls = [f"http://{place}/thrift" for place in places]
            client = ThriftHttpClient(
                self.library.service, urls, protocol=self.server.protocol, **options
            )
        else:
            client = ThriftBinClient(
                self.library.service,
                places,
                framed=self.server.transport == "framed",
                protocol=self.server.protocol,
                **options,
            )
        return self._open.enter_context(client)

    @property
    def executed(self) -> list[str]:
        """The methods, in the order in which the server has executed them."""
        return [call.method for call in self.server.calls]

    def result(self, method: str, result: str) -> float:
        return self.recorder.value("thrift_client_calls", "dir", method, result)


@pytest.fixture(params=["buffered", "framed", "compact", "http"])
def served(request: pytest.FixtureRequest, library: Library, handler: Handler) -> Iterator[Served]:
    """Each library over each kind of connection in turn."""
    transport = {"compact": "framed"}.get(request.param, request.param)
    protocol = "compact" if request.param == "compact" else "binary"
    with contextlib.ExitStack() as clients:
        served = Served(library, handler, clients)
        with ThriftServer(
            library.service, handler, protocol=protocol, transport=transport
        ) as served.server:
            yield served


@pytest.fixture(scope="session")
def tls() -> SimpleNamespace:
    """`server` and `client`: contexts for 127.0.0.1, of one private authority."""
    import ssl

    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return SimpleNamespace(server=server, client=client)
