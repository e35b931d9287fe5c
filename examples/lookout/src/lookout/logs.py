"""Where the log goes: to stderr or to a file, as text or as JSON, and never a secret of ours."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from lookout.settings import LogSettings
from sepelib.core.config import Config, RedactingFilter
from sepelib.util import request_id

__all__ = ["JsonLines", "start_logging"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start_logging(settings: LogSettings, config: Config | None = None) -> None:
    """Once for the process. Raises OSError when the file cannot be written.

    The secrets of *config* are not logged; those of a reload neither.
    """
    handler: logging.Handler
    if settings.file is None:
        handler = logging.StreamHandler()
    else:
        handler = logging.FileHandler(settings.file, encoding="utf-8")
    handler.addFilter(request_id.add_to_record)
    if config is not None:
        handler.addFilter(RedactingFilter(config))
    handler.setFormatter(JsonLines() if settings.json else logging.Formatter(TEXT))
    logging.basicConfig(level=settings.level, handlers=[handler])
    # A retried probe is daily life here, and its result says how many tries it took.
    logging.getLogger("sepelib.util.retry").setLevel(logging.ERROR)
    # What a peer does wrong is the result of its probe, and told there.
    logging.getLogger("sepelib.rpc").setLevel(logging.CRITICAL)
    # Its DEBUG quotes paths and queries, tokens included.
    logging.getLogger("urllib3").setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        asked = getattr(record, "request_id", "-")
        if asked != "-":
            line["request_id"] = asked
        # The filter leaves the text alone where a secret was in it.
        trace = record.exc_text or (record.exc_info and self.formatException(record.exc_info))
        if trace:
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=False)
