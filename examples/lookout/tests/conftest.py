"""Fixtures of the tests that run a whole service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import Lookout, Target


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Lookout]:
    """`serve(URL, …)`: a daemon that watches them as t0, t1, …, twenty times a second."""

    def start(*urls: str, port: int = 0) -> Lookout:
        targets = [
            {"name": f"t{n}", "url": url, "interval": 0.05, "timeout": 2}
            for n, url in enumerate(urls)
        ]
        (tmp_path / "lookout.yml").write_text(
            "service: {state: {{ state|yaml }}}\n"
            "web: {port: {{ port|yaml }}}\n"
            "history: {save_every: 0.1}\n"
            "targets: {{ targets|yaml }}\n"
        )
        values = {"state": str(tmp_path / "state"), "port": port, "targets": targets}
        options = [f"-V{name}={json.dumps(value)}" for name, value in values.items()]
        return Lookout("serve", "-c", "lookout.yml", *options, cwd=tmp_path)

    return start
