"""Test support that tells the truth: real servers, real sockets, faults on demand.

Plain classes and context managers, usable in a demo as well as in a test; nothing here
imports pytest (fixtures: `sepelib.util.pytest_plugin`). Names load at first use.

    Clock            a monotonic clock and a sleep that a test moves by hand
    FlakyProxy       a TCP proxy that delays, drips, holds, cuts, refuses, loses one answer
    MemoryRecorder   a metrics recorder whose values a test reads
    ServerProcess    a server as a child process, gone when its owner is gone
    SmtpServer       a mail server which keeps what it gets and fails as a test says
    ThreadedServer   the base of the small servers that answer inside the test's process
    missing          says which component is not there and what to install
    check_*          what every implementation of a seam of `sepelib.util` has to pass
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._check_deadline import check_obeys_deadline as check_obeys_deadline
    from ._check_errors import check_error as check_error
    from ._check_errors import check_errors as check_errors
    from ._check_recorder import check_recorder as check_recorder
    from ._check_retry import check_transport_nesting as check_transport_nesting
    from ._check_runner import check_runner as check_runner
    from ._clock import Clock as Clock
    from ._memory_recorder import MemoryRecorder as MemoryRecorder
    from ._missing import MissingComponent as MissingComponent
    from ._missing import missing as missing
    from ._proxy import FlakyProxy as FlakyProxy
    from ._server_errors import ServerNotReady as ServerNotReady
    from ._server_errors import SupervisorLost as SupervisorLost
    from ._server_process import ServerProcess as ServerProcess
    from ._server_process import free_port as free_port
    from ._smtp_server import ReceivedMail as ReceivedMail
    from ._smtp_server import SmtpServer as SmtpServer
    from ._threaded_server import ThreadedServer as ThreadedServer
else:
    _HOME = {
        "Clock": "_clock",
        "FlakyProxy": "_proxy",
        "MemoryRecorder": "_memory_recorder",
        "MissingComponent": "_missing",
        "ReceivedMail": "_smtp_server",
        "ServerNotReady": "_server_errors",
        "ServerProcess": "_server_process",
        "SmtpServer": "_smtp_server",
        "SupervisorLost": "_server_errors",
        "ThreadedServer": "_threaded_server",
        "check_error": "_check_errors",
        "check_errors": "_check_errors",
        "check_obeys_deadline": "_check_deadline",
        "check_recorder": "_check_recorder",
        "check_runner": "_check_runner",
        "check_transport_nesting": "_check_retry",
        "free_port": "_server_process",
        "missing": "_missing",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "Clock",
    "FlakyProxy",
    "MemoryRecorder",
    "MissingComponent",
    "ReceivedMail",
    "ServerNotReady",
    "ServerProcess",
    "SmtpServer",
    "SupervisorLost",
    "ThreadedServer",
    "check_error",
    "check_errors",
    "check_obeys_deadline",
    "check_recorder",
    "check_runner",
    "check_transport_nesting",
    "free_port",
    "missing",
]
