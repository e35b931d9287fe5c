"""Fixtures with a real MongoDB-compatible server. Loaded by itself, free while unused.

    def test_a_ticket_is_saved(mongo_db):           # mongoengine's alias "default"
        Ticket(title="a").save()

    @pytest.mark.mongo(requires=["text"])           # skipped where the server lacks it
    def test_search(mongo_db): ...

    mongo_db        an empty database for each test
    mongo_server    the server of the session; with xdist each worker has its own

A test that stops, kills or pauses the server finds it restored in the next one. What the server
logged during a test is shown when the test fails. No server outlives its pytest, but one that
--mongo-keep has left on purpose.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as e:
    raise ImportError(
        "sepelib.mongo.pytest_plugin needs pytest: pip install 'sepelib-mongo[pytest]'"
    ) from e

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sepelib.mongo import MockDatabase, MongoUnavailable

__all__ = ["mongo_db", "mongo_server"]

_SECTION_SIZE = 65536  # bytes of log with one failure

_server = pytest.StashKey["MockDatabase"]()
_log_start = pytest.StashKey[int]()  # of the test that runs
_last_log = pytest.StashKey[str]()  # of the test in whose tear-down the server was closed
_kept = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def mongo_server(pytestconfig: pytest.Config) -> Iterator[MockDatabase]:
    """A running server and its controls, on an alias of its own."""
    from sepelib.mongo import mock_database
    from sepelib.mongo.errors import MongoNotInstalled

    try:
        server = mock_database(
            uri=pytestconfig.getoption("mongo_uri"),
            engine=pytestconfig.getoption("mongo_engine"),
            keep=pytestconfig.getoption("mongo_keep"),
            alias="sepelib.mongo_server",
        )
    except MongoNotInstalled as error:
        _not_installed(error)
    pytestconfig.stash[_server] = server
    try:
        with server:
            yield server
            pytestconfig.stash[_last_log] = _log_of_this_test(pytestconfig)
    finally:
        del pytestconfig.stash[_server]
    _tell_what_is_kept(pytestconfig, f"the server: {server.kept()}")


@pytest.fixture
def mongo_db(request: pytest.FixtureRequest, mongo_server: MockDatabase) -> Iterator[MockDatabase]:
    """An empty database on mongoengine's alias "default"; no alias remains after the test."""
    config = request.config
    _restore(mongo_server)
    if config.getini("mongo_isolation") == "clean" and not config.getoption("mongo_keep"):
        database = request.getfixturevalue("_mongo_cleaned").cleaned_sibling(alias="default")
    else:
        database = mongo_server.sibling(alias="default")
    try:
        yield database
    finally:
        _restore(mongo_server)
        database.close()
    _tell_what_is_kept(config, f"{request.node.nodeid}: {database.uri}")


@pytest.fixture(scope="session")
def _mongo_cleaned(mongo_server: MockDatabase) -> Iterator[MockDatabase]:
    with mongo_server.sibling(alias="sepelib.mongo_cleaned") as database:
        yield database


@pytest.fixture
def _mongo_requirements(request: pytest.FixtureRequest, mongo_server: MockDatabase) -> None:
    _restore(mongo_server)
    required = dict.fromkeys(
        feature
        for mark in request.node.iter_markers("mongo")
        for feature in _requires(**mark.kwargs)
    )
    lacking = [feature for feature in required if not mongo_server.supports(feature)]
    if lacking:
        reason = f"the MongoDB engine {mongo_server.engine} lacks {', '.join(lacking)}"
        if request.config.getoption("mongo_strict"):
            pytest.fail(f"{reason} (--mongo-strict)", pytrace=False)
        pytest.skip(reason)


def _requires(*, requires: list[str] | tuple[str, ...] | str) -> list[str]:
    return [requires] if isinstance(requires, str) else list(requires)


def _restore(database: MockDatabase) -> None:
    if database.server is not None:
        database.server.restore()


def _not_installed(error: MongoUnavailable) -> NoReturn:
    """An error: a suite that skips itself looks like one that passes. SEPELIB_MISSING opts out."""
    import unittest

    from sepelib.util.testing import MissingComponent, missing

    try:
        missing("a MongoDB server", "mongod")
    except unittest.SkipTest:
        pytest.skip(str(error))
    except MissingComponent:
        raise error from None


def _tell_what_is_kept(config: pytest.Config, line: str) -> None:
    if config.getoption("mongo_keep"):
        config.stash.setdefault(_kept, []).append(line)
        if hasattr(config, "workeroutput"):  # in a worker of xdist: nobody sees what we print
            config.workeroutput.setdefault("sepelib_mongo_kept", []).append(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mongo", "the fixtures mongo_db and mongo_server")
    group.addoption(
        "--mongo-uri",
        metavar="URI",
        help="use this server and start none; databases are made there and dropped again",
    )
    group.addoption(
        "--mongo-engine",
        metavar="ENGINE",
        default="auto",
        help="auto, mongod, secantus-rs or secantus-py (default: auto, the first that is there)",
    )
    group.addoption(
        "--mongo-keep",
        action="store_true",
        help="leave databases and server, and say where they are",
    )
    group.addoption(
        "--mongo-strict",
        action="store_true",
        help="fail, not skip, what needs a feature that the server lacks",
    )
    parser.addini(
        "mongo_isolation",
        "database: a new database for each test; clean: one database, emptied after each test",
        default="database",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "mongo(requires): features that the test needs of the server: transactions, "
        "change_streams, text, where, geo, profiler",
    )
    isolation = config.getini("mongo_isolation")
    if isolation not in ("database", "clean"):
        raise pytest.UsageError(f"mongo_isolation: {isolation!r} is neither database nor clean")
    if config.getoption("mongo_uri") and config.getoption("mongo_engine") != "auto":
        raise pytest.UsageError(
            "either --mongo-uri or --mongo-engine: a URI names a running server"
        )


def pytest_itemcollected(item: pytest.Item) -> None:
    # A fixture only for those that ask, and before their others.
    if item.get_closest_marker("mongo") is not None and isinstance(item, pytest.Function):
        # A list of its own: pytest's is that of all parameters, also of those without the mark.
        item.fixturenames = ["_mongo_requirements", *item.fixturenames]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    server = item.config.stash.get(_server, None)
    path = None if server is None else server.log_path
    if path is not None and path.exists():
        item.config.stash[_log_start] = path.stat().st_size


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "mongo_server" in getattr(item, "fixturenames", ()):
        log = _log_of_this_test(item.config)
        if log:
            report.sections.append(("mongo server log", log))
    return report


def _log_of_this_test(config: pytest.Config) -> str:
    server = config.stash.get(_server, None)
    if server is None:
        return config.stash.get(_last_log, "")
    path = server.log_path
    if path is None or not path.exists():
        return ""
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        file.seek(max(config.stash.get(_log_start, 0), end - _SECTION_SIZE))
        return file.read().decode(errors="replace")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    lines = getattr(node, "workeroutput", {}).get("sepelib_mongo_kept", [])
    node.config.stash.setdefault(_kept, []).extend(lines)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(_kept, [])
    if lines:
        terminalreporter.section("kept MongoDB databases")
        for line in lines:
            terminalreporter.line(line)
