"""The fixtures, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 60.0  # seconds; far more than anything here takes

SUITE = """
import sys
import pytest, requests
from sepelib.http.testing import HttpTestServer, Reply

def test_has_imported_no_mock_before_one_is_wanted(http_server):
    assert "responses" not in sys.modules

def test_has_a_server(http_server):
    assert isinstance(http_server, HttpTestServer)
    assert requests.get(http_server.url + "/x", timeout=10).json()["target"] == "/x"

def test_breaks_a_route(http_server):
    def broken(request):
        raise LookupError("a route of the test")
    http_server.route("GET", "/x", broken)
    with pytest.raises(requests.ConnectionError):
        requests.get(http_server.url + "/x", timeout=10)

def test_has_a_mock(http_mock):
    http_mock.get("http://staff.example/7", json={"login": "ann"})
    assert requests.get("http://staff.example/7", timeout=10).json() == {"login": "ann"}
    with pytest.raises(requests.ConnectionError):
        requests.get("http://staff.example/8", timeout=10)

def test_forgets_to_ask(http_mock):
    http_mock.get("http://staff.example/7")

def test_need_not_ask(http_mock):
    http_mock.get("http://staff.example/7")
    http_mock.assert_all_requests_are_fired = False

def test_has_connections_again(http_server):
    assert requests.get(http_server.url, timeout=10).ok
"""


@pytest.mark.parametrize("world", [["pytest"], ["gevent.monkey", "--module", "pytest"]])
def test_the_fixtures_serve_and_fail_the_tests_that_are_wrong(
    world: list[str], tmp_path: Path
) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "sepelib.http.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [sys.executable, "-m", *world, *options, "-rfE", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    out = done.stdout
    assert "ERROR test_suite.py::test_breaks_a_route - LookupError: a route" in out, out
    assert "ERROR test_suite.py::test_forgets_to_ask - AssertionError: Not all requests" in out
    assert "7 passed, 2 errors" in out


def test_without_pytest_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("raise ModuleNotFoundError('No module named pytest')")
    done = subprocess.run(
        [sys.executable, "-c", "import sepelib.http.pytest_plugin"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert "pip install 'sepelib-http[pytest]'" in done.stderr.splitlines()[-1]
