"""What the client and the recipes fail with, and where the public names are."""

import copy
import importlib
import pkgutil
import subprocess
import sys

import pytest
from kazoo.exceptions import (
    ConnectionLoss,
    KazooException,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
)

import sepelib.zookeeper
from sepelib.core.exceptions import Error, LogicalError
from sepelib.util.deadline import DeadlineExceeded
from sepelib.util.testing import check_errors
from sepelib.zookeeper import errors


def test_every_error_pickles_and_copies() -> None:
    check_errors(
        errors,
        examples=[
            errors.ZookeeperTimeout("get /a: not sent within 2 s", maybe_executed=False),
            errors.TransactionError([RolledBackError(), NoNodeError(), RuntimeInconsistency()]),
            errors.LockTimeout("/limit", 1.5, "semaphore"),
            errors.LockNotAcquired("/lock", "held by other", "semaphore"),
            errors.LockLost("/lock", "deleted", "semaphore"),
            errors.Interrupted("/lock"),
            errors.WouldDeadlock("/lock", "the caller holds the read lock"),
        ],
    )


def test_the_fate_of_a_request_survives_a_copy() -> None:
    assert not copy.copy(errors.ZookeeperTimeout("x", maybe_executed=False)).maybe_executed
    assert errors.ZookeeperTimeout("x").maybe_executed


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.LockTimeout("/a", 1.5), "lock /a: not granted within 1.5 s"),
        (errors.LockTimeout("/a", 1.5, "semaphore"), "semaphore /a: not granted within 1.5 s"),
        (errors.LockNotAcquired("/a"), "lock /a: it is not held"),
        (errors.LockNotAcquired("/a", "busy", "semaphore"), "semaphore /a: busy"),
        (errors.LockLost("/a", "deleted"), "lock /a was lost: deleted"),
        (errors.LockLost("/a", "deleted", "semaphore"), "semaphore /a was lost: deleted"),
    ],
)
def test_the_text_names_what_it_is_about(error: Exception, text: str) -> None:
    assert str(error) == str(copy.copy(error)) == text


def test_all_hang_under_one_root_and_misuse_under_that_of_bugs() -> None:
    for name in errors.__all__:
        root = LogicalError if name == "ZookeeperMisused" else errors.ZookeeperError
        assert issubclass(getattr(errors, name), root)
    assert issubclass(errors.ZookeeperError, Error)


def test_except_clauses_written_for_kazoo_and_for_python_still_work() -> None:
    assert issubclass(errors.ZookeeperTimeout, ConnectionLoss)
    assert issubclass(errors.ZookeeperTimeout, KazooException)
    assert issubclass(errors.ZookeeperTimeout, DeadlineExceeded)
    assert issubclass(errors.ZookeeperTimeout, TimeoutError)
    assert issubclass(errors.SessionLost, SessionExpiredError)
    assert issubclass(errors.LockTimeout, TimeoutError)


def test_the_text_of_a_refused_transaction_tells_the_operation_that_was_refused() -> None:
    error = errors.TransactionError([RolledBackError(), NoNodeError(), RuntimeInconsistency()])
    assert str(error) == "transaction refused at operation 2 of 3: NoNodeError"
    assert [type(result) for result in error.results][1] is NoNodeError


@pytest.mark.parametrize("name", sepelib.zookeeper.__all__)
def test_the_root_offers(name: str) -> None:
    assert getattr(sepelib.zookeeper, name).__name__ == name


def test_the_root_says_what_it_has_and_has_nothing_else() -> None:
    assert dir(sepelib.zookeeper) == sorted(sepelib.zookeeper.__all__)
    assert set(errors.__all__) <= set(sepelib.zookeeper.__all__)
    misspelt = "Clinet"
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        getattr(sepelib.zookeeper, misspelt)


def test_no_module_has_the_name_of_a_public_object() -> None:
    modules = {info.name for info in pkgutil.iter_modules(sepelib.zookeeper.__path__)}
    assert not modules & set(sepelib.zookeeper.__all__)


def test_importing_the_root_imports_neither_kazoo_nor_gevent() -> None:
    script = (
        "import sys, sepelib.zookeeper; print([m for m in ('kazoo', 'gevent') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("module", ["client", "session", "errors", "lock", "rwlock", "singleton"])
def test_importing_starts_nothing(module: str) -> None:
    script = (
        f"import threading, importlib; importlib.import_module('sepelib.zookeeper.{module}')\n"
        "from gevent._hub_local import get_hub_if_exists\n"
        "print(threading.active_count(), get_hub_if_exists())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "1 None\n"
    assert importlib.import_module(f"sepelib.zookeeper.{module}")
