"""Fixtures over the fakes. Loaded by itself, free while unused; no conftest is needed.

    def test_it(fake_startrek, startrek_client):
        fake_startrek.add_queue("TEST")
        startrek_client.issues.create(queue="TEST", summary="x")

    @pytest.mark.yandex(transport="both")       # a test, or pytestmark of a module
    def test_it_without_a_socket_and_over_http(staff_client): ...

    fake_<service>       the fake of a service, new for each test; at the end of the test its
                         `check()`: a request for something it does not have fails the test
    <service>_client     the client of that service, which reaches the fake
    yandex_fakes         all of them: `sepelib.yandex.testing.YandexFakes`; those of the other
                         fixtures are its own, so clock and accounts are shared
    yandex_live          as `yandex_fakes`, always over HTTP, at addresses that stay for the
                         session; for the configuration of a daemon under test
    yandex_transport     how the first three are reached: "inprocess" or "live"

Services: the modules of `sepelib.yandex`, as in `sepelib.yandex.contract.SERVICES`. The option
--yandex-transport=inprocess|live|both is for the tests without the marker.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.yandex.pytest_plugin needs pytest: pip install 'sepelib-yandex[pytest]'"
    ) from e

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sepelib.yandex.contract import SERVICES

if TYPE_CHECKING:
    from sepelib.yandex.testing import FakeService, YandexFakes
    from sepelib.yandex.testing._fakes import Transport

__all__ = ["yandex_fakes", "yandex_live", "yandex_transport"]

_TRANSPORTS = ("inprocess", "live")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--yandex-transport",
        choices=(*_TRANSPORTS, "both"),
        default=_TRANSPORTS[0],
        help="how the tests reach the fakes of sepelib.yandex: without sockets or over HTTP",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "yandex(transport): reach the fakes inprocess, live or both ways"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "yandex_transport" in metafunc.fixturenames:
        wanted = _wanted(metafunc.config, metafunc.definition)
        if wanted == "both":
            metafunc.parametrize("yandex_transport", _TRANSPORTS, indirect=True)


@pytest.fixture
def yandex_transport(request: pytest.FixtureRequest) -> Transport:
    """How the fakes are reached: "inprocess" or "live"."""
    wanted = getattr(request, "param", None) or _wanted(request.config, request.node)
    return "live" if wanted == "live" else "inprocess"


@pytest.fixture
def yandex_fakes(yandex_transport: Transport) -> Iterator[YandexFakes]:
    """The fakes of all services, each made when it is first asked for."""
    from sepelib.yandex.testing import YandexFakes

    with YandexFakes(transport=yandex_transport) as fakes:
        yield fakes
        fakes.check()


@pytest.fixture
def yandex_live(_yandex_session: YandexFakes) -> Iterator[YandexFakes]:
    """The fakes over HTTP, as new, at addresses that stay until the end of the session."""
    yield _yandex_session
    try:
        _yandex_session.check()
    finally:
        _yandex_session.reset()


@pytest.fixture(scope="session")
def _yandex_session() -> Iterator[YandexFakes]:
    from sepelib.yandex.testing import YandexFakes

    with YandexFakes(transport="live") as fakes:
        yield fakes


def _wanted(config: pytest.Config, node: pytest.Item | Any) -> str:
    marker = node.get_closest_marker("yandex")
    if marker is None:
        # Without the default where the plug-in came too late for its option: by pytest_plugins.
        return str(config.getoption("--yandex-transport", default=_TRANSPORTS[0]))
    wanted = str(marker.kwargs.get("transport"))
    if wanted not in (*_TRANSPORTS, "both"):
        raise pytest.UsageError(
            f"{node.nodeid}: pytest.mark.yandex has transport='inprocess', 'live' or 'both'"
        )
    return wanted


def _fake_fixture(service: str) -> object:
    def fake(yandex_fakes: YandexFakes) -> FakeService[Any]:
        return yandex_fakes[service]

    fake.__doc__ = f"The fake of {service}, one of `yandex_fakes`."
    return pytest.fixture(name=f"fake_{service}")(fake)


def _client_fixture(service: str) -> object:
    def client(yandex_fakes: YandexFakes) -> Any:
        return yandex_fakes.client(service)

    client.__doc__ = f"A client of {service} that reaches the fake; closed when the test ends."
    return pytest.fixture(name=f"{service}_client")(client)


for _service in SERVICES:
    globals()[f"fake_{_service}"] = _fake_fixture(_service)
    globals()[f"{_service}_client"] = _client_fixture(_service)
