"""The repository for tests: a real one, changed by somebody else at will."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sepelib.util.testing import MissingComponent
from sepelib.vcs.testing import Repository

pytest_plugins = ["sepelib.vcs.pytest_plugin"]


def test_commits_make_folders_change_and_delete(svn_repo: Repository) -> None:
    assert (svn_repo.youngest, svn_repo.paths()) == (0, [])
    assert svn_repo.commit({"a/b@1/\N{SNOWMAN} c": b"1", "a/d": b"", "-e": b""}) == 1
    assert svn_repo.commit({"a/b@1/\N{SNOWMAN} c": b"2", "a/d": None}) == 2
    assert svn_repo.paths() == ["-e", "a/", "a/b@1/", "a/b@1/\N{SNOWMAN} c"]
    assert svn_repo.cat("a/b@1/\N{SNOWMAN} c") == b"2"
    assert svn_repo.cat("a/b@1/\N{SNOWMAN} c", 1) == b"1"
    with pytest.raises(RuntimeError, match="E160013: Path 'nope' does not exist"):
        svn_repo.cat("nope")


def test_somebody_who_is_quicker_is_so_once(svn_repo: Repository) -> None:
    svn_repo.before_next_commit({"quick \N{SNOWMAN}": b"1"})
    assert svn_repo.youngest == 0
    assert svn_repo.commit({"slow": b"2"}) == 2
    assert svn_repo.commit({"slow": b"3"}) == 3
    assert svn_repo.paths() == ["quick \N{SNOWMAN}", "slow"]


def test_a_repository_of_its_own_folder_is_removed_with_it() -> None:
    with Repository() as repository:
        folder = repository.folder
        repository.commit({"f": b""})
    assert not folder.exists()
    repository.close()


def test_a_repository_in_a_given_folder_stays(tmp_path: Path) -> None:
    with Repository(tmp_path / "new") as repository:
        repository.commit({"f": b"1"})
    assert repository.cat("f") == b"1"


def test_a_machine_without_subversion_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SEPELIB_MISSING", raising=False)
    with pytest.raises(MissingComponent, match="apt-get install subversion"):
        Repository(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_testing_needs_no_pytest() -> None:
    code = "import sys, sepelib.vcs.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
