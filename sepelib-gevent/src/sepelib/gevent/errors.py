"""What goes wrong with green threads themselves, as opposed to in what they run.

Error
└── GreenThreadError
    ├── GreenThreadMisused      a call that cannot work here       (LogicalError, RuntimeError)
    ├── NotPatched              `monkey.patch_all()` was forgotten (LogicalError, RuntimeError)
    ├── NotFinished             `result()` waited long enough      (TimeoutError)
    └── LostInFork              it stayed in the parent process
"""

from __future__ import annotations

from sepelib.core.exceptions import Error, LogicalError

__all__ = ["GreenThreadError", "GreenThreadMisused", "LostInFork", "NotFinished", "NotPatched"]


class GreenThreadError(Error):
    """Root of the errors of sepelib.gevent."""


class GreenThreadMisused(GreenThreadError, LogicalError, RuntimeError):
    """A call on *thread* (or a group, or a service) that cannot work here; nothing has changed.

    A RuntimeError, as `threading.Thread` raises for a second `start()`.
    """

    def __init__(self, thread: str, problem: str) -> None:
        super().__init__(thread, problem)
        self.thread = thread
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.thread}: {self.problem}"


class NotPatched(GreenThreadError, LogicalError, RuntimeError):
    """*modules* of the standard library block the hub: gevent has not patched them."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        super().__init__(modules)
        self.modules = modules

    def __str__(self) -> str:
        return (
            f"gevent has not patched {', '.join(self.modules)}: the first line of the program "
            "has to be `from gevent import monkey; monkey.patch_all()`"
        )


class NotFinished(GreenThreadError, TimeoutError):
    """*thread* was still running after *waited* seconds in `result()`; it runs on."""

    def __init__(self, thread: str, waited: float) -> None:
        super().__init__(f"{thread}: no result within {waited:.3g} s")
        self.thread = thread
        self.waited = waited

    def __reduce__(self) -> tuple[type[NotFinished], tuple[str, float]]:
        return type(self), (self.thread, self.waited)


class LostInFork(GreenThreadError):
    """*thread* did not come along into this process, which was forked while it ran."""

    def __init__(self, thread: str) -> None:
        super().__init__(thread)
        self.thread = thread

    def __str__(self) -> str:
        return f"{self.thread}: runs in the parent process, not in this forked one"
