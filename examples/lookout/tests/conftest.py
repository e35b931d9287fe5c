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
            f"web: {{port: 0, {web}}}\n{more}"
            "history: {save_every: 0.1}\n"
            "targets: {{ targets|yaml }}\n"
        )
        values = {"state": str(tmp_path / "state"), "targets": targets}
        options = [f"-V{name}={json.dumps(value)}" for name, value in values.items()]
        return Lookout("serve", "-c", "lookout.yml", *options, cwd=tmp_path, log_file=log_file)

    return start
