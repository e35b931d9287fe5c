"""Fixtures of the tests that run a whole service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import Lookout, Target, section
from lookout.database import Database
from lookout.settings import MongoSettings
from sepelib.mongo import MockDatabase
from sepelib.util.secrets import Secret
from sepelib.util.testing import FlakyProxy


@pytest.fixture
def mongo(mongo_server: MockDatabase) -> Iterator[MockDatabase]:
    """An empty database for each test."""
    assert mongo_server.server is not None
    mongo_server.server.restore()
    with mongo_server.sibling(alias="tests") as mock:
        yield mock
        mongo_server.server.restore()  # whatever the test has done to it
        # What a lookout was killed in the middle of would keep the database from being dropped.
        mock.db.client.admin.command("killAllSessions", [])


@pytest.fixture
def database(mongo: MockDatabase) -> Iterator[Database]:
    """The connection of lookout itself to that database, for this process."""
    database = Database(MongoSettings(Secret(mongo.uri), mongo.name))
    yield database
    database.close()


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        yield server


@pytest.fixture
def proxy(mongo: MockDatabase) -> Iterator[FlakyProxy]:
    """Another way to the server of `mongo`, with faults."""
    assert mongo.server is not None
    with FlakyProxy("127.0.0.1", mongo.server.port) as proxy:
        yield proxy


@pytest.fixture
def serve(tmp_path: Path, mongo: MockDatabase) -> Callable[..., Lookout]:
    """`serve(URL, …)`: a daemon that watches them as t0, t1, …, twenty times a second.

    *web*: more of that section; *more*: other sections, as text. *log_file*: instead of stderr.
    """

    def start(
        *urls: str, web: str = "drain_delay: 0", more: str = "", log_file: Path | None = None
    ) -> Lookout:
        targets = [
            {"name": f"t{n}", "url": url, "interval": 0.05, "timeout": 2}
            for n, url in enumerate(urls)
        ]
        (tmp_path / "lookout.yml").write_text(
            "service: {state: {{ state|yaml }}}\n"
            f"web: {{port: 0, {web}}}\n{more}{section(mongo)}"
            "history: {save_every: 0.1}\n"
            "targets: {{ targets|yaml }}\n"
        )
        values = {"state": str(tmp_path / "state"), "targets": targets}
        options = [f"-V{name}={json.dumps(value)}" for name, value in values.items()]
        return Lookout("serve", "-c", "lookout.yml", *options, cwd=tmp_path, log_file=log_file)

    return start
