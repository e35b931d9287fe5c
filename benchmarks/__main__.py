"""Run the benchmarks: python -m benchmarks [--full | --smoke] [NAME...]

--full: enough rounds to quote, exit status 1 when a goal is missed.
--smoke: a few short rounds, which show that the benchmarks work and nothing else.
Results with the versions of all that took part are written to benchmarks/results/.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import benchmarks
from benchmarks.runner import Comparison, Result, measure

NOT_BENCHMARKS = {"runner", "__main__"}
SMOKE = {"rounds": 3, "sample": 0.002}
FULL = {"rounds": 41, "sample": 0.02}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="enough rounds to quote (default)")
    how.add_argument("--smoke", action="store_true", help="only see that they work")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()

    here = [m.name for m in pkgutil.iter_modules(benchmarks.__path__)]
    known = sorted(set(here) - NOT_BENCHMARKS)
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}")

    effort = SMOKE if options.smoke else FULL
    results = []
    print(
        f"# Python {platform.python_version()}, {os.cpu_count()} cores, {len(os.environ)} variables"
    )
    for name in options.names or known:
        module = importlib.import_module(f"benchmarks.{name}")
        comparisons: list[Comparison] = module.comparisons()
        for comparison in comparisons:
            result = measure(comparison, rounds=int(effort["rounds"]), sample=effort["sample"])
            results.append(result)
            print(result.report(), flush=True)
    if options.smoke:
        print("# a smoke run: the figures mean nothing")
        return 0
    print(f"# written to {save(results)}")
    missed = [f"{r.comparison.name}: {goal}" for r in results for goal in r.missed]
    for line in missed:
        print(f"# MISSED {line}")
    return int(bool(missed))


def save(results: list[Result]) -> Path:
    folder = Path(benchmarks.__path__[0]) / "results"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    data = {
        "python": sys.version,
        "versions": {d.name: d.version for d in distributions()},
        "rounds": {r.comparison.name: dict(r.rounds) for r in results},
    }
    path.write_text(json.dumps(data, indent=1))
    return path


if __name__ == "__main__":
    sys.exit(main())
