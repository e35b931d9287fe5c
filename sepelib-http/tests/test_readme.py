"""The example of the README runs as it stands there, and its tables are true."""

import re
from pathlib import Path

import pytest

from sepelib.http import InstrumentedSession, RestClient, errors
from sepelib.http.testing import HttpTestServer
from sepelib.util.testing import MemoryRecorder

README = Path(__file__).parents[1] / "README.md"

pytest_plugins = ["sepelib.http.pytest_plugin"]


def test_the_example_asks_and_is_told_why_not(
    http_server: HttpTestServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    http_server.route("GET", "/users/ann", json={"name": "Ann"})
    http_server.route("POST", "/users/{l}/keys", status=404, json={"message": "no such user"})
    names = {"url": http_server.url, "token": "t0ken"}
    exec(example, names)
    told = f"POST {http_server.url}/users/..%2Fadmin/keys: 404 Not Found: no such user"
    assert capsys.readouterr().out == f"Ann\n{told}\n"
    assert [request.header("Authorization") for request in http_server.requests] == [
        "OAuth t0ken",
        "OAuth t0ken",
    ]
    session = names["session"]
    assert isinstance(session, InstrumentedSession)
    session.close()


def test_the_table_has_the_metrics_that_a_session_reports(http_server: HttpTestServer) -> None:
    table = dict(re.findall(r"^\| `(http_client_\w+)` \| ([\w, ]+) \|", README.read_text(), re.M))
    recorder = MemoryRecorder()
    with InstrumentedSession("s", recorder=recorder) as session:
        RestClient(session, http_server.url).get("/x")
        http_server.stop()
        with pytest.raises(errors.ConnectFailed):
            RestClient(session, http_server.url).get("/x")
    for name, labels in table.items():
        for series in recorder.series(name):
            assert len(series) == len(labels.split(", ")), name
    assert {name for name in table if recorder.series(name)} == set(table)
