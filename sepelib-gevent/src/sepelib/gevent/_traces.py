"""Tracebacks and stacks, as a green thread needs them."""

from __future__ import annotations

from types import FrameType, TracebackType
from typing import Any

__all__ = ["forget_locals", "format_greenlet", "without_frames_of"]


def without_frames_of(path: str, traceback: TracebackType | None) -> TracebackType | None:
    """*traceback* without its first frames that are in the file *path*, if others follow."""
    inner = traceback
    while inner is not None and inner.tb_frame.f_code.co_filename == path:
        inner = inner.tb_next
    return inner


def forget_locals(error: BaseException) -> None:
    """Free what the finished frames of *error*, its causes and contexts hold; lines stay.

    The locals of `run()` hold the thread, which holds the error: a circle that only the garbage
    collector would free, with sockets and buffers in it.
    """
    import traceback

    left, seen = [error], set[int]()
    while left:
        error = left.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        left += [e for e in (error.__cause__, error.__context__) if e is not None]
        if isinstance(error, BaseExceptionGroup):
            left += error.exceptions


def format_greenlet(greenlet: Any) -> str:
    """The stack of a suspended greenlet, the innermost call last; one line when there is none."""
    import traceback

    frame: FrameType | None = greenlet.gr_frame
    if frame is None:
        return "  (no stack: it runs right now, or has not begun)\n"
    return "".join(traceback.format_stack(frame))
