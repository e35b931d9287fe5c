"""A component which is not on this machine fails a test, since a skip would look like a pass."""

from __future__ import annotations

import os
from typing import NoReturn

__all__ = ["MissingComponent", "missing"]


class MissingComponent(RuntimeError):
    """A test needs *component*; installing *package* brings it."""

    def __init__(self, component: str, package: str) -> None:
        super().__init__(component, package)
        self.component = component
        self.package = package

    def __str__(self) -> str:
        return (
            f"{self.component} is not installed: apt-get install {self.package} "
            "(SEPELIB_MISSING=skip skips what needs it)"
        )


def missing(component: str, package: str) -> NoReturn:
    """Raise MissingComponent, or `unittest.SkipTest` when SEPELIB_MISSING is "skip".

    *package* is one Debian package or several. pytest knows SkipTest as a skip. This is the one
    place that reads the variable.
    """
    error = MissingComponent(component, package)
    if os.environ.get("SEPELIB_MISSING") == "skip":
        import unittest  # heavy, and rarely needed

        raise unittest.SkipTest(f"{component} is not installed: apt-get install {package}")
    raise error
