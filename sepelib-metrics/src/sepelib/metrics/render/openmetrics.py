"""The text format of OpenMetrics 1.0, which differs from Prometheus' older one in a few words.

The family of a counter is named without `_total`; `# UNIT` is told where a name ends with the unit,
as the format demands; the end is marked. A histogram that may hold negative values, by its edges or
by its sum, has neither sum nor count, since a sum is a counter there.

Source: "OpenMetrics 1.0", prometheus.io/docs/specs.
"""

from __future__ import annotations

from sepelib.metrics.render._exposition import exposition

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from sepelib.metrics.registry import Registry

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(registry: Registry) -> bytes:
    return exposition(registry, openmetrics=True)
