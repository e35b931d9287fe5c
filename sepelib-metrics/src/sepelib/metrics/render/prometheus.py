"""The text format of Prometheus, version 0.0.4.

A counter or meter `jobs` is written as `jobs_total`, and a meter also as the gauge
`jobs_rate{window="1m"}` (and 5m, 15m), per second; `window_` where it has a label `window` of its
own. A histogram is written as cumulative buckets
since the start, of which `+Inf` equals the count; the edges are its `buckets`. The quantiles of its
window are not: they would cost more than all the rest and cannot be aggregated, which the scraper's
own can. JSON and YAML have them.

Source: "Exposition formats", prometheus.io/docs.
"""

from __future__ import annotations

from sepelib.metrics.render._exposition import exposition

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from sepelib.metrics.registry import Registry

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(registry: Registry) -> bytes:
    return exposition(registry, openmetrics=False)
