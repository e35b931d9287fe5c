"""The tool that builds and checks the distributions refuses what would break the namespace."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import dists


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what `layout` looks at."""
    for dist in dists.distributions():
        shutil.copytree(
            dist.folder, tmp_path / dist.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def test_the_layout_of_this_tree_is_right(tree: Path) -> None:
    dists.layout(tree)


@pytest.mark.parametrize(
    "stray",
    [
        "sepelib-http/src/sepelib/__init__.py",
        "sepelib-http/tests/__init__.py",
        "sepelib-http/src/sepelib/rpc/module.py",
    ],
)
def test_a_stray_file_is_refused_by_its_name(tree: Path, stray: str) -> None:
    (tree / stray).parent.mkdir(parents=True, exist_ok=True)
    (tree / stray).touch()
    with pytest.raises(dists.Broken, match="must not exist: sepelib-http/"):
        dists.layout(tree)


def test_a_distribution_without_py_typed_is_refused(tree: Path) -> None:
    (tree / "sepelib-vcs/src/sepelib/vcs/py.typed").unlink()
    with pytest.raises(dists.Broken, match=r"sepelib-vcs has no .*py\.typed"):
        dists.layout(tree)


def wheel(folder: Path, name: str, *files: str) -> Path:
    path = folder / f"sepelib_{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"sepelib_{name}-1.dist-info/METADATA", "Version: 1\n")
        for file in (f"sepelib/{name}/__init__.py", f"sepelib/{name}/py.typed", *files):
            archive.writestr(file, "")
    return path


def test_a_wheel_that_ships_the_namespace_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "vcs", "sepelib/__init__.py")
    with pytest.raises(dists.Broken, match=r"ships sepelib/__init__\.py, which is not its own"):
        dists.inspect_wheel(dists.by_name("vcs"), path, "1", {})


def test_a_file_owned_by_two_wheels_is_refused(tmp_path: Path) -> None:
    owners = {"sepelib/vcs/py.typed": "sepelib-http"}
    with pytest.raises(dists.Broken, match="is in sepelib-http and in sepelib-vcs"):
        dists.inspect_wheel(dists.by_name("vcs"), wheel(tmp_path, "vcs"), "1", owners)


def test_a_wheel_of_another_version_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "vcs")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("sepelib_vcs-2.dist-info/METADATA", "Version: 1\n")
    with pytest.raises(dists.Broken, match="version 1, VERSION says 2"):
        dists.inspect_wheel(dists.by_name("vcs"), path, "2", {})


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(dists.Broken, match=r"no distribution 'htp' .*; there are: .*http"):
        dists.by_name("htp")


def test_the_command_line_says_one_line_and_fails() -> None:
    tool = dists.ROOT / "tools" / "dists.py"
    done = subprocess.run(
        [sys.executable, tool, "install", "nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no distribution 'nonsense'") and done.stderr.count("\n") == 1
