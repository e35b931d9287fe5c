from __future__ import annotations

import copy
import errno
import fcntl
import inspect
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.fs import FileLock, FileLockTimeout, atomic_write

LIMIT = 60.0  # for what takes milliseconds; reached only when something is broken


def without_tmpfile(open_: Callable[..., int]) -> Callable[..., int]:
    """Stands in for a file system without O_TMPFILE (NFS, FUSE): none is there to be mounted."""

    def opened(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return open_(path, flags, *args, **kwargs)

    return opened


NAMED = f"""
from __future__ import annotations
import errno, os
{inspect.getsource(without_tmpfile)}
"""


class Cancelled(BaseException):
    """What gevent.Timeout and GreenletExit are to us."""


@pytest.fixture(params=["nameless", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to make the temporary file."""
    if request.param == "named":
        monkeypatch.setattr(os, "open", without_tmpfile(os.open))
    return str(request.param)


def script(*parts: str, args: tuple[object, ...] = ()) -> list[str]:
    return [sys.executable, "-c", "\n".join(parts), *map(str, args)]


@contextmanager
def child(*parts: str, args: tuple[object, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A Python process which has printed its first line, "ready"; killed at the end."""
    process = subprocess.Popen(
        script(*parts, args=args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# atomic_write


def test_a_new_file_appears_whole_when_the_block_ends(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    with atomic_write(path) as file:
        file.write("пароль\n")
        file.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == (way == "named")
    assert path.read_bytes() == "пароль\n".encode()
    assert names(tmp_path) == ["conf"]


def test_bytes_and_newlines_are_written_as_given(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    with atomic_write(path, "wb") as binary:
        binary.write(b"\xff\r\n")
    assert path.read_bytes() == b"\xff\r\n"
    with atomic_write(path, encoding="latin-1", newline="\r\n") as text:
        text.write("é\n")
    assert path.read_bytes() == b"\xe9\r\n"


@pytest.mark.parametrize("mode", ["a", "r", "r+", "w+", "x", "wt", ""])
def test_a_mode_that_is_not_a_whole_new_file_is_refused_at_once(tmp_path: Path, mode: Any) -> None:
    with pytest.raises(ValueError, match="mode is 'w' or 'wb'"):
        atomic_write(tmp_path / "conf", mode)
    with pytest.raises(ValueError, match="perms"):
        atomic_write(tmp_path / "conf", perms=0o10000)


def test_many_writes_in_a_row_keep_no_descriptor(tmp_path: Path, way: str) -> None:
    # Under gevent nothing here lets its loop run, which closes what os.close() was asked to.
    descriptors = os.listdir("/proc/self/fd")
    for _ in range(20):
        with atomic_write(tmp_path / "conf") as file:
            file.write("new")
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("error", [ValueError, Cancelled, KeyboardInterrupt, GeneratorExit])
def test_whatever_ends_the_block_early_leaves_the_old_file_alone(
    tmp_path: Path, way: str, error: type[BaseException]
) -> None:
    path = tmp_path / "conf"
    path.write_text("old")
    before = path.stat()
    descriptors = os.listdir("/proc/self/fd")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write("new")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.stat() == before  # before it is read, which is noted as well
    assert path.read_text() == "old"
    assert names(tmp_path) == ["conf"]
    assert os.listdir("/proc/self/fd") == descriptors


def test_the_block_may_close_the_file_itself(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    with atomic_write(path) as file:
        file.write("new")
        file.close()
    assert path.read_text() == "new"


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, way: str) -> None:
    former = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "conf") as file:
            file.write("new")
    finally:
        os.umask(former)
    assert mode_of(tmp_path / "conf") == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o604, 0o444, 0o666, 0o2755])
def test_an_old_file_hands_its_mode_down(tmp_path: Path, way: str, mode: int) -> None:
    path = tmp_path / "conf"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as file:
        file.write("new")
    assert [path.read_text(), mode_of(path)] == ["new", mode]


def test_perms_override_the_mode_of_the_old_file_and_the_umask(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    for perms in (0o666, 0o600):
        with atomic_write(path, perms=perms) as file:
            file.write("new")
        assert mode_of(path) == perms


def test_a_private_file_is_never_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real_open = without_tmpfile(os.open)

    def watching(path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:
        fd = real_open(path, flags, mode, **kwargs)
        if flags & os.O_CREAT:
            made.append(os.fstat(fd).st_mode & 0o777)
        return int(fd)

    monkeypatch.setattr(os, "open", watching)
    with atomic_write(tmp_path / "conf", perms=0o640) as file:
        file.write("secret")
    with atomic_write(tmp_path / "conf") as file:
        file.write("secret")
    assert made == [0o600, 0o600]


def test_a_mode_that_changes_while_the_block_runs_is_the_one_handed_down(
    tmp_path: Path, way: str
) -> None:
    path = tmp_path / "conf"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        path.chmod(0o640)
    assert mode_of(path) == 0o640
    with atomic_write(path) as file:
        file.write("newer")
        path.unlink()
    assert mode_of(path) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a file of another user")
def test_owner_and_group_are_handed_down(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    path.write_text("old")
    os.chown(path, 12345, 12346)
    path.chmod(0o4750)
    with atomic_write(path) as file:
        file.write("new")
    new = path.stat()
    assert [new.st_uid, new.st_gid, mode_of(path)] == [12345, 12346, 0o4750]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a file of another user")
def test_a_plain_user_keeps_the_set_id_bits_of_their_own_files_only() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        theirs, own = Path(folder, "theirs"), Path(folder, "own")
        for path in (theirs, own):
            path.write_text("old")
        for name in (folder, own):
            os.chown(name, 12345, 12345)
        for path in (theirs, own):
            path.chmod(0o6755)
        body = """
import os, sys
from sepelib.util.fs import atomic_write
os.setgroups([]); os.setgid(12345); os.setuid(12345)
for path in sys.argv[1:]:
    with atomic_write(path) as file:
        file.write("new")
"""
        subprocess.run(script(body, args=(theirs, own)), check=True, timeout=LIMIT)
        assert [theirs.stat().st_uid, theirs.stat().st_gid, mode_of(theirs)] == (
            [12345, 12345, 0o755]
        )
        assert [own.read_text(), mode_of(own)] == ["new", 0o6755]


def test_a_symbolic_link_is_written_through(tmp_path: Path, way: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data/../chain")
    (tmp_path / "chain").symlink_to(tmp_path / "data" / "conf")
    for text in ("dangling", "there"):
        with atomic_write(tmp_path / "link") as file:
            file.write(text)
        assert (tmp_path / "data" / "conf").read_text() == text
        assert not (tmp_path / "data" / "conf").is_symlink()
    assert names(tmp_path) == ["chain", "data", "link"]
    assert names(tmp_path / "data") == ["conf"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "chain").is_symlink()


def refused(path: Path, text: str, *numbers: int) -> None:
    with pytest.raises(OSError, match=text) as e, atomic_write(path) as file:
        file.write("new")
    assert e.value.filename == str(path)
    assert e.value.errno in numbers
    assert "\n" not in str(e.value)


def test_what_cannot_be_replaced_is_refused_by_name(tmp_path: Path, way: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "loop", "Too many levels", errno.ELOOP)
    refused(tmp_path / "folder", "Is a directory", errno.EISDIR)
    refused(tmp_path / "fifo", "Not a regular file", errno.EINVAL)
    refused(tmp_path / "none" / "conf", "directory: No such file", errno.ENOENT)
    refused(tmp_path / "fifo" / "conf", "Not a directory", errno.ENOTDIR)
    refused(Path("/dev/null"), "Not a regular file", errno.EINVAL)
    text = "cannot open a new file in its directory"
    refused(Path("/proc/conf"), text, errno.ENOENT, errno.EACCES)  # root hears the former
    with pytest.raises(IsADirectoryError), atomic_write(f"{tmp_path}/none/"):
        pass
    assert names(tmp_path) == ["fifo", "folder", "loop"]


def test_the_longest_name_is_replaced_too(tmp_path: Path, way: str) -> None:
    path = tmp_path / ("é" * 127 + "x")  # 255 bytes, cut amidst a character
    for text in ("old", "new"):
        with atomic_write(path) as file:
            file.write(text)
    assert path.read_text() == "new"
    assert names(tmp_path) == [path.name]


def test_neither_chdir_nor_a_renamed_folder_misleads_a_writer(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_write("conf") as file:
        file.write("new")
        os.chdir(tmp_path)
        (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "conf").read_text() == "new"
    assert names(tmp_path) == ["there"]


def test_a_full_disk_leaves_the_old_file(way: str) -> None:
    # tmpfs refuses to reserve more than it has at once, so nothing has to be filled.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "conf")
        path.write_text("old")
        with pytest.raises(OSError, match="No space left") as e, atomic_write(path) as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 50)
        assert e.value.errno == errno.ENOSPC
        assert path.read_text() == "old"
        assert names(Path(folder)) == ["conf"]


def test_a_write_that_the_kernel_refuses_while_closing_leaves_the_old_file(
    tmp_path: Path, way: str
) -> None:
    path = tmp_path / "conf"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write("new")
            raise Cancelled

    resource.setrlimit(resource.RLIMIT_FSIZE, (2, hard))  # "new" stays buffered until the end
    try:
        refused(path, "cannot write it: File too large", errno.EFBIG)
        with pytest.raises(Cancelled):  # and not the EFBIG of throwing the buffer away
            interrupted()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["conf"]


def test_file_then_name_then_directory_reach_the_disk(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(fd: int) -> None:
        events.append("fsync " + ("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"))
        assert os.fstat(fd).st_size > 0
        fsync(fd)

    def watched_replace(*args: Any, **kwargs: Any) -> None:
        events.append("replace")
        replace(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    for wanted in (True, False):
        with atomic_write(tmp_path / "conf", fsync=wanted) as file:
            file.write("new")
    assert events == ["fsync file", "replace", "fsync folder", "replace"]


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_step_that_fails_leaves_the_old_file(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "conf"
    path.write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    refused(path, "Input/output error", errno.EIO)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["conf"]


KILLED = """
import fcntl, json, signal, sys
from sepelib.util.fs import atomic_write
folder, way = sys.argv[1:]
path = os.path.join(folder, "conf")
if way == "named":
    os.open = without_tmpfile(os.open)
OLD, NEW = "old" * 5000, "new" * 9000

def kill_at(number):
    left = number
    def step():
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def stepping(call):
        def stepped(*args, **kwargs):
            step()
            return call(*args, **kwargs)
        return stepped
    calls = "access close dup fchmod fchown fstat fsync link open readlink replace stat unlink"
    for name in calls.split():
        setattr(os, name, stepping(getattr(os, name)))
    fcntl.flock = stepping(fcntl.flock)
    return step

outcomes = []
status = 1
while status:
    with open(path, "w") as file:
        file.write(OLD)
    os.chmod(path, 0o604)
    pid = os.fork()
    if not pid:
        step = kill_at(len(outcomes))
        with atomic_write(path) as file:
            step()
            file.write(NEW[:20000])
            step()
            file.write(NEW[20000:])
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    with open(path) as file:
        found = file.read()
    outcomes.append({
        "found": "old" if found == OLD else "new" if found == NEW else found,
        "mode": os.stat(path).st_mode & 0o7777,
        "left": sorted(set(os.listdir(folder)) - {"conf"}),
    })
    with atomic_write(path) as file:
        file.write("next")
    assert os.listdir(folder) == ["conf"], os.listdir(folder)
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("way", ["nameless", "named"])
def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, way: str
) -> None:
    done = subprocess.run(
        script(NAMED, KILLED, args=(tmp_path, way)),
        stdout=subprocess.PIPE,
        timeout=LIMIT,
        check=True,
    )
    outcomes = json.loads(done.stdout)
    found = [outcome["found"] for outcome in outcomes]
    left = [outcome["left"] for outcome in outcomes]
    assert len(outcomes) > 25
    assert found == sorted(found, reverse=True)  # "old" until one moment, "new" ever after
    assert set(found) == {"old", "new"}
    assert {outcome["mode"] for outcome in outcomes} == {0o604}
    if way == "nameless":  # it has a name in one moment only: linked and not yet renamed
        assert [n for n in left if n] == [[".conf.0.sepelib-tmp"]]
    assert left[-1] == []


WRITER = """
import os, sys
from sepelib.util.fs import atomic_write
if sys.argv[2] == "named":
    os.open = without_tmpfile(os.open)
first = True
while True:
    for letter in sys.argv[3]:
        with atomic_write(sys.argv[1], fsync=False) as file:
            for _ in range(5):
                file.write(letter * 20000)
        if first:
            print("ready", flush=True)
            first = False
"""


@pytest.mark.parametrize("way", ["nameless", "named"])
def test_readers_see_whole_files_while_writers_compete_and_are_killed(
    tmp_path: Path, way: str
) -> None:
    path = tmp_path / "conf"
    seen = set()

    def look(times: int) -> None:
        for _ in range(times):
            text = path.read_text()
            assert text == text[0] * 100_000
            seen.add(text[0])

    for _ in range(3):
        with (
            child(NAMED, WRITER, args=(path, way, "ab")),
            child(NAMED, WRITER, args=(path, way, "cd")) as second,
        ):
            look(200)
            second.kill()
            look(50)
        look(1)
    assert len(seen) > 1
    with atomic_write(path) as file:
        file.write("last")
    assert names(tmp_path) == ["conf"]
    assert path.read_text() == "last"


def test_of_two_writers_the_later_to_finish_wins(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    with atomic_write(path) as slow:
        slow.write("slow")
        slow.flush()
        for text in ("quick", "quicker"):
            with atomic_write(path) as quick:
                quick.write(text)
            assert path.read_text() == text
    assert path.read_text() == "slow"
    assert names(tmp_path) == ["conf"]


def test_a_writer_about_to_rename_is_not_taken_for_dead(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "conf"
    replace = os.replace
    seen = []

    def overtaken(temp: str, name: str, **kwargs: Any) -> None:
        seen.append(temp)
        if len(seen) == 1:
            with atomic_write(path) as quick:
                quick.write("quick")
            assert path.read_text() == "quick"
        replace(temp, name, **kwargs)

    monkeypatch.setattr(os, "replace", overtaken)
    with atomic_write(path) as file:
        file.write("slow")
    assert path.read_text() == "slow"
    assert len(set(seen)) == 2
    assert names(tmp_path) == ["conf"]


def test_a_name_that_goes_from_a_dead_writer_to_a_living_one_is_not_swept(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / ".conf.0.sepelib-tmp"
    dead.touch()
    dead_inode = dead.stat().st_ino
    (tmp_path / "living").touch()
    flock = fcntl.flock

    def racing(fd: int, operation: int) -> None:
        if os.fstat(fd).st_ino == dead_inode and (tmp_path / "living").exists():
            (tmp_path / "living").replace(dead)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", racing)
    with dead.with_name("living").open() as living:
        flock(living, fcntl.LOCK_EX)
        with atomic_write(tmp_path / "conf") as file:
            file.write("new")
        assert names(tmp_path) == [dead.name, "conf"]
    with atomic_write(tmp_path / "conf") as file:
        file.write("new")
    assert names(tmp_path) == ["conf"]


def test_a_name_swept_before_its_writer_could_lock_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", without_tmpfile(os.open))
    flock = fcntl.flock
    races = 1

    def racing(fd: int, operation: int) -> None:
        nonlocal races
        if races:
            races -= 1
            for name in names(tmp_path):
                (tmp_path / name).unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", racing)
    with atomic_write(tmp_path / "conf") as file:
        file.write("new")
        assert len(names(tmp_path)) == 1
    assert races == 0
    assert (tmp_path / "conf").read_text() == "new"
    assert names(tmp_path) == ["conf"]


def test_a_leftover_with_a_high_number_goes_when_as_many_writers_meet_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", without_tmpfile(os.open))
    (tmp_path / ".conf.8.sepelib-tmp").touch()
    with ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(atomic_write(tmp_path / "conf", fsync=False))
    assert names(tmp_path) == ["conf"]


def test_more_writers_than_names_is_an_error_of_the_last_one(tmp_path: Path, way: str) -> None:
    path = tmp_path / "conf"
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(atomic_write(path, fsync=False))
        if way == "named":  # from the start, so each writer needs one
            refused(path, "100 temporary files", errno.EEXIST)
        else:
            stack.enter_context(atomic_write(path, fsync=False))
    assert names(tmp_path) == ["conf"]


# FileLock

HOLDER = """
import sys
from sepelib.util.fs import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("ready", flush=True)
sys.stdin.read()
lock.release()
"""


def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child(HOLDER, args=(path,)) as holder:
        with pytest.raises(FileLockTimeout) as e:
            FileLock(path, timeout=0.05).acquire()
        assert str(e.value).endswith(f"lock: not locked within {e.value.waited:.1f} s,"
                                     f" held by pid {holder.pid}")  # fmt: skip
        assert e.value.waited >= 0.05

        ticks = 0

        def tick() -> None:
            nonlocal ticks
            for _ in range(20):
                time.sleep(0.001)
                ticks += 1
            assert holder.stdin is not None
            holder.stdin.close()

        thread = threading.Thread(target=tick)  # a greenlet, in the patched world
        thread.start()
        with FileLock(path, timeout=LIMIT) as lock:
            assert lock.held
            assert path.read_text() == f"{os.getpid()}\n"
        thread.join()
        assert ticks == 20
        assert holder.wait(LIMIT) == 0
        holder.stdin = None
    assert not lock.held
    assert path.read_text() == ""


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with child(HOLDER, args=(tmp_path / "lock",)) as holder:
        holder.kill()
        with FileLock(tmp_path / "lock", timeout=LIMIT) as lock:
            assert lock.held


@pytest.mark.parametrize("shared", [True, False])
def test_threads_and_greenlets_of_one_process_exclude_each_other(
    tmp_path: Path, shared: bool
) -> None:
    path = tmp_path / "lock"
    one = FileLock(path, timeout=LIMIT)
    inside = most = done = 0

    def work() -> None:
        nonlocal inside, most, done
        lock = one if shared else FileLock(path, timeout=LIMIT)
        for _ in range(10):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                done += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert (most, done, inside) == (1, 40, 0)


def test_asking_again_for_what_one_holds_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", timeout=LIMIT)
    with lock:
        with pytest.raises(RuntimeError, match="this thread or greenlet has locked it already"):
            lock.acquire()
        assert lock.held
        with pytest.raises(FileLockTimeout, match="held by this process, pid"):
            FileLock(tmp_path / "lock").acquire(timeout=0)
    with pytest.raises(RuntimeError, match="nothing to release"):
        lock.release()
    with lock:  # and again
        assert lock.held


HOLDER_FORKED_IN_C = """
import ctypes, os, sys
from sepelib.util.fs import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
if not ctypes.PyDLL(None).fork():       # without Python's fork handlers
    os.read(0, 1)
    os._exit(0)
lock.release()
print("ready", flush=True)
os.wait()
"""


def test_a_child_forked_by_foreign_code_does_not_keep_a_released_lock(tmp_path: Path) -> None:
    with child(HOLDER_FORKED_IN_C, args=(tmp_path / "lock",)), FileLock(tmp_path / "lock", 0):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


HOLDER_WITH_HEIR = """
import os, subprocess, sys, time
from sepelib.util.fs import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
if sys.argv[2] == "program":
    heir = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input(); print('done')"],
        close_fds=False,
    )
elif not (heir := os.fork()):
    assert not lock.held
    lock.release()                      # of no effect: it is the parent's
    try:
        FileLock(sys.argv[1]).acquire(timeout=0)
    except TimeoutError:
        print("ready", flush=True)      # so the parent still has it
    input()
    lock.acquire()                      # the copy starts anew
    lock.release()
    print("done", flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("heir", ["program", "fork"])
def test_a_child_neither_lets_the_lock_go_nor_keeps_it_alive(tmp_path: Path, heir: str) -> None:
    with child(HOLDER_WITH_HEIR, args=(tmp_path / "lock", heir)) as holder:
        with pytest.raises(FileLockTimeout, match=f"held by pid {holder.pid}"):
            FileLock(tmp_path / "lock").acquire(timeout=0)
        os.kill(holder.pid, signal.SIGKILL)
        with FileLock(tmp_path / "lock", timeout=LIMIT) as lock:
            assert lock.held
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("\n")  # the heir is alive
        holder.stdin.flush()
        assert holder.stdout.readline() == "done\n"


def test_who_waits_notices_that_the_file_was_deleted_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for tamper in (path.unlink, lambda: (tmp_path / "other").replace(path)):
        (tmp_path / "other").touch()
        tries = 0

        def sleep(seconds: float, tamper: Callable[[], object] = tamper) -> None:
            nonlocal tries
            tries += 1
            tamper()

        with FileLock(path), FileLock(path, sleep=sleep) as second:
            assert second.held
            assert tries == 1
            with pytest.raises(FileLockTimeout):
                FileLock(path).acquire(timeout=0)


def test_a_file_replaced_between_opening_and_locking_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    flock = fcntl.flock

    def replace() -> None:
        path.unlink()
        path.touch()

    races = [path.unlink, replace]

    def racing(fd: int, operation: int) -> None:
        if races:
            races.pop()()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", racing)
    with FileLock(path):
        assert not races
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(FileLockTimeout):
            FileLock(path).acquire(timeout=0)


def test_the_current_deadline_clips_the_wait(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"):
        start = time.monotonic()
        with deadline(0.05), pytest.raises(FileLockTimeout):
            FileLock(tmp_path / "lock", timeout=LIMIT).acquire()
        assert time.monotonic() - start < LIMIT / 2
        with deadline(0.0), pytest.raises(DeadlineExceeded):
            FileLock(tmp_path / "lock2").acquire()
    assert names(tmp_path) == ["lock"]


def test_pauses_grow_with_jitter_to_a_tenth_of_a_second_and_end_on_time(tmp_path: Path) -> None:
    now = 100.0
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    lock = FileLock(tmp_path / "lock", 2.0, clock=lambda: now, sleep=sleep, rng=random.Random(1))
    with FileLock(tmp_path / "lock"), pytest.raises(FileLockTimeout) as e:
        lock.acquire()
    assert now == pytest.approx(102.0)
    assert e.value.waited == pytest.approx(2.0)
    for number, pause in enumerate(pauses[:-1]):
        longest = min(0.001 * 2**number, 0.1)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == len(pauses)


def test_no_timeout_waits_as_long_as_it_takes(tmp_path: Path) -> None:
    held = FileLock(tmp_path / "lock")
    held.acquire()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1000:
            held.release()

    with FileLock(tmp_path / "lock", None, sleep=sleep) as lock:
        assert lock.held
        assert len(pauses) == 1000


def test_a_cancelled_wait_leaves_nothing_behind(tmp_path: Path) -> None:
    def sleep(seconds: float) -> None:
        raise Cancelled

    with FileLock(tmp_path / "lock"):
        descriptors = os.listdir("/proc/self/fd")
        lock = FileLock(tmp_path / "lock", sleep=sleep)
        with pytest.raises(Cancelled):
            lock.acquire()
        assert os.listdir("/proc/self/fd") == descriptors
        assert not lock.held
    with lock:
        assert lock.held


def test_a_file_with_data_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{}")
    with pytest.raises(
        ValueError, match=r"a lock needs a file of its own, say .*state\.json\.lock"
    ):
        FileLock(path).acquire()
    assert path.read_text() == "{}"
    path.write_text("4711\n")  # a killed holder's
    with FileLock(path, timeout=0):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_symbolic_link_cannot_lead_us_to_write_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("victim")
    with pytest.raises(OSError, match="lock"):
        FileLock(tmp_path / "lock").acquire()
    assert names(tmp_path) == ["lock"]


def test_a_lock_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none/lock"):
        FileLock(tmp_path / "none" / "lock").acquire()
    with pytest.raises(ValueError, match="timeout"):
        FileLock(tmp_path / "lock", timeout=-1)


def test_the_timeout_error_is_pickled_and_copied_with_its_fields() -> None:
    error = FileLockTimeout("/run/x.lock", 1.25, 4711)
    assert isinstance(error, TimeoutError)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is FileLockTimeout
        assert str(twin) == "/run/x.lock: not locked within 1.2 s, held by pid 4711"
        assert (twin.path, twin.waited, twin.holder) == ("/run/x.lock", 1.25, 4711)
    assert str(FileLockTimeout("x", 1.0)) == "x: not locked within 1.0 s"


def test_importing_registers_and_opens_nothing() -> None:
    body = """
import os
before = os.listdir("/proc/self/fd")
os.register_at_fork = lambda **hooks: exit(1)
import sepelib.util.fs
assert os.listdir("/proc/self/fd") == before
"""
    subprocess.run(script(body), check=True, timeout=LIMIT)
