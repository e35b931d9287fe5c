"""GreenThread: a greenlet with the words of threading.Thread.

Importing patches nothing, starts nothing and makes no hub.
"""

from sepelib.gevent._periodic import periodic
from sepelib.gevent.diagnostics import check_patched, dump_stacks, install_log_names
from sepelib.gevent.errors import (
    GreenThreadError,
    GreenThreadMisused,
    LostInFork,
    NotFinished,
    NotPatched,
)
from sepelib.gevent.greenthread import GreenThread
from sepelib.gevent.group import GreenThreads
from sepelib.gevent.monitor import blocking_monitor
from sepelib.gevent.service import run_service

__all__ = [
    "GreenThread",
    "GreenThreadError",
    "GreenThreadMisused",
    "GreenThreads",
    "LostInFork",
    "NotFinished",
    "NotPatched",
    "blocking_monitor",
    "check_patched",
    "dump_stacks",
    "install_log_names",
    "periodic",
    "run_service",
]
