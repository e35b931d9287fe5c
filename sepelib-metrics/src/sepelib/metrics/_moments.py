"""Count, sum, least, greatest and spread of many values, which can be put together.

Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances" (1979): stable, where a sum of squares is not.
"""

from __future__ import annotations

import math
import sys

__all__ = ["NOTHING", "Moments", "moments_of", "stddev", "together"]

Moments = tuple[int, float, float, float, float]
"""Count, sum, least, greatest, sum of squared distances from the mean."""

NOTHING: Moments = (0, 0.0, math.inf, -math.inf, 0.0)

_MAX = sys.float_info.max


def moments_of(values: list[float], total: float, low: float, high: float) -> Moments:
    """*total*, *low*, *high*: sum(values), min(values) and max(values), all of them finite."""
    n = len(values)
    if 0 < 2 * low < high < 1e100:
        # So far apart, the sum of squares loses three digits of sixteen; it takes half the time.
        size = math.hypot(*values)
        return n, total, low, high, size * size - total * total / n
    distance = math.dist(values, [total / n] * n)
    return n, total, low, high, min(distance * distance, _MAX)


def together(a: Moments, b: Moments) -> Moments:
    if not a[0]:
        return b
    if not b[0]:
        return a
    n = a[0] + b[0]
    apart = b[1] / b[0] - a[1] / a[0]
    spread = a[4] + b[4] + apart * apart * (a[0] * b[0] / n)
    return n, finite(a[1] + b[1]), min(a[2], b[2]), max(a[3], b[3]), min(spread, _MAX)


def finite(total: float) -> float:
    """A sum that grew beyond all floats stays at the largest."""
    return max(-_MAX, min(total, _MAX))


def stddev(moments: Moments) -> float:
    """Of the population; *moments* are of one value at least."""
    return math.sqrt(moments[4] / moments[0])
