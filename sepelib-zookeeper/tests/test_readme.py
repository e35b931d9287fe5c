"""The example of the README runs as it stands there."""

import re
from pathlib import Path

import pytest

from sepelib.util.testing import MemoryRecorder
from sepelib.zookeeper import Client
from sepelib.zookeeper.testing import ZookeeperServer

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    with ZookeeperServer() as server:
        with Client(server.hosts) as client:
            client.create("/myapp")
        assert '"zk1:2181,zk2:2181/myapp"' in example
        example = example.replace("zk1:2181,zk2:2181", server.hosts)
        tokens: list[int] = []
        exec(example, {"steps": [tokens.append] * 2})
    assert len(tokens) == 2
    assert 0 < tokens[0] == tokens[1]
    assert capsys.readouterr().out == "connected 1\n"


def test_the_table_has_the_metrics_of_a_client() -> None:
    recorder = MemoryRecorder()
    Client("127.0.0.1:1", recorder=recorder)
    named = set(re.findall(r"`(zk_[a-z_]+)`", README))
    assert set(recorder.names) <= named


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 80
