"""Reading no more than expected; making and removing directories while others do the same."""

from __future__ import annotations

import contextlib
import errno
import os
import posix
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.util.fs import ensure_dir, read_file, remove, tail

LIMIT = 60.0  # for what takes milliseconds; reached only when something is broken
NOBODY = 65534


def descriptors() -> set[tuple[str, str]]:
    """Those that are open, by number and file; not the one that this listing takes itself."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    time.sleep(0)  # gevent closes late, at a turn of its loop
    before = descriptors()
    yield
    # Not by their number: what a test before has left may go meanwhile, and hide a new one.
    assert descriptors() <= before


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    former = os.umask(0o022)
    yield os.umask
    os.umask(former)


def together(*work: Callable[[], object]) -> None:
    """Run them in threads; the first error is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        try:
            start.wait(LIMIT)
            one()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    if errors:
        raise errors[0]


def as_nobody(code: str, *args: object) -> str:
    """Output of Python code run by a user without any rights."""
    if os.geteuid() != 0:
        user: dict[str, Any] = {}  # a plain user already
    else:
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    # Imports come first: nobody may not be let into the checkout, nor into its interpreter.
    prelude = "import os, sys; from sepelib.util.fs import *\n"
    drop = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n" if user else ""
    done = subprocess.run(
        [sys.executable, "-c", prelude + drop + code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.stdout + done.stderr


def tree(top: Path, depth: int = 3, width: int = 3) -> None:
    top.mkdir()
    for number in range(width):
        (top / f"file{number}").write_text("x")
        if depth:
            tree(top / f"folder{number}", depth - 1, width)


# read_file


def test_a_file_is_read_as_text_or_bytes_with_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_bytes("привет\r\n".encode())
    assert read_file(path) == "привет\r\n"
    assert read_file(str(path), encoding=None) == path.read_bytes()
    path.write_bytes(b"\xe9")
    assert read_file(path, encoding="latin-1") == "é"


def test_a_file_larger_than_expected_is_refused_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 1001)
    with pytest.raises(OSError, match="larger than max_bytes=1000") as error:
        read_file(path, max_bytes=1000)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(path)
    assert len(read_file(path, max_bytes=1001)) == 1001
    assert len(read_file(path, max_bytes=None)) == 1001
    path.write_bytes(b"")
    assert read_file(path, max_bytes=0) == ""


def test_a_file_without_a_size_is_read_and_bounded_too() -> None:
    assert "Name:" in read_file("/proc/self/status")
    with pytest.raises(OSError, match="max_bytes"):
        read_file("/proc/self/status", max_bytes=10)


def test_a_file_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom((3 << 20) + 7)
    (tmp_path / "data").write_bytes(data)
    assert read_file(tmp_path / "data", encoding=None) == data


def test_text_in_another_encoding_is_told_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_bytes(b"password=\xff\xfe")
    with pytest.raises(ValueError, match=r"conf: not utf-8: invalid start byte at byte 9") as error:
        read_file(path)
    assert error.value.__cause__ is None and error.value.__context__ is None
    assert "password" not in repr(error.value)


@pytest.mark.parametrize("read", [read_file, tail])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, read: Callable[[Any], object]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "fifo", tmp_path / "socket", Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises(OSError) as error:  # noqa: PT011  what is said depends on the kind
                read(path)
            assert error.value.filename == str(path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")


# tail


def test_the_last_lines_come_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nthree\n")
    assert tail(path, lines=2) == "two\nthree\n"
    assert tail(path, lines=3) == tail(path, lines=99) == tail(path) == "one\ntwo\nthree\n"
    assert tail(path, lines=0) == tail(path, max_bytes=0) == ""
    path.write_text("one\ntwo")
    assert tail(path, lines=1) == "two"
    path.write_text("\n\n\n")
    assert tail(path, lines=2) == "\n\n"
    path.write_text("")
    assert tail(path, lines=2) == ""
    with pytest.raises(ValueError, match="negative"):
        tail(path, lines=-1)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    text=st.text(st.sampled_from("aё€😀\n\n"), max_size=60),
    lines=st.integers(0, 8),
    max_bytes=st.integers(0, 120),
)
def test_lines_and_bytes_bound_it_together(text: str, lines: int, max_bytes: int) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tail-{os.getpid()}"
    try:
        path.write_text(text, encoding="utf-8", newline="")
        got, all_of_it = tail(path, lines=lines, max_bytes=max_bytes), tail(path, lines=lines)
    finally:
        path.unlink()
    wanted = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
    ends = "\n" if text.endswith("\n") else ""
    assert all_of_it == ("\n".join(wanted[-lines:]) + ends if lines and text else "")
    assert all_of_it.endswith(got)
    assert "\ufffd" not in got
    assert len(got.encode()) <= max_bytes
    assert len(got.encode()) > max_bytes - 4 or got == all_of_it


def test_of_a_big_file_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: to read it all would take hours
        file.seek(0, os.SEEK_END)
        for number in range(20_000):
            file.write(b"%05d:%s\n" % (number, b"x" * 50))
    assert [line[:6] for line in tail(path, lines=3).splitlines()] == ["19997:", "19998:", "19999:"]
    assert len(tail(path, lines=10_000).splitlines()) == 10_000  # over many blocks


def test_of_an_endless_line_its_last_bytes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("ё" * 100_000)
    assert tail(path, lines=1, max_bytes=1001) == "ё" * 500


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\x80\x80\x80\x80\x80a\xff\n")
    assert tail(path, lines=1) == "\ufffd" * 5 + "a\ufffd\n"


def test_a_character_half_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes("да\nё".encode()[:-1])
    assert tail(path, lines=1) == ""
    assert tail(path, lines=2) == "да\n"


def test_a_log_that_grows_and_is_truncated_meanwhile_gives_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(300):
                with path.open("ab") as file:
                    file.write(b"<%d>\n" % number * 100)
                if number % 50 == 49:
                    os.truncate(path, 0)
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            for line in tail(path, lines=20_000).splitlines()[1:-1]:
                assert line[:1] + line[-1:] == "<>", line
            time.sleep(0)  # lets the writer go on where threads are greenlets

    together(write, read)


# ensure_dir


def test_a_directory_is_made_with_those_above_it(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o077)
    ensure_dir(tmp_path / "a" / "b" / "c")
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700  # as umask wants it
    ensure_dir(f"{tmp_path}/private/", 0o2710)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o2710


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(0o700)
    (tmp_path / "link").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "link", tmp_path, Path("/"), Path(".")):
        ensure_dir(path, 0o777)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, culprit, words in [
        (tmp_path / "file", tmp_path / "file", "a file is in the way"),
        (tmp_path / "dangling", tmp_path / "dangling", "a dangling link is in the way"),
        (tmp_path / "file" / "a" / "b", tmp_path / "file", "a file is in the way"),
    ]:
        with pytest.raises(OSError, match=words) as error:
            ensure_dir(path)
        assert error.value.filename == str(culprit)
    with pytest.raises(FileNotFoundError):
        ensure_dir("")
    with pytest.raises(ValueError, match="mode"):
        ensure_dir(tmp_path / "x", 0o10000)


def test_where_none_can_be_made_it_is_told() -> None:
    output = as_nobody("ensure_dir('/usr/sepelib/x')")
    assert output.strip().endswith("cannot make it: Permission denied: '/usr/sepelib'")
    with pytest.raises(FileNotFoundError, match="cannot make it"):
        ensure_dir("/proc/self/x")


def test_many_may_make_the_same_one_at_once(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / str(number) / "a" / "b" / "c"
        together(*[lambda path=path: ensure_dir(path)] * 6)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_it_is_made_while_others_remove_those_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c" / "d"
    done = threading.Event()

    def make() -> None:
        try:
            for _ in range(300):
                ensure_dir(path)
        finally:
            done.set()

    def take_away() -> None:
        while not done.is_set():
            remove(tmp_path / "a")
            time.sleep(0)

    together(make, take_away)


# remove


def test_a_file_a_tree_and_nothing_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    remove(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    remove(tmp_path / "fifo")
    tree(tmp_path / "tree")
    remove(f"{tmp_path}/tree/")
    remove(tmp_path / "nothing")
    remove(tmp_path / "nothing" / "at" / "all")
    assert os.listdir(tmp_path) == []


def test_what_is_missing_can_be_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(FileNotFoundError, match=str(path)):
            remove(path, missing_ok=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        remove(f"{tmp_path}/file/")
    remove(tmp_path / "file", missing_ok=False)


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    tree(tmp_path / "kept", depth=1)
    tree(tmp_path / "tree", depth=1)
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "tree" / "folder0" / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "tree" / "up").symlink_to("..")
    remove(tmp_path / "link")
    remove(tmp_path / "dangling")
    remove(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 12


@pytest.mark.parametrize("path", ["", "/", "//", ".", "..", "a/.", "a/..", "./", "../"])
def test_names_that_nobody_means_to_remove_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="must end in a name"):
        remove(path)


def test_the_working_directory_and_those_above_it_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path / "a" / "b")
    for path in (tmp_path / "a", tmp_path / "a" / "b", "../../a", "../b"):
        with pytest.raises(OSError, match="working directory") as error:
            remove(path)
        assert error.value.filename == str(path)
    remove("../../c")
    assert os.listdir(tmp_path) == ["a"]


def test_a_mount_point_is_refused_and_what_is_mounted_is_left(tmp_path: Path) -> None:
    # In a mount namespace of its own; a bind mount has the device of what it shows.
    code = (
        "import os, subprocess, sys; from sepelib.util.fs import remove\n"
        "top = sys.argv[1]\n"
        "for name in ('tree', 'kept'): os.makedirs(f'{top}/{name}/inner')\n"
        "open(f'{top}/kept/inner/file', 'w').close()\n"
        "subprocess.run(['mount', '--bind', f'{top}/kept', f'{top}/tree/inner'], check=True)\n"
        "for path in (f'{top}/tree', f'{top}/tree/inner'):\n"
        "    try: remove(path)\n"
        "    except OSError as e: print(e)\n"
    )
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        # No package helps against a kernel that refuses.
        pytest.skip("this kernel or container permits no mount namespace")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    said = f"cannot remove it: a file system is mounted there: '{tmp_path}/tree/inner'"
    assert [line.partition("] ")[2] for line in done.stdout.splitlines()] == [said] * 2, done.stderr
    assert (tmp_path / "kept" / "inner" / "file").exists()


def test_directories_that_are_closed_to_us_are_opened(tmp_path: Path) -> None:
    tree(tmp_path / "tree", depth=2)
    (tmp_path / "kept").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    tmp_path.chmod(0o777)
    for folder, _, files in os.walk(tmp_path / "tree", topdown=False):
        for name in (folder, *(f"{folder}/{file}" for file in files)):
            if os.geteuid() == 0 and not os.path.islink(name):
                os.chown(name, NOBODY, NOBODY)
        os.chmod(folder, 0o000)
    for above in tmp_path.parents:
        if above.stat().st_uid == os.geteuid() and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    (tmp_path / "kept").chmod(0o500)
    assert as_nobody("remove(sys.argv[1])", tmp_path / "tree") == ""
    assert os.listdir(tmp_path) == ["kept"]
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o500


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a file of another user")
def test_what_cannot_be_removed_is_named_whole(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("")
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    output = as_nobody("remove(sys.argv[1])", tmp_path / "a")
    assert output.strip().endswith(
        f"PermissionError: [Errno 13] cannot remove it: Permission denied: '{tmp_path}/a/b/file'"
    )


def test_a_tree_deeper_than_a_path_may_be_long_is_removed(tmp_path: Path) -> None:
    depth = 3000
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("directory", dir_fd=here)
        below = os.open("directory", os.O_RDONLY, dir_fd=here)
        posix.close(here)
        here = below
    posix.close(here)
    remove(tmp_path / "directory")
    assert os.listdir(tmp_path) == []


def test_many_directories_use_few_descriptors(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / "tree" / str(number) / "below").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        remove(tmp_path / "tree")  # under gevent its loop has no turn meanwhile
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_may_remove_the_same_tree_at_once(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / str(number)
        tree(path)
        together(*[lambda path=path: remove(path)] * 4)
        assert not path.exists()


def test_a_tree_that_is_filled_meanwhile_is_removed_once_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "tree"

    def fill() -> None:
        for number in range(200):
            ensure_dir(path / str(number % 7) / str(number))
            time.sleep(0)

    together(fill, lambda: remove(path))
    remove(path)
    assert not path.exists()


def test_an_exchanged_directory_leads_nowhere(tmp_path: Path) -> None:
    """The old attack on `rm -r`: a directory becomes a link while we walk."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    done = threading.Event()
    victim, spare = tmp_path / "tree" / "victim", tmp_path / "spare"

    def exchange() -> None:
        while not done.is_set():
            try:
                os.rename(victim, spare)
                os.symlink(kept, victim)
            except OSError:
                pass
            time.sleep(0)
            remove(spare)

    def walk() -> None:
        try:
            for _ in range(200):
                ensure_dir(tmp_path / "tree")
                with suppress(OSError):
                    ensure_dir(victim / "inner")
                with suppress(OSError):  # it was moved meanwhile
                    remove(tmp_path / "tree")
        finally:
            done.set()

    together(exchange, walk)
    assert (kept / "file").exists()


def before_open(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Do something at the worst moment: just before the first os.open() of *name*."""
    real, due = os.open, [act]

    def opened(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == name and due:
            due.pop()()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", opened)


def test_a_directory_that_becomes_a_link_after_we_looked_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "kept", depth=0)
    victim = tmp_path / "tree" / "victim"
    victim.mkdir(parents=True)

    def exchange() -> None:
        victim.rmdir()
        victim.symlink_to(tmp_path / "kept")

    before_open(monkeypatch, "victim", exchange)
    remove(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert len(os.listdir(tmp_path / "kept")) == 3


def test_a_directory_moved_away_while_we_are_in_it_does_not_lead_us_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "a").mkdir(parents=True)
    away = tmp_path / "elsewhere" / "b"
    before_open(monkeypatch, "..", lambda: os.rename(tmp_path / "tree" / "a" / "b", away))
    with pytest.raises(OSError, match="it was moved meanwhile") as error:
        remove(tmp_path / "tree")
    assert error.value.filename == str(tmp_path / "tree" / "a" / "b")
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["a", "b"]
