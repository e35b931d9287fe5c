"""End a tree of a hundred processes: until all are dead, and what waiting costs the processor.

The peer is the recipe "kill process tree" of psutil's documentation. Each call starts its tree
first, so that time is in all variants; "start it, SIGKILL to its group" is mostly that. psutil
waits until a pid is gone, so in the first comparison, where the leader dies before its children,
also for pid 1 to reap them; in the second one the leader does.

    python -m benchmarks.terminate     # the ending alone: seconds, and processor time
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from benchmarks.runner import Comparison, Goal, human
from sepelib.subprocess import terminate

WORKERS = 99
SHELL = ["sh", "-c"]
LEADER_FIRST = [
    *SHELL,
    f"i=0; while [ $i -lt {WORKERS} ]; do sleep 1000 & i=$((i+1)); done; echo up; wait",
]
LEADER_LAST = [
    *(sys.executable, "-I", "-S", "-c"),
    f"""if True:
        import os, signal
        workers = []
        for _ in range({WORKERS}):
            if pid := os.fork():
                workers.append(pid)
            else:
                signal.pause()
        def stop(*_):
            for pid in workers:
                os.kill(pid, signal.SIGTERM)
            for pid in workers:
                os.waitpid(pid, 0)
            os._exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("up", flush=True)
        while True:
            signal.pause()
    """,
]
SLOW = [*SHELL, "trap 'sleep 2; exit 0' TERM; echo up; while :; do sleep 0.01; done"]

End = Callable[["subprocess.Popen[bytes]"], object]


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    popen = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert popen.stdout is not None
    assert popen.stdout.readline() == b"up\n"
    popen.stdout.close()
    return popen


def ours(popen: "subprocess.Popen[bytes]") -> None:
    ended = terminate(popen, 30.0)
    assert not ended.survivors and not ended.killed


def recipe(popen: "subprocess.Popen[bytes]") -> None:
    parent = psutil.Process(popen.pid)
    children = parent.children(recursive=True)
    children.append(parent)
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(children, timeout=30.0)
    assert not alive
    popen.wait()


def group(popen: "subprocess.Popen[bytes]") -> None:
    os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()


def comparisons() -> list[Comparison]:
    def each(end: End, command: list[str]) -> Callable[[], object]:
        return lambda: end(start(command))

    return [
        Comparison(
            f"terminate: a tree of {WORKERS + 1}, {what}",
            each(ours, command),
            {
                "psutil's recipe": each(recipe, command),
                "start it, SIGKILL to its group": each(group, command),
            },
            goals=[Goal("psutil's recipe", goal)],
        )
        for what, command, goal in [
            ("the leader dies first", LEADER_FIRST, 1.0),
            ("the leader stops its workers", LEADER_LAST, 1.1),
        ]
    ]


def report(rounds: int = 7) -> None:
    """Wall and processor time of this process for the ending alone, medians."""
    for what, command in [
        ("the leader dies first", LEADER_FIRST),
        ("the leader stops its workers", LEADER_LAST),
        ("one process that takes 2 s", SLOW),
    ]:
        print(what)
        for name, end in [("sepelib", ours), ("psutil's recipe", recipe)]:
            figures = []
            for _ in range(rounds):
                popen = start(command)
                wall, processor = time.perf_counter(), time.process_time()
                end(popen)
                figures.append((time.perf_counter() - wall, time.process_time() - processor))
            walls, processors = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"  {name:<18}{human(walls):>10} until dead{human(processors):>10} of processor")


if __name__ == "__main__":
    report()
