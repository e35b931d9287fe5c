"""Programs as probes: real ones, also those that misbehave."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import NOWHERE, Lookout, Target, until
from lookout import program
from lookout.records import Result
from lookout.settings import Configuration, Settings
from lookout.targets import Kind, Program
from lookout.targets import Target as Watched
from sepelib.core.config import ConfigError

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """`install(check="a shell script")`: puts programs into a directory, gives that."""
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o755)

    def put(**scripts: str) -> Path:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        return folder

    return put


@pytest.fixture
def strays(tmp_path: Path) -> Iterator[Path]:
    """A file for the pids of processes, none of which may be left at the end."""
    path = tmp_path / "strays"
    yield path
    pids = [int(pid) for pid in path.read_text().split()]
    assert pids
    left = [pid for pid in pids if _lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check(folder: Path, *args: str, name: str = "check", timeout: float = 20.0) -> Result:
    what = Program(folder, name, args)
    return program.probe(Watched("t", "", timeout=timeout, how=what), what)


def test_exit_status_0_is_fine_whatever_it_says(install: Install) -> None:
    result = check(install(check="echo all is bad; exit 0"))

    assert (result.ok, result.status, result.tries) == (True, 0, 1)
    assert 0 < result.latency < 20


def test_the_last_line_of_a_bad_end_is_the_sentence_without_controls_and_secrets(
    install: Install,
) -> None:
    script = r"echo first; printf 'disk \033[31m full, see http://bob:sesame@x/?token=t0k\n\n'"
    result = check(install(check=f"{script}; echo on stderr >&2; exit 2"))

    assert result.status == 2
    assert result.error == "check: disk [31m full, see http://bob:***@x/?token=***"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 3", "check: exit status 3"),
        ("echo only here >&2; exit 1", "check: only here"),
        ("kill -KILL $$", "check: ended by signal 9"),
    ],
)
def test_a_bad_end_without_output_has_a_sentence_too(
    install: Install, script: str, sentence: str
) -> None:
    assert check(install(check=script)).error == sentence


def test_a_long_line_is_cut(install: Install) -> None:
    result = check(install(check="printf %5000d 7; exit 1"))

    assert result.error is not None
    assert len(result.error) <= program.MAX_SENTENCE


def test_arguments_arrive_as_they_are_and_no_shell_sees_them(
    install: Install, tmp_path: Path
) -> None:
    args = ["$(touch pwned)", "a b", "", "; exit 0", "-x", "*"]
    result = check(install(check='printf "<%s>" "$@"; exit 1'), *args)

    assert result.error == "check: " + "".join(f"<{arg}>" for arg in args)


def test_the_environment_is_empty_but_for_path_and_locale(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKOUT_MAIL__PASSWORD", "sesame")
    folder = install(check="tr '\\0' ' ' < /proc/self/environ; exit 1")
    result = check(folder)

    assert result.error is not None
    names = {word.partition("=")[0] for word in result.error.removeprefix("check: ").split()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LC_ALL"}  # those of the shell


def test_memory_time_and_files_are_limited_before_the_program_runs(install: Install) -> None:
    result = check(install(check="grep -E 'cpu|file size|core|address' /proc/self/limits >&2"))
    assert result.ok
    lines = "sed -n 's/  */ /gp' /proc/self/limits | grep -E '^Max (cpu|file size|core|address)'"
    result = check(install(check=f"{lines} | tr '\\n' '|'; exit 1"), timeout=4.5)

    assert result.error is not None
    limits = [
        words[-3:-1] for line in result.error.split("|") if len(words := line.strip().split()) > 3
    ]
    memory, size = str(program.MAX_MEMORY), str(program.MAX_FILE)
    assert limits == [["6", "6"], [size, size], ["0", "0"], [memory, memory]]


def test_a_program_that_ignores_term_is_ended_with_its_children(
    install: Install, strays: Path
) -> None:
    began = time.monotonic()
    folder = install(check=f"trap '' TERM; echo $$ >{strays}; sleep 99 & echo $! >>{strays}; wait")
    result = check(folder, timeout=0.5)

    assert result.error == "check: not done within 0.5 s, ended with its children"
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("how", ["sh -c", "setsid setsid -f sh -c"])
def test_a_program_that_leaves_something_behind_is_not_done(
    install: Install, strays: Path, how: str
) -> None:
    """Not even with its output closed, and in a session of its own."""
    daemon = f"{how} 'echo $$ >{strays}; exec sleep 99' </dev/null >/dev/null 2>&1"
    folder = install(check=f"{daemon} & exit 0")
    result = check(folder, timeout=0.8)

    assert result.error == "check: not done within 0.8 s, ended with its children"


def test_a_program_that_floods_is_ended(install: Install, strays: Path) -> None:
    result = check(install(check=f"echo $$ >{strays}; exec yes"))

    assert result.error == "check: more than 65536 bytes of output"


def test_a_missing_program_is_one_sentence(install: Install) -> None:
    assert check(install()).error == "check: no such program in probes.exec_dir"


def test_what_the_kernel_does_not_run_is_given_to_no_shell(install: Install) -> None:
    folder = install(check="")
    (folder / "check").write_text("echo from a shell; exit 0\n")
    assert check(folder).error == "check: cannot be run (Exec format error)"
    (folder / "check").chmod(0o644)
    assert check(folder).error in (
        "check: cannot be run (Permission denied)",
        "check: cannot be run (Exec format error)",
    )


def test_who_could_be_changed_by_others_is_not_run(install: Install, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = install(check=f"touch {ran}", other=f"touch {ran}")
    (folder / "link").symlink_to(folder / "other")
    assert check(folder, name="link").error == "link is not run: not a regular file"

    for mode in (0o775, 0o757):
        (folder / "check").chmod(mode)
        assert check(folder).error == "check is not run: writable by others"
    (folder / "check").chmod(0o755)
    for above in (folder, tmp_path):
        before = above.stat().st_mode
        above.chmod(0o775)
        (sentence,) = [check(folder).error]
        assert sentence == f"check is not run: probes.exec_dir is writable by others ({above})"
        above.chmod(before)

    assert not ran.exists()
    assert check(folder).ok
    assert ran.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_what_belongs_to_somebody_else_is_not_run(install: Install) -> None:
    folder = install(check="exit 0")
    os.chown(folder / "check", 12345, -1)
    said = check(folder).error
    assert said == "check is not run: owned by neither root nor the user of lookout"
    os.chown(folder, 12345, -1)
    said = check(folder).error
    assert said == f"check is not run: probes.exec_dir is in the hands of another user ({folder})"


# In the configuration


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "lookout.yml"
    path.write_text(f"service: {{state: /tmp/x}}\n{text}{NOWHERE}")
    return Configuration(path).load()


def test_a_program_is_a_target_that_shows_no_arguments(install: Install, tmp_path: Path) -> None:
    folder = install()
    text = f"probes: {{exec_dir: {folder}}}\ntargets: [{{name: d, exec: c, args: [-w, '5']}}]\n"
    (target,) = read(tmp_path, text).targets

    assert (target.kind, target.shown_url) == (Kind.EXEC, "exec:c")
    assert target.how == Program(folder, "c", ("-w", "5"))


@pytest.mark.parametrize(
    ("more", "place", "sentence"),
    [
        ("exec: ../x", "4:19", "the name of a file in probes.exec_dir, without a path"),
        ("exec: '..'", "4:19", "the name of a file in probes.exec_dir, without a path"),
        ("exec: x, args: -w", "4:28", "a list of texts; numbers in quotes"),
        ("exec: x, args: [5]", "4:28", "a list of texts; numbers in quotes"),
        ("exec: x, url: http://x/", "4:27", "there are only args, confirm, exec, interval"),
        ("url: http://x/, args: []", "4:35", "there are only confirm, interval, max_latency"),
    ],
)
def test_a_wrong_program_is_said_with_its_place(
    install: Install, tmp_path: Path, more: str, place: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"probes: {{exec_dir: {install()}}}\ntargets:\n- {{name: d, {more}}}\n")

    assert f"lookout.yml:{place}: targets.0" in str(caught.value)
    assert sentence in str(caught.value)


def test_a_directory_that_others_can_change_is_said_with_its_place(
    install: Install, tmp_path: Path
) -> None:
    folder = install()
    folder.chmod(0o777)
    for text in (str(folder), "programs", str(folder / "nowhere"), "/etc/passwd"):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, f"probes: {{exec_dir: {text}}}\ntargets: [{{name: d, exec: c}}]\n")
        assert "lookout.yml:2:20: probes.exec_dir must be" in str(caught.value)
    with pytest.raises(ConfigError, match=r"lookout.yml:2:27: .* probes.exec_dir names no dir"):
        read(tmp_path, "targets: [{name: d, exec: c}]\n")


# In the service


def test_programs_that_misbehave_delay_no_other_target(
    target: Target, install: Install, strays: Path, tmp_path: Path
) -> None:
    stray = f"echo $$ >>{strays}"
    folder = install(
        stuck=f"trap '' TERM; {stray}; while :; do sleep 9; done",
        floods=f"{stray}; exec yes",
        fine="exit 0",
    )
    rows = "".join(f"- {{name: {name}, exec: {name}}}\n" for name in ("stuck", "floods", "fine"))
    (tmp_path / "lookout.yml").write_text(
        f"service: {{state: state}}\nweb: {{port: 0, drain_delay: 0}}\n{NOWHERE}"
        f"probes: {{interval: 200ms, timeout: 2s, exec_dir: {folder}}}\n"
        f"targets:\n{rows}- {{name: web, url: '{target.url}'}}\n"
    )
    with Lookout("serve", "-c", "lookout.yml", cwd=tmp_path) as lookout:
        until(lambda: lookout.target("fine")["state"] == "up")
        until(lambda: lookout.target("web")["probes"] >= 5)
        until(lambda: lookout.target("floods")["state"] == "down")
        assert lookout.target("fine")["kind"] == "exec"
        assert "exec:fine" in lookout.get()
        # It may be in the middle of `stuck`, which takes a second to end.
        assert lookout.process.stop() == 0
