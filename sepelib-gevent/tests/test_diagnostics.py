import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import gevent
import pytest
from gevent.monkey import is_module_patched

from sepelib.gevent import (
    GreenThread,
    GreenThreads,
    NotPatched,
    check_patched,
    dump_stacks,
    install_log_names,
    periodic,
)
from sepelib.gevent.testing import no_green_threads_left

LIMIT = 20.0  # seconds; far more than anything here takes


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_green_threads_left():
        yield


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forgotten_patch_is_told_loudly() -> None:
    code = (
        "import sepelib.gevent as g\n"
        "try: g.check_patched()\n"
        "except g.NotPatched as e: print(e.modules); print(e)\n"
    )
    fields, line = python(code).splitlines()
    assert fields == "('socket', 'ssl', 'thread', 'subprocess')"
    assert "has not patched socket, ssl, thread, subprocess: the first line" in line


def test_what_was_patched_passes_and_what_was_left_out_is_named() -> None:
    everything = "from gevent import monkey; monkey.patch_all(); import sepelib.gevent as g;"
    assert python(f"{everything} g.check_patched(); g.check_patched(['queue', 'time'])") == ""
    code = (
        "from gevent import monkey; monkey.patch_all(ssl=False); import sepelib.gevent as g\n"
        "try: g.check_patched()\n"
        "except g.NotPatched as e: print(e.modules)\n"
    )
    assert python(code) == "('ssl',)\n"


def test_this_process_is_known_for_what_it_is() -> None:
    if is_module_patched("socket"):
        check_patched()
    else:
        with pytest.raises(NotPatched):
            check_patched(["socket"])


def test_log_records_carry_the_name_of_the_green_thread(caplog: pytest.LogCaptureFixture) -> None:
    def logs() -> None:
        logging.getLogger("test").warning("hello")

    undo = install_log_names()
    try:
        for name in ("one", "two"):
            GreenThread(logs, name).start()
        gevent.sleep(0)
        logs()
        thread = GreenThread(lambda: 1 / 0, "bad")
        thread.start()
        thread.join(LIMIT)
    finally:
        undo()
    GreenThread(logs, "three").start()
    gevent.sleep(0)

    names = [record.threadName for record in caplog.records]
    plain = threading.current_thread().name
    assert names[:4] == ["one", "two", plain, "bad"]
    assert names[4] != "three"


def test_undoing_log_names_keeps_what_was_installed_since() -> None:
    before = logging.getLogRecordFactory()
    undo = install_log_names()
    later = lambda *args, **kwargs: before(*args, **kwargs)  # noqa: E731
    logging.setLogRecordFactory(later)
    try:
        undo()
        assert logging.getLogRecordFactory() is later
    finally:
        logging.setLogRecordFactory(before)


def sleeps_here() -> None:
    gevent.sleep(LIMIT)


def test_the_dump_shows_name_age_place_and_stack_and_no_locals() -> None:
    secret = GreenThread(sleeps_here, "reader")
    secret.start()
    threads = GreenThreads()
    threads.add(periodic(sleeps_here, 10.0, name="beat", daemon=True))
    threads.start()
    secret.request_stop()
    gevent.sleep(0)

    text = dump_stacks()
    here = f"{__file__}:"
    lines = text.splitlines()
    (reader,) = [line for line in lines if line.startswith("reader: ")]
    (beat,) = [line for line in lines if line.startswith("beat: ")]
    assert re.match(r"reader: \d+\.\d s, asked to stop, ", reader) and here in reader
    assert reader.endswith("in test_the_dump_shows_name_age_place_and_stack_and_no_locals")
    assert " s, daemon, " in beat and here in beat  # not a place in our own files
    assert '<Greenlet "reader"' in text and "in sleeps_here" in text

    assert threads.stop(timeout=0.0) and secret.kill()
    assert not [line for line in dump_stacks().splitlines() if line.startswith("reader: ")]


def test_the_dump_shows_native_threads() -> None:
    from gevent.threadpool import ThreadPool

    pool = ThreadPool(1)
    try:
        pool.spawn(int).get(timeout=LIMIT)
        assert "# native thread" in dump_stacks()
    finally:
        pool.kill()
