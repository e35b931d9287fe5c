"""The numbers, written out once more."""

from sepelib.core import constants


def test_durations_are_seconds_and_sizes_are_bytes() -> None:
    assert {name: getattr(constants, name) for name in constants.__all__} == {
        "SECOND_SECONDS": 1,
        "MINUTE_SECONDS": 60,
        "HOUR_SECONDS": 3_600,
        "DAY_SECONDS": 86_400,
        "WEEK_SECONDS": 604_800,
        "KILOBYTE": 1_024,
        "MEGABYTE": 1_048_576,
        "GIGABYTE": 1_073_741_824,
        "NETWORK_TIMEOUT": 10.0,
        "CONNECT_TIMEOUT": 3.0,
    }
