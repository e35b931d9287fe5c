"""The examples of the README run as they stand there."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from sepelib.rpc.testing import ThriftServer, XmlRpcServer

README = Path(__file__).parent.parent / "README.md"


def example_of(section: str) -> str:
    text = README.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(example)


def test_the_thrift_example_prints_what_it_says(
    capsys: pytest.CaptureFixture[str], thriftpy: Any
) -> None:
    hung_up = threading.Event()

    class Handler:
        def echo(self, text: str) -> str:
            return text

        def add(self, number: int) -> int:
            assert hung_up.wait(20.0)
            return number

    with ThriftServer(thriftpy.service, Handler()) as server:
        example = example_of("Thrift")
        for written, meant in {
            '"directory.thrift"': repr(str(Path(__file__).with_name("directory.thrift"))),
            '"a.example:9090", "b.example:9090"': f'"{server.endpoint}"',
        }.items():
            assert written in example
            example = example.replace(written, meant)
        exec(example, {})
        hung_up.set()
        assert [call.method for call in server.calls] == ["echo", "add"]
    assert capsys.readouterr().out == (
        f"bob\nadd at {server.endpoint}: no reply within 0.1 s; may have been executed\n"
    )


def test_the_xmlrpc_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    example = example_of("XML-RPC")
    functions = {
        "supervisor.getState": lambda: {"statecode": 1, "statename": "RUNNING"},
        "supervisor.startProcess": lambda name: name == "web",
    }
    with XmlRpcServer(functions, users={"robot": "secret"}) as server:
        url = server.url
        assert "http://host:9001/RPC2" in example
        exec(example.replace("http://host:9001/RPC2", url), {"password": "secret"})
        assert [call.method for call in server.calls] == [
            *("supervisor.getState", "supervisor.startProcess", "supervisor.stopProcess")
        ]

    assert capsys.readouterr().out == (
        "RUNNING\n"
        f"supervisor.stopProcess at {url}: fault 1: "
        "<class 'Exception'>:method \"supervisor.stopProcess\" is not supported\n"
    )
