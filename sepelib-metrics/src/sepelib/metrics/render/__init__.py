"""A registry as a document, in five formats.

| format | for | content type |
|---|---|---|
| `prometheus` | scrapers | text/plain; version=0.0.4 |
| `openmetrics` | scrapers that ask for it | application/openmetrics-text; version=1.0.0 |
| `json` | programs, the page of a browser | application/json |
| `yaml` | people | application/yaml |
| `yasm` | the collector of that name, also called unistat | application/json |

A document is made outside of any lock, so each value is that of a moment of its own while it is
made; the figures of one histogram are of one moment. A format is imported at its first dump.
"""

from __future__ import annotations

import time
from importlib import import_module

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from sepelib.metrics.registry import Registry

__all__ = ["FORMATS", "dump"]

FORMATS = {
    "json": "_json",
    "openmetrics": "openmetrics",
    "prometheus": "prometheus",
    "yaml": "_yaml",
    "yasm": "_yasm",
}
"""The module of each format: it has `render(registry) -> bytes` and `CONTENT_TYPE`."""


def dump(registry: Registry, fmt: str) -> tuple[bytes, str]:
    """*registry* as a document, and its content type; ValueError for an unknown format.

    How long it took is observed in `metrics_dump_seconds` (format), so the next dump has that.
    """
    if fmt not in FORMATS:
        raise ValueError(f"{fmt!r} is no format of metrics; there are: {', '.join(FORMATS)}")
    module = import_module(f"{__name__}.{FORMATS[fmt]}")
    start = time.perf_counter()
    body: bytes = module.render(registry)
    _observe(registry, fmt, time.perf_counter() - start)
    return body, module.CONTENT_TYPE


def _observe(registry: Registry, fmt: str, seconds: float) -> None:
    try:
        family = registry.histogram(
            "metrics_dump_seconds", "How long a document of metrics took.", ("format",)
        )
    except ValueError:
        return  # the program has something else of that name
    family.labels(fmt).observe(seconds)
