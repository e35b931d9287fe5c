"""The example of the README is a service that works."""

import re
import signal
import sys
from pathlib import Path

from sepelib.util.testing import ServerProcess

README = Path(__file__).parents[1] / "README.md"


def test_the_example_serves_until_it_is_asked_to_stop() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)

    def command(server: ServerProcess) -> list[str]:
        (server.folder / "service.py").write_text(example)
        return [sys.executable, "service.py"]

    def serves(server: ServerProcess) -> bool:
        return {"beat", "serving"} <= set(server.log_tail().split())

    with ServerProcess(command, ready=serves, name="example") as server:
        server.signal(signal.SIGTERM)
        assert server.wait(20.0) == 0, server.log_tail()
        assert set(server.log_tail().split()) == {"beat", "serving"}
