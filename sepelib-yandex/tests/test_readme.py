"""The examples of the README run as they stand there, and its tables are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sepelib.util.testing import MemoryRecorder
from sepelib.yandex import auth, base, errors, model, paging
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeStartrek

README = Path(__file__).parents[1] / "README.md"

EXAMPLE, TEST = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


def test_the_example_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeStartrek()
    fake.add_queue("TEST")
    fake.add_automation("TEST", tags=["disk", "seen"])  # so the version is over at once
    token_file = tmp_path / "token"
    token_file.write_text(fake.token)
    with fake.serve() as url:
        exec(EXAMPLE, {"url": url, "token_file": str(token_file)})
        # As the comment in the example has it, but for the address.
        where = f"PATCH {url}/v2/issues/TEST-1"
    conflict, found = capsys.readouterr().out.splitlines()
    assert conflict.startswith(f"startrek issues.update ({where}): status 409: ")
    assert found == "TEST-1 Disk is full ['disk', 'seen']"
    fake.check()


def test_the_test_passes(fake_startrek: FakeStartrek, startrek_client: StartrekClient) -> None:
    names: dict[str, Any] = {}
    exec(TEST, names)
    [test] = [value for name, value in names.items() if name.startswith("test_")]
    test(fake_startrek, startrek_client)


def test_the_table_has_the_metrics_that_a_client_reports() -> None:
    rows = re.findall(r"^\| `(yandex_\w+)` \| ([\w, ]+) \|", README.read_text("utf-8"), re.M)
    fake, recorder = FakeStartrek(), MemoryRecorder()
    options: dict[str, Any] = {"session": fake.session(), "recorder": recorder}
    with StartrekClient.from_config(fake.config(), **options) as client:
        client.myself()

    assert sorted(name for name, _ in rows) == recorder.names
    for name, labels in rows:
        [values] = recorder.series(name)
        assert len(values) == len(labels.split(", "))


def test_what_it_names_is_there() -> None:
    text = README.read_text("utf-8")
    for module, names in (
        (base, ["ApiClient"]),
        (errors, ["YandexError"]),
        (auth, ["OAuthToken"]),
        (paging, ["Pager"]),
        (model, ["Record"]),
    ):
        assert f"`{module.__name__.rpartition('.')[2]}.py`" in text
        assert set(names) <= set(module.__all__)
    for file in re.findall(r"`([\w/]+\.py)`", text):
        assert (Path(base.__file__).parent / file).exists(), file
