"""The example of the README is a service that works."""

import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import requests

from sepelib.util.testing import ServerProcess

README = Path(__file__).parents[1] / "README.md"


def test_the_example_answers_until_it_is_asked_to_stop() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert "port=8080" in example

    def command(server: ServerProcess) -> list[str]:
        script = example.replace("port=8080", f"port={server.port}, drain_delay=0.1")
        (server.folder / "service.py").write_text(script)
        return [sys.executable, "service.py"]

    def get(server: ServerProcess, path: str) -> requests.Response:
        headers = {"X-Request-Id": "of-this-test"}
        return requests.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, timeout=20)

    def ready(server: ServerProcess) -> bool:
        return get(server, "/ping").text == "pong"

    with ServerProcess(command, ready=ready, name="example") as server:
        assert get(server, "/hello/ann?times=2").json() == {"hello": "ann", "times": 2}
        assert get(server, "/hello/ann?times=10").status_code == 400
        assert get(server, "/version").text.startswith("version: 1.0\n")
        server.signal(signal.SIGTERM)
        assert server.wait(20.0) == 0, server.log_tail()
        assert "SIGTERM: stopping" in server.log_tail()


def test_what_the_tables_name_is_there() -> None:
    from sepelib.flask.server._builtins import Builtins
    from sepelib.flask.server._checks import Checks

    text = README.read_text()
    builtins = Builtins(
        has_all=True,
        is_draining=lambda: False,
        checks=Checks(),
        version=None,
        commit=None,
        started_at=datetime.now(UTC),
        config=None,
        metrics=None,
    )
    for path in builtins.paths:
        assert path in text
