"""What the README shows runs."""

import re
from pathlib import Path
from typing import Any

import pytest

from sepelib.mongo import MockDatabase

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(mongo_db: MockDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    names: dict[str, Any] = {"__name__": "readme"}

    exec(compile(example, str(README), "exec"), names)

    assert capsys.readouterr().out == "JOB-1 State.TAKEN 1\n"
