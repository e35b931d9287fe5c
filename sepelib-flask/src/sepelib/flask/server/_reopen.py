"""Log files that were renamed away are opened anew, and no line is lost on the way."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterator
from typing import NamedTuple

from sepelib.util.exceptions import format_exception

__all__ = ["Reopened", "reopen_logs"]

log = logging.getLogger(__name__)


class Reopened(NamedTuple):
    """The files that were opened anew, and those that could not be, with the reason."""

    files: list[str]
    failures: dict[str, str]


def reopen_logs() -> Reopened:
    """Open the file of each FileHandler anew that a logger has, also inside of MemoryHandlers.

    Lines that are written meanwhile wait, and go to the new file. When that cannot be opened, the
    old one stays in use. Waits for the disk: call it in a greenlet, not in a signal handler.
    """
    done = Reopened([], {})
    for handler in _file_handlers():
        try:
            if _reopen(handler):
                done.files.append(handler.baseFilename)
        except OSError as error:
            done.failures[handler.baseFilename] = format_exception(error)
    for name, reason in done.failures.items():
        log.error("%s could not be reopened: %s", name, reason)
    log.info("%d log files reopened", len(done.files))
    return done


def _file_handlers() -> Iterator[logging.FileHandler]:
    loggers: list[object] = [logging.root, *list(logging.root.manager.loggerDict.values())]
    found = [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in list(logger.handlers)
    ]
    seen: set[int] = set()
    while found:
        handler = found.pop(0)
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        if isinstance(handler, logging.FileHandler):
            yield handler
        if isinstance(handler, logging.handlers.MemoryHandler) and handler.target is not None:
            found.append(handler.target)


def _reopen(handler: logging.FileHandler) -> bool:
    """False for a handler that has not opened its file yet, or was closed."""
    handler.acquire()
    try:
        old = handler.stream
        if old is None:  # delay=True
            return False
        # Opened before the old one is given up: else a full disk would leave us without any.
        handler.stream = handler._open()
        if isinstance(handler, logging.handlers.WatchedFileHandler):
            handler._statstream()
    finally:
        handler.release()
    # Written out here at the latest; an error of it concerns lines of before.
    old.close()
    return True
