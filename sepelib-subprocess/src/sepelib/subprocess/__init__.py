"""terminate(): end a process and its whole tree, and tell the truth about it.

    ended = terminate(popen, timeout=10.0)                  # or a pid, or a psutil.Process
    done = run(["svn", "info", url], timeout=30.0)          # a deadline, a cap, no leftovers

The engine is `sepelib.util.processes`: it says who belongs to a tree, and wants Linux.

    OSError       ├─ ProcessSurvived   alive after SIGKILL: which, and in what state
                  ├─ ProcessTimeout    (a TimeoutError) not done in time, ended with its children
                  └─ ProgramNotFound   (a FileNotFoundError)
    RuntimeError  ├─ ProcessFailed     an exit status other than 0, when that was to be checked
                  └─ OutputTooLarge    more than the cap, ended with its children
"""

from sepelib.subprocess._run import CompletedText, ProcessFailed, run
from sepelib.subprocess._terminate import (
    PopenLike,
    ProcessSurvived,
    PsutilLike,
    Termination,
    terminate,
)
from sepelib.util.processes import Completed, OutputTooLarge, ProcessTimeout, ProgramNotFound

__all__ = [
    "Completed",
    "CompletedText",
    "OutputTooLarge",
    "PopenLike",
    "ProcessFailed",
    "ProcessSurvived",
    "ProcessTimeout",
    "ProgramNotFound",
    "PsutilLike",
    "Termination",
    "run",
    "terminate",
]
