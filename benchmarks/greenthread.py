"""A thread that does nothing, started and joined: what each kind costs beside its work.

The patched `threading.Thread` needs a patched process, so all of them run in one child that gevent
patched, which answers over its stdin and stdout how long a number of turns took.
"""

import atexit
import subprocess
import sys

from benchmarks.runner import Comparison, Goal, Variant

CHILD = """
from gevent import monkey; monkey.patch_all()
import sys, threading
import gevent
from sepelib.gevent import GreenThread

def once(kind):
    thread = kind(target=int)
    thread.start()
    thread.join()

def bare(target):
    return gevent.Greenlet(target)

KINDS = {"GreenThread": GreenThread, "Greenlet": bare, "Thread": threading.Thread}
for line in sys.stdin:
    for _ in range(500):
        once(KINDS[line.strip()])
    print("done", flush=True)
"""


def comparisons() -> list[Comparison]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(child.communicate)  # closes its stdin, which ends it

    def five_hundred(kind: str) -> Variant:
        def ask() -> object:
            assert child.stdin is not None and child.stdout is not None
            print(kind, file=child.stdin, flush=True)
            return child.stdout.readline()

        return ask

    return [
        Comparison(
            "greenthread: 500 times start and join, in a patched process",
            five_hundred("GreenThread"),
            {
                "gevent.Greenlet": five_hundred("Greenlet"),
                "threading.Thread": five_hundred("Thread"),
            },
            goals=[Goal("threading.Thread", 1.0)],
        )
    ]
