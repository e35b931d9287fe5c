"""Importing a client loads what that client needs, and nothing of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sepelib.yandex.contract import SERVICES

HEAVY = ("flask", "gevent", "jinja2", "yaml", "pytest", "werkzeug", "sepelib.yandex.testing")

# What a client is over another one: passport asks blackbox.
OVER = {"passport": {"blackbox"}}

SHOW = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def loaded_by(line: str, *, path: Path | None = None) -> set[str]:
    """The modules of a fresh process after *line*."""
    program = line if path is None else f"import sys; sys.path.append({str(path)!r}); {line}"
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", f"{program}\n{SHOW}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("service", SERVICES)
def test_a_client_loads_no_other_client_and_nothing_heavy(service: str) -> None:
    loaded = loaded_by(f"import sepelib.yandex.{service}")

    assert not {name for name in HEAVY if name in loaded}
    others = set(SERVICES) - {service} - OVER.get(service, set())
    assert not {other for other in others if f"sepelib.yandex.{other}" in loaded}


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_seven_small_ones_load_their_table(service: str) -> None:
    small = {"alemate", "auth_qe", "center_robot", "clustermaster", "iss", "its", "shardtracker"}
    small.add("timeline")
    loaded = loaded_by(f"import sepelib.yandex.{service}")

    assert ("sepelib.yandex.operations" in loaded) is (service in small)


def test_the_root_loads_nothing() -> None:
    loaded = loaded_by("import sepelib.yandex")

    assert {name for name in loaded if name.startswith("sepelib")} == {"sepelib", "sepelib.yandex"}
    assert "requests" not in loaded


def test_the_fakes_load_when_they_are_asked_for() -> None:
    loaded = loaded_by("import sepelib.yandex.testing")
    assert {name for name in loaded if name.startswith("sepelib.yandex.testing.")} == set()
    assert "requests" not in loaded

    loaded = loaded_by("from sepelib.yandex.testing import FakeGencfg")
    fakes = {f"sepelib.yandex.testing._{service}" for service in SERVICES}
    assert loaded & fakes == {"sepelib.yandex.testing._gencfg"}
    assert not {name for name in HEAVY[:-1] if name in loaded}
    assert not {f"sepelib.yandex.{service}" for service in SERVICES} & loaded


def test_the_fakes_say_what_they_have() -> None:
    from sepelib.yandex import testing

    assert {name for name in testing.__all__ if name not in dir(testing)} == set()
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="FakeStarTrek"):
        testing.FakeStarTrek  # type: ignore[attr-defined]  # noqa: B018


def test_the_plug_in_loads_neither_fakes_nor_clients() -> None:
    loaded = loaded_by("import sepelib.yandex.pytest_plugin")

    assert "requests" not in loaded and "sepelib.yandex.testing" not in loaded
    assert not {f"sepelib.yandex.{service}" for service in SERVICES} & loaded


def test_the_namespace_has_room_for_a_distribution_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "sepelib" / "elsewhere").mkdir(parents=True)
    (tmp_path / "sepelib" / "elsewhere" / "__init__.py").write_text("HERE = 1\n")

    loaded = loaded_by("import sepelib.yandex.startrek, sepelib.elsewhere", path=tmp_path)

    assert {"sepelib.elsewhere", "sepelib.yandex.startrek"} <= loaded
