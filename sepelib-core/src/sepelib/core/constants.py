"""Durations in seconds, sizes in bytes, and how long to wait for a network."""

from typing import Final

__all__ = [
    "CONNECT_TIMEOUT",
    "DAY_SECONDS",
    "GIGABYTE",
    "HOUR_SECONDS",
    "KILOBYTE",
    "MEGABYTE",
    "MINUTE_SECONDS",
    "NETWORK_TIMEOUT",
    "SECOND_SECONDS",
    "WEEK_SECONDS",
]

SECOND_SECONDS: Final = 1
MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 60 * 60
DAY_SECONDS: Final = 24 * 60 * 60
WEEK_SECONDS: Final = 7 * 24 * 60 * 60

KILOBYTE: Final = 1024
MEGABYTE: Final = 1024**2
GIGABYTE: Final = 1024**3

NETWORK_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 3.0
