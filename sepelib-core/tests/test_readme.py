"""The example of the README runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    blocks = dict(
        re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    )
    name = re.search(r"`(\S+\.yml)`:\n\n```yaml", README.read_text())
    assert name is not None
    (tmp_path / name[1]).write_text(blocks["yaml"])

    child = subprocess.run(
        [sys.executable, "-c", blocks["python"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (child.stdout, child.stderr, child.returncode) == (blocks["text"], "", 0)
