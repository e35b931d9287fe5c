"""The example of the README runs as it stands there."""

import re
from pathlib import Path

import pytest

from sepelib.vcs.testing import Repository

README = Path(__file__).parent.parent / "README.md"

pytest_plugins = ["sepelib.vcs.pytest_plugin"]


def test_the_example_adds_its_line(
    svn_repo: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    svn_repo.commit({"trunk/targets.yml": b"- web-1\n"})
    svn_repo.before_next_commit({"trunk/targets.yml": b"- web-1\n- web-2\n"})
    with svn_repo.serve("robot", "secret") as server:
        exec(example, {"url": server.url, "password": "secret"})

    assert svn_repo.cat("trunk/targets.yml") == b"- web-1\n- web-2\n- web-3\n"
    assert capsys.readouterr().out == "3 robot\n"
