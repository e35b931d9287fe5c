"""No `sepelib-` name ever comes from a package index, though strangers may offer them there."""

import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import dists

FOREIGN = "66.0.3"


class Index(ThreadingHTTPServer):
    """A package index in a folder, which remembers what it was asked for."""

    asked: list[str]


class _Handler(SimpleHTTPRequestHandler):
    server: Index

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.path)


def foreign_wheel(folder: Path, name: str) -> None:
    """A stranger's wheel of our name, with a version above ours."""
    escaped = name.replace("-", "_")
    folder.mkdir(parents=True)
    info = f"{escaped}-{FOREIGN}.dist-info"
    with zipfile.ZipFile(folder / f"{escaped}-{FOREIGN}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {FOREIGN}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def foreign_index(tmp_path: Path) -> Iterator[Index]:
    for dist in dists.distributions():
        foreign_wheel(tmp_path / "index" / dist.name, dist.name)
    server = Index(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path / "index")))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, name="index")
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def python(tmp_path: Path) -> Path:
    dists.uv("venv", "--python", sys.executable, tmp_path / "venv")
    return tmp_path / "venv" / "bin" / "python"


def versions(python: Path) -> dict[str, str]:
    listing = dists.run("uv", "pip", "freeze", "--python", python)
    return dict(re.findall(r"^(sepelib-\w+)(?:==| @ )(.*)$", listing, re.MULTILINE))


def test_a_higher_version_on_an_index_is_not_taken(
    foreign_index: Index, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{foreign_index.server_port}/")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))  # nothing is remembered from before

    dists.install(python, "sepelib-metrics", "sepelib-subprocess")

    assert set(versions(python)) == {"sepelib-metrics", "sepelib-subprocess", "sepelib-util"}
    for place in versions(python).values():
        assert place.startswith("file://"), place


def test_without_the_constraints_the_stranger_would_be_installed(
    foreign_index: Index, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other test means something only if the offer is real.
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{foreign_index.server_port}/")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    wheels = dists.wheels()["sepelib-subprocess"].parent

    subprocess.run(
        ["uv", "pip", "install", "-q", "--python", python, "--find-links", wheels, "sepelib-util"],
        check=True,
        env=os.environ,
    )

    assert versions(python) == {"sepelib-util": FOREIGN}
    assert any("sepelib-util" in path for path in foreign_index.asked)


def test_every_name_of_ours_is_pinned_to_a_file_of_this_tree() -> None:
    dists.wheels()
    pinned = dict(line.split(" @ ") for line in dists.LOCAL.read_text().splitlines())

    assert {d.name for d in dists.distributions()} <= set(pinned)
    for place in pinned.values():
        assert Path(place.removeprefix("file://")).is_file()


def test_a_requirement_on_a_name_that_the_tree_does_not_have_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "sepelib-x"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "sepelib-x"\ndependencies = ["sepelib-utils>=1"]\n'
    )

    with pytest.raises(dists.Broken, match=r"sepelib-x requires \['sepelib-utils'\]"):
        dists.distributions(root=tmp_path)


@pytest.mark.parametrize("file", sorted(dists.ROOT.glob("*.txt")), ids=lambda p: p.name)
def test_no_list_for_an_index_has_a_name_of_ours(file: Path) -> None:
    assert "sepelib" not in file.read_text()
