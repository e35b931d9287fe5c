"""Run the long tests: python -m soak zookeeper [--seconds 600] [--seeds 1 | --seed N] [--keep]

Servers and workers on this machine, faults by a seeded plan, a judge at the end. Exit status 1
when something was violated, or nothing in the control; the history of a violation is kept in
.soak/, and is judged again by `python -m soak judge FOLDER`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from soak.checker import Limits, check
from soak.history import read
from soak.recipes import RECIPES
from soak.report import describe, keep
from soak.run import Options, run

KEPT = Path(".soak")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("judge", help="judge a kept history again")
    judge.add_argument("folder", type=Path)
    judge.add_argument("--timeout", type=float, default=2.0, help="of its sessions, in seconds (2)")
    soak = commands.add_parser("zookeeper", help="all recipes of sepelib.zookeeper at once")
    soak.add_argument("--seconds", type=float, default=600.0, help="of faults for each seed (600)")
    soak.add_argument("--seeds", type=int, default=1, metavar="K", help="how many random ones (1)")
    soak.add_argument("--seed", type=int, action="append", help="this one; may be repeated")
    soak.add_argument("--keep", action="store_true", help="keep the history of a good run too")
    soak.add_argument(
        "--library",
        choices=("sepelib", "kazoo"),
        default="sepelib",
        help="kazoo: the control, which has to be found guilty",
    )
    soak.add_argument(
        "--recipe",
        action="append",
        choices=tuple(RECIPES),
        help="only this one; may be repeated (all)",
    )
    soak.add_argument("--rate", type=float, default=1.3, help="faults a second (1.3)")
    soak.add_argument(
        "--struck", type=float, default=0.1, help="share of acquires ended from outside (0.1)"
    )
    soak.add_argument("--timeout", type=float, default=2.0, help="of sessions, in seconds (2)")
    options = parser.parse_args()
    if options.command == "zookeeper" and not _recipes(options):
        parser.error(f"{options.library} has none of these recipes")
    if options.command == "judge":
        history = read(options.folder)
        report = check(history, Limits(timeout=options.timeout))
        print(describe(report))
        return int(bool(report.violations))
    seeds = options.seed or [random.SystemRandom().randrange(10**6) for _ in range(options.seeds)]
    found = [soak_one(seed, options) for seed in seeds]
    if len(found) > 1:
        print(f"# {sum(found)} of {len(found)} seeds found something")
    if options.library != "sepelib":
        print(f"# {options.library} is the control: it has to be found guilty")
        return int(not all(found))
    return int(any(found))


def _recipes(options: argparse.Namespace) -> list[str]:
    """Those asked for, in the order of the table; of the control those that it has."""
    return [
        name
        for name, recipe in RECIPES.items()
        if name in (options.recipe or RECIPES) and (options.library != "kazoo" or recipe.kazoo)
    ]


def soak_one(seed: int, options: argparse.Namespace) -> bool:
    """True when something was violated."""
    print(f"# {options.library}, seed {seed}: {options.seconds:g} s of faults", flush=True)
    outcome = run(
        Options(
            seed,
            options.seconds,
            library=options.library,
            recipes=_recipes(options),
            rate=options.rate,
            timeout=options.timeout,
            struck=options.struck,
        )
    )
    report = outcome.report
    print(describe(report))
    if report.violations or options.keep:
        folder = KEPT / f"{time.strftime('%Y%m%dT%H%M%S')}-{options.library}-{seed}"
        keep(outcome, folder)
        print(f"# kept in {folder}", flush=True)
    return bool(report.violations)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing is left")
