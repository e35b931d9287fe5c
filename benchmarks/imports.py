"""What importing a module costs over starting a bare interpreter. Goal of each: 15 ms."""

import pkgutil

import sepelib.util
from benchmarks.runner import Comparison, interpreter


def comparisons() -> list[Comparison]:
    names = [m.name for m in pkgutil.iter_modules(sepelib.util.__path__) if m.name[0] != "_"]
    return [
        Comparison(
            f"import sepelib.util.{name}",
            interpreter(f"import sepelib.util.{name}"),
            {"a bare interpreter": interpreter("pass")},
        )
        for name in names
        if name != "pytest_plugin"
    ]
