"""The fixtures, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import io

import thriftpy2

from sepelib.rpc.thrift import ThriftBinClient
from sepelib.rpc.xml import xmlrpc_call

def test_a_call(xmlrpc_server):
    xmlrpc_server.dispatcher.register_function(pow)
    assert xmlrpc_call(xmlrpc_server.url, "pow", 2, 8) == 256
    assert [call.method for call in xmlrpc_server.calls] == ["pow"]

def test_another_server(xmlrpc_server):
    assert xmlrpc_server.calls == ()

class Handler:
    def twice(self, number):
        return 2 * number

def test_two_thrift_servers(thrift_server):
    idl = io.StringIO("service Twice { i32 twice(1: i32 number) }")
    service = thriftpy2.load_fp(idl, "twice_thrift").Twice
    servers = [thrift_server(service, Handler(), transport="framed") for _ in range(2)]
    with ThriftBinClient(service, [s.endpoint for s in servers], framed=True) as client:
        assert [client.twice(number) for number in (1, 2)] == [2, 4]
    assert sorted(call.args for server in servers for call in server.calls) == [(1,), (2,)]
"""


@pytest.mark.parametrize("world", [["pytest"], ["gevent.monkey", "--module", "pytest"]])
def test_a_suite_gets_a_server_for_each_test(world: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "sepelib.rpc.pytest_plugin", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", *world, *options, "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
