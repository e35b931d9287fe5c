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
    from .barrier import Barrier as Barrier
    from .barrier import DoubleBarrier as DoubleBarrier
    from .cache import NodeData as NodeData
    from .cache import TreeCache as TreeCache
    from .cache import TreeEvent as TreeEvent
    from .cache import TreeEventType as TreeEventType
    from .client import Client as Client
    from .collector import LockGarbageCollector as LockGarbageCollector
    from .collector import Orphan as Orphan
    from .collector import Report as Report
    from .condition import Condition as Condition
    from .counter import Counter as Counter
    from .counter import SharedValue as SharedValue
    from .election import Election as Election
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
    from .listener import ConditionListener as ConditionListener
    from .lock import Contender as Contender
    from .lock import InterruptableLock as InterruptableLock
    from .lock import Lock as Lock
    from .lock import RLock as RLock
    from .operate import break_lock as break_lock
    from .party import Member as Member
    from .party import Party as Party
    from .party import PartyView as PartyView
    from .persistent import PersistentNode as PersistentNode
    from .queue import Item as Item
    from .queue import ItemLost as ItemLost
    from .queue import ItemState as ItemState
    from .queue import Queue as Queue
    from .rwlock import ReadLock as ReadLock
    from .rwlock import WriteLock as WriteLock
    from .semaphore import Claimant as Claimant
    from .semaphore import Lease as Lease
    from .semaphore import Semaphore as Semaphore
    from .session import Session as Session
    from .session import SessionState as SessionState
    from .singleton import Leadership as Leadership
    from .singleton import ServiceState as ServiceState
    from .singleton import SingletonService as SingletonService
    from .transaction import Transaction as Transaction
    from .transaction import TransactionRefused as TransactionRefused
    from .transaction import TransactionUnknown as TransactionUnknown
    from .watch import ChildrenWatch as ChildrenWatch
    from .watch import DataWatch as DataWatch
else:
    _HOME = {
        "Barrier": "barrier",
        "ChildrenWatch": "watch",
        "Claimant": "semaphore",
        "Client": "client",
        "Condition": "condition",
        "ConditionListener": "listener",
        "ConfigurationError": "errors",
        "Contender": "lock",
        "Counter": "counter",
        "DataWatch": "watch",
        "DoubleBarrier": "barrier",
        "Election": "election",
        "InterruptableLock": "lock",
        "Interrupted": "errors",
        "Item": "queue",
        "ItemLost": "queue",
        "ItemState": "queue",
        "Leadership": "singleton",
        "Lease": "semaphore",
        "Lock": "lock",
        "LockGarbageCollector": "collector",
        "LockLost": "errors",
        "LockNotAcquired": "errors",
        "LockTimeout": "errors",
        "Member": "party",
        "NodeData": "cache",
        "Orphan": "collector",
        "Party": "party",
        "PartyView": "party",
        "PersistentNode": "persistent",
        "Queue": "queue",
        "RLock": "lock",
        "ReadLock": "rwlock",
        "Report": "collector",
        "Semaphore": "semaphore",
        "ServiceState": "singleton",
        "Session": "session",
        "SessionLost": "errors",
        "SessionState": "session",
        "SharedValue": "counter",
        "SingletonService": "singleton",
        "Transaction": "transaction",
        "TransactionError": "errors",
        "TransactionRefused": "transaction",
        "TransactionUnknown": "transaction",
        "TreeCache": "cache",
        "TreeEvent": "cache",
        "TreeEventType": "cache",
        "WouldDeadlock": "errors",
        "WriteLock": "rwlock",
        "ZookeeperError": "errors",
        "ZookeeperMisused": "errors",
        "ZookeeperTimeout": "errors",
        "break_lock": "operate",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "Barrier",
    "ChildrenWatch",
    "Claimant",
    "Client",
    "Condition",
    "ConditionListener",
    "ConfigurationError",
    "Contender",
    "Counter",
    "DataWatch",
    "DoubleBarrier",
    "Election",
    "InterruptableLock",
    "Interrupted",
    "Item",
    "ItemLost",
    "ItemState",
    "Leadership",
    "Lease",
    "Lock",
    "LockGarbageCollector",
    "LockLost",
    "LockNotAcquired",
    "LockTimeout",
    "Member",
    "NodeData",
    "Orphan",
    "Party",
    "PartyView",
    "PersistentNode",
    "Queue",
    "RLock",
    "ReadLock",
    "Report",
    "Semaphore",
    "ServiceState",
    "Session",
    "SessionLost",
    "SessionState",
    "SharedValue",
    "SingletonService",
    "Transaction",
    "TransactionError",
    "TransactionRefused",
    "TransactionUnknown",
    "TreeCache",
    "TreeEvent",
    "TreeEventType",
    "WouldDeadlock",
    "WriteLock",
    "ZookeeperError",
    "ZookeeperMisused",
    "ZookeeperTimeout",
    "break_lock",
]
