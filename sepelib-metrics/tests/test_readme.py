"""The example of the README prints what it says."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import yaml

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_prints_what_is_shown() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^prints, .*\n\n((?:    .*\n)+)", README, re.MULTILINE)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10

    done = subprocess.run([sys.executable, "-c", example], capture_output=True, check=True)

    printed = done.stdout.decode().rstrip("\n")
    assert without_figures(printed) == without_figures(dedent(shown).rstrip("\n"))
    document = yaml.safe_load(printed)
    assert document["requests"] == {"method=GET status=200": 100}
    assert document["request_seconds"]["last 60 s"]["count"] == 100


def without_figures(text: str) -> list[str]:
    """The lines up to their fields, and the names of the first few of these."""
    return [
        re.sub(r"(?<=: )[\d.]+ ?\w*|, p95.*|, \.\.\.\}", "", line) for line in text.splitlines()
    ]
