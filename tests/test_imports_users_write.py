"""The imports that the documentation shows, each in an interpreter of its own."""

import subprocess
import sys

import pytest

LINES = [
    "from sepelib.core import config, constants",
    "from sepelib.core.config import load, get_value",
    "from sepelib.core.exceptions import Error, LogicalError",
    "from sepelib.util.retry import retry, RetryPolicy, Backoff, RetryBudget",
    "from sepelib.util.deadline import Deadline, DeadlineExceeded, clip, deadline, detached",
    "from sepelib.util.fs import FileLock, atomic_write",
    "from sepelib.util.secrets import Secret",
    "from sepelib.util import instrument",
    "from sepelib.util.testing import Clock, FlakyProxy, ServerProcess, ThreadedServer",
    "from sepelib.subprocess import terminate, run, Termination, ProcessSurvived",
    "from sepelib.subprocess import ProcessFailed, ProcessTimeout, OutputTooLarge",
    "from sepelib.vcs.svnfile import SvnClient, SvnFile",
    "from sepelib.gevent import GreenThread",
    "from sepelib.gevent import GreenThreads, check_patched, periodic, run_service",
    "from sepelib import metrics; metrics.counter, metrics.Registry",
    "from sepelib.metrics import Registry, default_registry, merge, process",
    "from sepelib.flask.server import Server, Limits, AdminOptions, AccessLog",
    "from sepelib.flask import h; h.args.parse, h.body, h.errors.register",
    "from sepelib.rpc.thrift import ThriftBinClient, ThriftHttpClient, ThriftError",
    "from sepelib.rpc.xml import xmlrpc_call, ServerProxy, XmlRpcFault",
    "from sepelib.rpc.testing import ThriftServer, XmlRpcServer",
    "from sepelib.http import InstrumentedSession, RestClient",
    "from sepelib.http.errors import HttpError, TransportError, NotFound",
    "from sepelib.http.testing import HttpTestServer, faults",
    "from sepelib.zookeeper import Client, Lock, InterruptableLock, SingletonService",
    "from sepelib.zookeeper import RLock, ReadLock, WriteLock, LockLost, SessionState",
    "from sepelib.zookeeper import Condition, ConditionListener, Semaphore, LockGarbageCollector",
    "from sepelib.zookeeper import Barrier, DoubleBarrier, Queue, Item, Counter, SharedValue",
    "from sepelib.zookeeper import Party, PersistentNode, Election, break_lock",
    "from sepelib.zookeeper import DataWatch, ChildrenWatch, TreeCache",
    "from sepelib.zookeeper.testing import ZookeeperServer, Ensemble",
    "from sepelib.mongo import EnumField, SetField, find_and_modify, mock_database, connect",
    "from sepelib.mongo import Sequence, SequentialIdField, GaplessSequence, SetDeltaMixin",
    "from sepelib.yandex.blackbox import BlackboxClient",
    "from sepelib.yandex.startrek import StartrekClient",
    "from sepelib.yandex.testing import FakeBlackbox, FakeStartrek, YandexFakes",
    "import sepelib.gevent, sepelib.subprocess, sepelib.metrics, sepelib.http, sepelib.rpc",
    "import sepelib.vcs, sepelib.mongo, sepelib.zookeeper, sepelib.flask, sepelib.yandex",
]


@pytest.mark.parametrize("line", LINES)
def test_an_import_from_the_documentation_works(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", line], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
