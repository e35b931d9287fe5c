"""A real supervisord, whose XML-RPC is its own, with a login."""

from __future__ import annotations

import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest

from sepelib.rpc.xml import (
    ServerProxy,
    XmlRpcFault,
    XmlRpcHttpError,
    XmlRpcParseError,
    xmlrpc_call,
)
from sepelib.util.testing import ServerProcess

PASSWORD = "p@ss:w/rd"
CONFIG = r"""
    [supervisord]
    nodaemon = true
    logfile = {folder}/supervisord.log
    pidfile = {folder}/supervisord.pid
    childlogdir = {folder}

    [inet_http_server]
    port = 127.0.0.1:{port}
    username = robot
    password = {password}

    [rpcinterface:supervisor]
    supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

    [program:sleeper]
    command = {python} -I -S -c "import os, time; os.write(1, b'\xc3\xa9 <&>\n'); time.sleep(600)"
    startsecs = 0
    autostart = false

    [program:painter]
    command = {python} -I -S -c "import time; print('\33[31mred', flush=True); time.sleep(600)"
    startsecs = 0
    autostart = false
"""


def command(server: ServerProcess) -> list[str]:
    config = server.folder / "supervisord.conf"
    settings = {"folder": server.folder, "port": server.port, "python": sys.executable}
    config.write_text(textwrap.dedent(CONFIG).format(password=PASSWORD, **settings))
    return [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)]


def ready(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=1.0) as connection:
        connection.settimeout(1.0)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.0 401"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ServerProcess(command, ready=ready, name="supervisord") as server:
        yield f"http://127.0.0.1:{server.port}/RPC2"


@pytest.fixture
def supervisor(url: str) -> Iterator[ServerProxy]:
    with ServerProxy(url, auth=("robot", PASSWORD)) as proxy:
        yield proxy


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_its_state_is_asked_for_in_one_call(url: str) -> None:
    with_login = url.replace("//", "//robot:p%40ss%3Aw%2Frd@")
    assert xmlrpc_call(with_login, "supervisor.getState") == {
        "statecode": 1,
        "statename": "RUNNING",
    }


def test_a_wrong_login_is_an_http_error(url: str) -> None:
    for auth in (None, ("robot", "guess")):
        with pytest.raises(XmlRpcHttpError) as caught:
            xmlrpc_call(url, "supervisor.getState", auth=auth)
        assert caught.value.status == 401


def test_a_process_is_started_read_and_stopped(supervisor: ServerProxy) -> None:
    assert supervisor.supervisor.startProcess("sleeper") is True
    wait_until(lambda: supervisor.supervisor.readProcessStdoutLog("sleeper", 0, 0))
    assert supervisor.supervisor.readProcessStdoutLog("sleeper", 0, 0) == "\u00e9 <&>\n"
    info = supervisor.supervisor.getProcessInfo("sleeper")
    assert (info["name"], info["statename"], type(info["pid"])) == ("sleeper", "RUNNING", int)
    with pytest.raises(XmlRpcFault, match="fault 60: ALREADY_STARTED: sleeper"):
        supervisor.supervisor.startProcess("sleeper")
    assert supervisor.supervisor.stopProcess("sleeper") is True


def test_faults_are_told(supervisor: ServerProxy) -> None:
    with pytest.raises(XmlRpcFault) as caught:
        supervisor.supervisor.stopProcess("nobody")
    assert (caught.value.code, caught.value.message) == (10, "BAD_NAME: nobody")
    with pytest.raises(XmlRpcFault, match="fault 1: UNKNOWN_METHOD"):
        supervisor.a.b()


def test_its_multicall_is_not_taken_for_one(supervisor: ServerProxy) -> None:
    # It sends results bare, where the specification has them in an array of one each.
    with pytest.raises(XmlRpcParseError, match=r"a result that is neither \[value\] nor a fault"):
        supervisor.multicall([("supervisor.getIdentification",), ("supervisor.getState",)])
    (fault,) = supervisor.multicall([("supervisor.stopProcess", "nobody")])
    assert (fault.code, fault.method) == (10, "supervisor.stopProcess")


def test_a_log_in_colours_is_a_parse_error_and_not_a_wrong_text(supervisor: ServerProxy) -> None:
    # supervisord sends the control character as it is, which is no XML.
    supervisor.supervisor.startProcess("painter")
    read = supervisor.supervisor.readProcessStdoutLog

    def fails() -> bool:
        try:
            return read("painter", 0, 0) != ""
        except XmlRpcParseError as error:
            return "not XML" in error.reason and error.line > 1

    wait_until(fails)
    with pytest.raises(XmlRpcParseError, match="not XML"):
        read("painter", 0, 0)
    assert supervisor.supervisor.stopProcess("painter") is True


def test_its_page_is_no_reply(url: str) -> None:
    with pytest.raises(XmlRpcParseError, match=r"a reply of text/html, .*Supervisor Status"):
        xmlrpc_call(url.replace("RPC2", ""), "supervisor.getState", auth=("robot", PASSWORD))
