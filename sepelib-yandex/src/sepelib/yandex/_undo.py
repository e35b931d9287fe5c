"""What a block has changed for its time is put back in its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sepelib.util.deadline import detached

__all__ = ["undone"]


@contextmanager
def undone(undo: Callable[[], object], log: logging.Logger, left: str) -> Iterator[None]:
    """Call *undo* however the block ends, a kill included, and whatever deadline is over.

    Its error is raised if the block has come to its end; else it is logged, after *left*, what
    stays then. So is a second kill, which ends *undo* itself and is raised.
    """
    done = False
    try:
        yield
        done = True
    finally:
        try:
            with detached():
                undo()
        except Exception as error:
            if done:
                raise
            log.error("%s: %s", left, error)
        except BaseException as error:
            log.error("%s: %s while that was undone", left, type(error).__name__)
            raise
