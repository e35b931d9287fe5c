"""Counters, gauges, percentiles and rates in a registry that renders them.

    from sepelib import metrics

    requests = metrics.counter("requests", "Answered.", labels=("method",))
    seconds = metrics.histogram("request_seconds", "Until the answer.")

    gets = requests.labels("GET")       # keep it: looking it up per call costs more

    with seconds.time():
        gets.inc()
    body, content_type = metrics.default_registry.dump("prometheus")

An update takes no lock that another thread or greenlet could be stuck on: all of it may be used in
native threads, greenlets, gevent's threadpool, signal handlers and finalizers, and counts exactly.
"""

from __future__ import annotations

from sepelib.metrics._histogram import Histogram
from sepelib.metrics._meter import Meter
from sepelib.metrics._series import OVERFLOW, Family
from sepelib.metrics.counters import Counter, Gauge
from sepelib.metrics.registry import Registry, default_registry

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = [
    "OVERFLOW",
    "Counter",
    "Family",
    "Gauge",
    "Histogram",
    "Meter",
    "Registry",
    "counter",
    "default_registry",
    "gauge",
    "histogram",
    "merge",
    "meter",
]


def merge(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A snapshot as if one registry had seen everything: all values are sums, gauges' too.

    Histograms are merged by their buckets: quantiles are as good as those of one, and the coarser
    error holds. Of the labels of the registries those stay that are the same in all. *snapshots*
    may come from JSON. ValueError when one name is two kinds of metric.
    """
    from sepelib.metrics._merge import merge

    return merge(snapshots)


def counter(
    name: str,
    help: str = "",
    labels: Sequence[str] = (),
    *,
    registry: Registry | None = None,
    **options: Any,
) -> Counter:
    """`Registry.counter()` of *registry*, or of `default_registry`."""
    return (registry or default_registry).counter(name, help, labels, **options)


def gauge(
    name: str,
    help: str = "",
    labels: Sequence[str] = (),
    *,
    registry: Registry | None = None,
    **options: Any,
) -> Gauge:
    """`Registry.gauge()` of *registry*, or of `default_registry`."""
    return (registry or default_registry).gauge(name, help, labels, **options)


def meter(
    name: str,
    help: str = "",
    labels: Sequence[str] = (),
    *,
    registry: Registry | None = None,
    **options: Any,
) -> Meter:
    """`Registry.meter()` of *registry*, or of `default_registry`."""
    return (registry or default_registry).meter(name, help, labels, **options)


def histogram(
    name: str,
    help: str = "",
    labels: Sequence[str] = (),
    *,
    registry: Registry | None = None,
    **options: Any,
) -> Histogram:
    """`Registry.histogram()` of *registry*, or of `default_registry`."""
    return (registry or default_registry).histogram(name, help, labels, **options)
