"""What of kazoo's log is for operators."""

from __future__ import annotations

import logging
from typing import Any

from kazoo.loggingsupport import BLATHER

__all__ = ["QuietLogger"]


class QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """What kazoo says of each try is for DEBUG; what has passwords of sessions, for nobody."""

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if level > BLATHER:
            super().log(level, msg, *args, **kwargs)
