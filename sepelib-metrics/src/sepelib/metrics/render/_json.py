"""JSON: `Registry.snapshot()` without the buckets from which snapshots are merged.

Small, since the page of a browser asks for it every few seconds. What is no finite number is null.
"""

from __future__ import annotations

import json
import math

TYPE_CHECKING = False  # the real one costs 8 ms of import
if TYPE_CHECKING:
    from typing import Any

    from sepelib.metrics.registry import Registry

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "application/json"


def render(registry: Registry) -> bytes:
    snapshot = registry.snapshot(buckets=False)
    try:
        return _encoded(snapshot)
    except ValueError:
        return _encoded(_finite(snapshot))


def _encoded(document: object) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
