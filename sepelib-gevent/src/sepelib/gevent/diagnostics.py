"""What a running process can say about itself: was it patched, who logs, where is everybody."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from gevent.monkey import get_original, is_module_patched
from gevent.util import GreenletTree
from sepelib.gevent.errors import NotPatched
from sepelib.gevent.greenthread import GreenThread

_HERE = os.path.dirname(__file__) + os.sep

__all__ = ["check_patched", "dump_stacks", "install_log_names"]


def check_patched(modules: Sequence[str] = ("socket", "ssl", "thread", "subprocess")) -> None:
    """Raise NotPatched unless gevent has patched all of *modules*, named as in `patch_all()`.

    For the first lines of `main()`: without the patches all works, one request at a time.
    """
    names = {"thread": "_thread"}
    missing = [name for name in modules if not is_module_patched(names.get(name, name))]
    if missing:
        raise NotPatched(tuple(missing))


def install_log_names() -> Callable[[], None]:
    """Let `%(threadName)s` be the name of the GreenThread that logs; the result undoes it.

    In any other greenlet it stays what it was, `Dummy-7` or `MainThread`, and so does
    `threading.current_thread().name` everywhere. Wraps the process's log record factory.
    """
    inner = logging.getLogRecordFactory()

    def named(*args: object, **kwargs: object) -> logging.LogRecord:
        record: logging.LogRecord = inner(*args, **kwargs)
        thread = GreenThread.current()
        if thread is not None:
            record.threadName = thread.name
        return record

    def undo() -> None:
        # Another one that has been put around ours since must not be lost.
        if logging.getLogRecordFactory() is named:
            logging.setLogRecordFactory(inner)

    logging.setLogRecordFactory(named)
    return undo


def dump_stacks() -> str:
    """Where everybody is: green threads with age and place of start, greenlets, native threads.

    Many lines, for a developer's eyes: names, files and lines, no locals; bare greenlets show their
    arguments. Does not wait, so a signal handler may call it (`run_service` does at SIGUSR2).
    """
    lines = ["# green threads: name, age, where it was started"]
    for thread in GreenThread.all_alive():
        kind = ", daemon" if thread.daemon else ""
        asked = ", asked to stop" if thread.stopping else ""
        lines.append(f"{thread.name}: {thread.age:.1f} s{kind}{asked}, {_spawned_at(thread)}")
    lines.append("# greenlets")
    for tree in GreenletTree.forest():
        lines += tree.format_lines(details={"locals": False})
    mine = get_original("_thread", "get_ident")()
    for ident, frame in sys._current_frames().items():
        if ident != mine:  # among the greenlets already
            lines.append(f"# native thread {ident}")
            lines += "".join(traceback.format_stack(frame)).splitlines()
    return "\n".join(lines) + "\n"


def _spawned_at(thread: GreenThread) -> str:
    frame = getattr(thread.greenlet, "spawning_stack", None)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    if frame is None:
        return "place unknown: gevent keeps no spawning stack"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
