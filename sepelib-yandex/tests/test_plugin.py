"""The fixtures, in a pytest of its own, with stand-ins for the services."""

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 60.0  # seconds; far more than anything here takes

# Two services as the fixtures look for them: a client's module and a fake's module.
STAND_INS = """
import sys, types
from dataclasses import dataclass, field
import requests
from sepelib.yandex.testing import FakeService, route

@dataclass
class State:
    count: int = 0

class Fake(FakeService[State]):
    def new_state(self):
        return State()
    @route("POST", "/count", op="count")
    def _count(self, request):
        self.state.count += 1
        return self.state.count

class Client:
    open = 0
    def __init__(self, section, session=None, **options):
        self.section, self.session = section, session or requests.Session()
        self.options = options
        Client.open += 1
    @classmethod
    def from_config(cls, section, **options):
        return cls(section, **options)
    def count(self, path="/count"):
        headers = {"Authorization": "OAuth " + self.section["auth"]["token"]}
        return self.session.post(self.section["url"] + path, headers=headers, timeout=20)
    def close(self):
        Client.open -= 1
        self.session.close()

for service, client, fake in (
    ("nanny", "NannyClient", "FakeNanny"), ("iss", "IssClient", "FakeIss")
):
    module = types.ModuleType("sepelib.yandex." + service)
    setattr(module, client, Client)
    sys.modules[module.__name__] = module
    module = types.ModuleType("sepelib.yandex.testing._" + service)
    setattr(module, fake, type(fake, (Fake,), {"service": service}))
    sys.modules[module.__name__] = module
"""

SUITE = """
import sys
import pytest
from stand_ins import Client

def test_loads_nothing_until_a_fake_is_used(yandex_fakes):
    assert "sepelib.yandex.staff" not in sys.modules and yandex_fakes.used == []

@pytest.mark.yandex(transport="both")
def test_client_and_fake_meet(fake_nanny, nanny_client, yandex_transport):
    assert (fake_nanny.server is not None) is (yandex_transport == "live")
    assert nanny_client.count().json() == 1 and fake_nanny.state.count == 1

@pytest.mark.parametrize("_", [1, 2])
def test_starts_anew_without_sockets(nanny_client, fake_nanny, _):
    assert Client.open == 1 and fake_nanny.server is None
    assert nanny_client.count().json() == 1

def test_asks_for_what_is_not_there(nanny_client):
    assert nanny_client.count("/nothing").status_code == 501

def test_fakes_of_a_test_share_time(fake_nanny, fake_iss, yandex_fakes):
    fake_nanny.clock.advance(3.0)
    assert fake_iss.now == fake_nanny.now and fake_iss.clock is yandex_fakes.clock
    assert yandex_fakes.nanny is fake_nanny and yandex_fakes.used == [fake_nanny, fake_iss]

def test_has_a_config(yandex_fakes):
    config = yandex_fakes.config("nanny", "iss")
    assert config["iss"] == {
        "url": "http://iss.test", "auth": {"type": "oauth", "token": "fake-iss-token"}
    }
    assert list(config) == ["nanny", "iss"]

def test_names_no_other_services(yandex_fakes):
    with pytest.raises(KeyError, match="'nobody' is no service of sepelib.yandex: alemate"):
        yandex_fakes["nobody"]
    with pytest.raises(AttributeError):
        yandex_fakes.nobody
    with pytest.raises(KeyError):
        yandex_fakes.client("nobody")

addresses = set()

@pytest.mark.parametrize("_", [1, 2])
def test_stays_at_its_address_and_is_new(yandex_live, _):
    client = yandex_live.client("nanny", extra=1)
    assert Client.open == 1 and client.options == {"extra": 1}
    assert client.count().json() == 1 and yandex_live.clock.now == 0.0
    yandex_live.nanny.clock.advance(1.0)
    addresses.add(yandex_live.config("nanny")["nanny"]["url"])
    assert len(addresses) == 1

def test_asks_the_live_ones_for_what_is_not_there(yandex_live):
    yandex_live.client("nanny").count("/nothing")

def test_is_not_troubled_by_that(yandex_live):
    assert yandex_live.client("nanny").count().json() == 1

@pytest.mark.yandex(transport="inprocess")
def test_wants_no_sockets(fake_nanny):
    assert fake_nanny.server is None
"""

FAILURES = [
    "ERROR test_suite.py::test_asks_for_what_is_not_there",
    "ERROR test_suite.py::test_asks_the_live_ones_for_what_is_not_there",
]


def run(folder: Path, *options: str, module: str = "pytest") -> subprocess.CompletedProcess[str]:
    (folder / "stand_ins.py").write_text(STAND_INS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\npythonpath = .\n")
    return subprocess.run(
        [sys.executable, "-m", *module.split(), "-p", "no:cacheprovider", "-q", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.parametrize("world", ["pytest", "gevent.monkey --module pytest"])
def test_the_fixtures_serve_and_fail_the_tests_that_ask_for_too_much(
    world: str, tmp_path: Path
) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)

    done = run(tmp_path, "-rfE", module=world)

    assert sorted(
        line.partition(" - ")[0]
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR"))
    ) == sorted(FAILURES), done.stdout
    assert "FakeNanny: no route for POST /nothing" in done.stdout


@pytest.mark.parametrize(("transport", "count"), [("inprocess", 1), ("live", 1), ("both", 2)])
def test_the_option_is_for_tests_without_the_marker(
    tmp_path: Path, transport: str, count: int
) -> None:
    (tmp_path / "test_suite.py").write_text(
        "import pytest, stand_ins\n"
        "def test_it(fake_nanny, request):\n"
        "    print('reached', fake_nanny.url)\n"
        "@pytest.mark.yandex(transport='inprocess')\n"
        "def test_marked(fake_nanny):\n"
        "    assert fake_nanny.server is None\n"
    )

    done = run(tmp_path, "-s", f"--yandex-transport={transport}")

    assert f"{count + 1} passed" in done.stdout, done.stdout
    assert ("reached http://127.0.0.1" in done.stdout) is (transport != "inprocess")
    assert ("reached http://nanny.test" in done.stdout) is (transport != "live")


def test_a_marker_without_a_transport_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(
        "import pytest\n@pytest.mark.yandex\ndef test_it(yandex_fakes):\n    pass\n"
    )

    done = run(tmp_path)

    assert done.returncode != 0
    assert "pytest.mark.yandex has transport='inprocess', 'live' or 'both'" in done.stdout


def test_all_nineteen_services_have_their_fixtures(tmp_path: Path) -> None:
    from sepelib.yandex.contract import SERVICES

    done = run(tmp_path, "--fixtures")

    for service in SERVICES:
        assert f"fake_{service} -- " in done.stdout and f"{service}_client -- " in done.stdout
    for name in ("yandex_fakes", "yandex_live", "yandex_transport"):
        assert f"{name} -- " in done.stdout or f"{name} [" in done.stdout


def test_nothing_is_loaded_for_tests_that_use_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(
        "import sys\ndef test_it():\n    assert 'requests' not in sys.modules\n"
        "    assert 'sepelib.yandex.testing' not in sys.modules\n"
    )

    done = run(tmp_path)

    assert "1 passed" in done.stdout, done.stdout
