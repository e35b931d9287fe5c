"""Client, locks, conditions and singletons that tell the truth under faults, on kazoo.

    from sepelib.zookeeper import Client, Lock

    with Client("zk1:2181,zk2:2181,zk3:2181/myapp", timeout=10.0) as client:
        with Lock(client, "/jobs/nightly") as lock:
            lock.check()

Names load at first use: importing this package imports neither kazoo nor gevent.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client as Client
    from .errors import ConfigurationError as ConfigurationError
    from .errors import Interrupted as Interrupted
    from .errors import LockLost as LockLost
    from .errors import LockNotAcquired as LockNotAcquired
    from .errors import LockTimeout as LockTimeout
    from .errors import SessionLost as SessionLost
    from .errors import TransactionError as TransactionError
    from .errors import WouldDeadlock as WouldDeadlock
    from .errors import ZookeeperError as ZookeeperError
    from .errors import ZookeeperMisused as ZookeeperMisused
    from .errors import ZookeeperTimeout as ZookeeperTimeout
    from .lock import Contender as Contender
    from .lock import InterruptableLock as InterruptableLock
    from .lock import Lock as Lock
    from .lock import RLock as RLock
    from .rwlock import ReadLock as ReadLock
    from .rwlock import WriteLock as WriteLock
    from .session import Session as Session
    from .session import SessionState as SessionState
    from .singleton import Leadership as Leadership
    from .singleton import ServiceState as ServiceState
    from .singleton import SingletonService as SingletonService
    from .transaction import Transaction as Transaction
    from .transaction import TransactionRefused as TransactionRefused
    from .transaction import TransactionUnknown as TransactionUnknown
else:
    _HOME = {
        "Client": "client",
        "ConfigurationError": "errors",
        "Contender": "lock",
        "InterruptableLock": "lock",
        "Interrupted": "errors",
        "Leadership": "singleton",
        "Lock": "lock",
        "LockLost": "errors",
        "LockNotAcquired": "errors",
        "LockTimeout": "errors",
        "RLock": "lock",
        "ReadLock": "rwlock",
        "ServiceState": "singleton",
        "Session": "session",
        "SessionLost": "errors",
        "SessionState": "session",
        "SingletonService": "singleton",
        "Transaction": "transaction",
        "TransactionError": "errors",
        "TransactionRefused": "transaction",
        "TransactionUnknown": "transaction",
        "WouldDeadlock": "errors",
        "WriteLock": "rwlock",
        "ZookeeperError": "errors",
        "ZookeeperMisused": "errors",
        "ZookeeperTimeout": "errors",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "Client",
    "ConfigurationError",
    "Contender",
    "InterruptableLock",
    "Interrupted",
    "Leadership",
    "Lock",
    "LockLost",
    "LockNotAcquired",
    "LockTimeout",
    "RLock",
    "ReadLock",
    "ServiceState",
    "Session",
    "SessionLost",
    "SessionState",
    "SingletonService",
    "Transaction",
    "TransactionError",
    "TransactionRefused",
    "TransactionUnknown",
    "WouldDeadlock",
    "WriteLock",
    "ZookeeperError",
    "ZookeeperMisused",
    "ZookeeperTimeout",
]
