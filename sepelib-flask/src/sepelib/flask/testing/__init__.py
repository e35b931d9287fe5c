"""Test support for servers: a client that misbehaves as told, and a server in a child process.

Plain classes and context managers; nothing here imports pytest (fixtures:
`sepelib.flask.pytest_plugin`). Names load at first use.

    RunningServer  a Server inside the test's process, patched or not
    AppProcess     a service in a child process: signals, exit status, log
    SlowClient    a raw HTTP client: what it sends, how fast, and whether it reads, a test says
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._app_process import AppProcess as AppProcess
    from ._running import RunningServer as RunningServer
    from ._slow_client import Answer as Answer
    from ._slow_client import NoAnswer as NoAnswer
    from ._slow_client import SlowClient as SlowClient
else:
    _HOME = {
        "AppProcess": "_app_process",
        "Answer": "_slow_client",
        "NoAnswer": "_slow_client",
        "RunningServer": "_running",
        "SlowClient": "_slow_client",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)


__all__ = ["Answer", "AppProcess", "NoAnswer", "RunningServer", "SlowClient"]
