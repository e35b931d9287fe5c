"""All fakes, as one."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from sepelib.util.testing import Clock

if TYPE_CHECKING:
    from ._service import FakeService

__all__ = ["TABLE", "Row", "Transport", "YandexFakes"]

Transport = Literal["inprocess", "live"]


class Row(NamedTuple):
    """The names of a service's module, of its client's class and of its fake's class."""

    service: str
    client: str
    fake: str


TABLE = (
    Row("alemate", "AlemateClient", "FakeAlemate"),
    Row("auth_qe", "AuthQeClient", "FakeAuthQe"),
    Row("blackbox", "BlackboxClient", "FakeBlackbox"),
    Row("center_robot", "CenterRobotClient", "FakeCenterRobot"),
    Row("clustermaster", "ClustermasterClient", "FakeClustermaster"),
    Row("cms", "CmsClient", "FakeCms"),
    Row("gencfg", "GencfgClient", "FakeGencfg"),
    Row("iss", "IssClient", "FakeIss"),
    Row("its", "ItsClient", "FakeIts"),
    Row("nanny", "NannyClient", "FakeNanny"),
    Row("oauth", "OAuthClient", "FakeOAuth"),
    Row("otrs", "OtrsClient", "FakeOtrs"),
    Row("passport", "PassportClient", "FakePassport"),
    Row("sandbox", "SandboxClient", "FakeSandbox"),
    Row("shardtracker", "ShardtrackerClient", "FakeShardtracker"),
    Row("staff", "StaffClient", "FakeStaff"),
    Row("startrek", "StartrekClient", "FakeStartrek"),
    Row("timeline", "TimelineClient", "FakeTimeline"),
    Row("tvm", "TvmClient", "FakeTvmTool"),
)

_ROWS = {row.service: row for row in TABLE}
_SHARING_ACCOUNTS = ("blackbox", "oauth", "passport")


class YandexFakes:
    """The fakes of all services, each made when it is first asked for.

        with YandexFakes(transport="live") as fakes:
            fakes.startrek.add_queue("TEST")
            config = fakes.config("startrek", "staff")      # {"startrek": {"url": …}, …}
            issue = fakes.client("startrek").issues.get("TEST-1")
            fakes.check()

    They share one `clock`; blackbox, oauth and passport share their `accounts`.
    *transport*: "inprocess", or "live": each is served over HTTP on a port of its own, which stays
    the same until `close()`, through `reset()` too. `close()` also closes the clients. One test
    at a time.
    """

    def __init__(self, *, transport: Transport = "inprocess") -> None:
        self.transport = transport
        self.clock = Clock(0.0)
        """The time of all services."""
        self._stack = ExitStack()
        self._fakes: dict[str, FakeService[Any]] = {}
        self._clients: list[Any] = []
        self._accounts: Any = None

    def __getitem__(self, service: str) -> FakeService[Any]:
        """The fake of that service."""
        if service not in self._fakes:
            self._fakes[service] = self._made(_row(service))
        return self._fakes[service]

    def __getattr__(self, service: str) -> Any:
        if service not in _ROWS:
            raise AttributeError(f"{type(self).__name__} has no {service!r}")
        return self[service]

    @property
    def accounts(self) -> Any:
        """What blackbox, oauth and passport know of people, their passwords and tokens."""
        if self._accounts is None:
            from ._accounts import Accounts

            self._accounts = Accounts(clock=self.clock)
        return self._accounts

    @property
    def used(self) -> list[FakeService[Any]]:
        """Those which somebody asked for."""
        return list(self._fakes.values())

    def config(self, *services: str) -> dict[str, dict[str, Any]]:
        """The config sections that point the clients of *services* (none named: all) here."""
        return {service: self[service].config() for service in services or _ROWS}

    def client(self, service: str, **options: Any) -> Any:
        """A new client of that service, with *options* beside its config section."""
        row, fake = _row(service), self[service]
        module = import_module(f"sepelib.yandex.{row.service}")
        if self.transport == "inprocess":
            options.setdefault("session", fake.session())
        client = getattr(module, row.client).from_config(fake.config(), **options)
        self._clients.append(client)
        return client

    def reset(self) -> None:
        """All as new, at the same addresses. Closes the clients."""
        self._close_clients()
        self.clock = Clock(0.0)
        if self._accounts is not None:
            self._accounts.reset(clock=self.clock)
        for fake in self.used:
            fake.reset(clock=self.clock)

    def check(self) -> None:
        """AssertionError when one of them was asked for what it does not have: see the fakes'."""
        for fake in self.used:
            fake.check()

    def close(self) -> None:
        """Close clients and servers. The second call does nothing."""
        self._close_clients()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close_clients()
        self._stack.__exit__(kind, error, traceback)

    def _made(self, row: Row) -> FakeService[Any]:
        options: dict[str, Any] = {"clock": self.clock}
        if row.service in _SHARING_ACCOUNTS:
            options["accounts"] = self.accounts
        module = import_module(f"{__package__}._{row.service}")
        fake: FakeService[Any] = getattr(module, row.fake)(**options)
        if self.transport == "live":
            self._stack.enter_context(fake.serve())
        return fake

    def _close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()


def _row(service: str) -> Row:
    if service not in _ROWS:
        raise KeyError(f"{service!r} is no service of sepelib.yandex: {', '.join(_ROWS)}")
    return _ROWS[service]
