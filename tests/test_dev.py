"""./dev, the one command for every job."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import dists

VERBS = [
    "demo",
    "test",
    "quick",
    "peers",
    "lint",
    "fix",
    "types",
    "wheels",
    "bench",
    "docs",
    "soak",
]


def dev(
    *arguments: str, folder: Path = dists.ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "./dev", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_help_is_the_default_and_lists_every_verb() -> None:
    assert dev().stdout == dev("help").stdout
    for verb in [*VERBS, "clean"]:
        assert f"./dev {verb} " in dev().stdout


def test_an_unknown_verb_is_one_line_and_exit_status_2() -> None:
    done = dev("tset")
    assert (done.returncode, done.stderr) == (2, "dev: no verb 'tset'; ./dev help lists them\n")


def test_a_verb_that_has_nothing_yet_says_so() -> None:
    done = dev("docs")
    assert done.returncode == 0
    assert done.stderr.startswith("dev: docs: nothing yet")


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A copy of ./dev, and a PATH without Python, Java, Subversion, apt-get and sudo."""
    (tmp_path / "bin").mkdir()
    for name in (
        "sh",
        "dirname",
        "cat",
        "tr",
        "id",
        "sed",
        "cksum",
        "mktemp",
        "tail",
        "rm",
        "env",
        "true",
    ):
        tool = shutil.which(name)
        assert tool is not None
        (tmp_path / "bin" / name).symlink_to(tool)
    shutil.copy(dists.ROOT / "dev", tmp_path)
    return tmp_path


def test_what_may_not_be_installed_is_named_in_one_sentence(bare_machine: Path) -> None:
    path = str(bare_machine / "bin")

    done = dev("demo", folder=bare_machine, PATH=path, PYTHON="", ZOOKEEPER_HOME="/nowhere")

    first, second = done.stderr.splitlines()
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends python3 python3-venv default-jre" in first
    assert "subversion" in first
    assert second == "dev: no Python >= 3.11 with venv and ensurepip to go on with"


def test_apt_get_is_called_without_questions_and_its_last_words_are_shown(
    bare_machine: Path,
) -> None:
    if os.getuid() != 0:
        (bare_machine / "bin" / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n')
        (bare_machine / "bin" / "sudo").chmod(0o755)
    log = bare_machine / "log"
    apt = bare_machine / "bin" / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" $DEBIAN_FRONTEND >>{log}\necho E: no network\nexit 100\n')
    apt.chmod(0o755)

    done = dev("test", folder=bare_machine, PATH=str(bare_machine / "bin"), PYTHON="")

    first, update = log.read_text().splitlines()
    assert "install -y --no-install-recommends python3" in first and "noninteractive" in first
    assert update.endswith("update noninteractive")
    assert "E: no network" in done.stderr and "still missing: python3" in done.stderr


def test_apt_get_is_left_alone_when_asked(bare_machine: Path) -> None:
    apt = bare_machine / "bin" / "apt-get"
    apt.write_text(f"#!/bin/sh\ntouch {bare_machine}/called\n")
    apt.chmod(0o755)

    done = dev(
        "test", folder=bare_machine, PATH=str(bare_machine / "bin"), PYTHON="", SEPELIB_NO_APT="1"
    )

    assert done.returncode == 1 and not (bare_machine / "called").exists()
