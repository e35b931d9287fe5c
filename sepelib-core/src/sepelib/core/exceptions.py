"""The root of the error tree.

    Exception
    └── Error             the world failed: a file, a peer, a limit
        └── LogicalError  we failed: a bug in the calling program

Each distribution hangs one root of its own under one of these two.
"""

__all__ = ["Error", "LogicalError"]


class Error(Exception):
    """Something that the program asked for could not be done.

    `str()` is the first argument as it is: nothing is formatted, so a stray ``%`` is harmless.
    *details* are kept in `details` for logs and handlers. A subclass with fields passes them to
    ``super().__init__`` by position and makes its sentence in ``__str__``; then it pickles.
    """

    details: dict[str, object]

    def __init__(self, *args: object, **details: object) -> None:
        super().__init__(*args)
        self.details = details

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LogicalError(Error):
    """A bug in the calling program: a state that cannot be, a call out of order.

    Never retried and never turned into a client's mistake (a 4xx).
    """
