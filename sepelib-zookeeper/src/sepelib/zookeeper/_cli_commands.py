"""What the command line does once it is connected.

Ages are by this machine's clock against the times that the servers have stamped; when it is
evidently behind, that is said. What only looks writes nothing.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from sepelib.zookeeper._cli_output import Failure, Output, Status, duration, escaped, moderate

if TYPE_CHECKING:
    from sepelib.zookeeper._walk import Visit
    from sepelib.zookeeper.client import Client
    from sepelib.zookeeper.collector import Report
    from sepelib.zookeeper.operate import Occupant

__all__ = ["break_one", "collect", "holders", "locks"]

_MOST_HOLDERS = 3  # that are named, of one lock among others
_LONG = 3600.0
_SKEW = 2.0


def locks(client: Client, options: Namespace, output: Output) -> int:
    from sepelib.zookeeper._walk import walk
    from sepelib.zookeeper.operate import occupancy, outsiders, read_occupants

    def below(visit: Visit) -> list[str]:
        names = outsiders(visit.children)
        return [it for it in names if it != "zookeeper"] if visit.path == "/" else names

    ages = _Ages(output)
    rows, found, denied = [], [], 0
    for visit in walk(client, options.roots, options.depth, below):
        if visit.stat is None:
            denied += _look_refused(visit)
            continue
        holding, waiting = occupancy(visit.children)
        named = list(read_occupants(client, visit.path, holding[:_MOST_HOLDERS]))
        if not named and not waiting:
            continue  # all gone meanwhile, or no locks but named like kazoo's leases
        more = len(holding) - _MOST_HOLDERS
        notes = sorted({note for it in named for note in _notes(it, ages, len(waiting))})
        rows.append(
            (
                escaped(visit.path, 1000),
                named[0].kind if named else "",
                ", ".join(escaped(it.contender.identifier) for it in named)
                + (f" and {more} more" if more > 0 else ""),
                f"0x{named[0].contender.token:x}" if len(holding) == 1 and named else "",
                duration(max(ages.of(it) for it in named)) if named else "",
                str(len(waiting)),
                ", ".join(notes),
            )
        )
        found.append(
            {
                "path": visit.path,
                "holding": len(holding),
                "waiting": len(waiting),
                "holders": [_described(it, ages, holds=True) for it in named],
                "notes": notes,
            }
        )
    if rows:
        output.table(("PATH", "KIND", "HOLDER", "TOKEN", "QUEUED", "WAITING", "NOTE"), sorted(rows))
    else:
        output.line("nothing is held there")
    output.document({"locks": sorted(found, key=lambda it: str(it["path"])), "denied": denied})
    if denied:
        output.aside(f"{denied} nodes could not be listed: no permission")
    return Status.DONE


def _look_refused(visit: Visit) -> int:
    from kazoo.exceptions import NoNodeError

    if not isinstance(visit.refused, NoNodeError):
        return 1
    if visit.level == 0:
        raise Failure(Status.REFUSED, f"{visit.path}: no such node")
    return 0


def holders(client: Client, options: Namespace, output: Output) -> int:
    ages = _Ages(output)
    holding, waiting = _at(client, options.path)
    rows, described = [], []
    for number, it in enumerate([*holding, *waiting]):
        holds = number < len(holding)
        notes = _notes(it, ages, len(waiting)) if holds else _facts(it)
        rows.append(
            (
                "holds" if holds else f"waits {number - len(holding) + 1}",
                it.kind,
                escaped(it.contender.identifier),
                escaped(it.host or ""),
                "" if it.pid is None else str(it.pid),
                it.since.strftime("%Y-%m-%d %H:%M:%SZ"),
                duration(ages.of(it)),
                f"0x{it.contender.token:x}",
                f"0x{it.contender.session_id:x}" if it.ephemeral else "",
                ", ".join(notes),
            )
        )
        described.append(_described(it, ages, holds=holds))
    heads = ("", "KIND", "IDENTIFIER", "HOST", "PID", "QUEUED SINCE", "FOR", "TOKEN", "SESSION")
    if rows:
        output.table((*heads, "NOTE"), rows)
    else:
        output.line("nobody holds it, nobody waits for it")
    output.document({"path": options.path, "contenders": described})
    return Status.DONE


def _at(client: Client, path: str) -> tuple[list[Occupant], list[Occupant]]:
    """Those who hold the lock *path*, and those who wait."""
    from sepelib.zookeeper._walk import walk
    from sepelib.zookeeper.operate import occupancy, read_occupants

    visit = next(walk(client, [path], 0))
    if visit.refused is not None:
        _look_refused(visit)
        raise Failure(Status.REFUSED, f"{path}: no permission to list it")
    holding, waiting = occupancy(visit.children)
    found = list(read_occupants(client, path, [*holding, *waiting]))
    names = {place.name for place in holding}
    held = [it for it in found if it.path.rpartition("/")[2] in names]
    return held, [it for it in found if it.path.rpartition("/")[2] not in names]


def break_one(client: Client, options: Namespace, output: Output) -> int:
    from sepelib.zookeeper.operate import break_lock, chosen

    ages = _Ages(output)
    holding, waiting = _at(client, options.path)
    target = chosen(options.path, holding, options.token)
    who = (
        f"{escaped(target.contender.identifier)}, {duration(ages.of(target))} in the queue of "
        f"{escaped(options.path, 1000)}, {len(waiting)} waiting"
    )
    if not options.yes:
        _confirm(f"Take it from {who}? [y/N] ")
    broken = break_lock(client, options.path, options.token)
    output.line(f"taken from {escaped(broken.identifier)}, token 0x{broken.token:x}")
    output.document({"path": options.path, "broken": _described(target, ages, holds=True)})
    return Status.DONE


def _confirm(question: str) -> None:
    from gevent.socket import wait_read

    if sys.stdin is None or sys.stderr is None or not sys.stdin.isatty():
        raise Failure(Status.USAGE, "nobody can be asked without a terminal: give --yes")
    print(question, end="", file=sys.stderr, flush=True)
    wait_read(sys.stdin.fileno())  # the session has to live on meanwhile
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure(Status.USAGE, "not confirmed, nothing was done")


def collect(client: Client, options: Namespace, output: Output) -> int:
    import gevent

    from sepelib.zookeeper.collector import LockGarbageCollector

    try:
        collector = LockGarbageCollector(
            client,
            options.roots,
            idle=options.idle if options.delete else 0.0,
            dry_run=not options.delete,
            max_age=options.max_age,
            matching=options.matching,
            rate=options.rate,
            depth=options.depth,
        )
    except ValueError as error:
        raise Failure(Status.USAGE, str(error)) from error
    first = latest = collector.collect()
    fresh = first.skipped.get("fresh", 0)
    if fresh and first.trouble is None:
        if options.delete:
            output.aside(
                f"{fresh} unused parents seen; looking again in {duration(options.idle)}, "
                "those that are still the same then are deleted"
            )
            gevent.sleep(options.idle)
        latest = collector.collect()
    deleted, removed = latest.deleted, list(latest.removed)
    if latest is not first and options.delete:
        deleted, removed = first.deleted + deleted, [*first.removed, *removed]
    _tell(latest, deleted, removed, output)
    if latest.trouble is not None:
        raise Failure(Status.UNREACHABLE, f"ended early: {latest.trouble}")
    return Status.DONE


def _tell(report: Report, deleted: int, removed: list[str], output: Output) -> None:
    for path in removed:
        output.line(f"{'would delete' if report.dry_run else 'deleted'} {escaped(path, 1000)}")
    if report.orphans:
        output.table(
            ("TO LOOK AT", "HOLDER", "TOKEN", "QUEUED", "WAITING", "NOTE"),
            (
                (
                    escaped(it.path, 1000),
                    escaped(it.contender.identifier),
                    f"0x{it.contender.token:x}",
                    duration(it.age),
                    str(it.waiting),
                    "long held" if it.ephemeral else "not ephemeral",
                )
                for it in report.orphans
            ),
        )
    left = ", ".join(f"{reason} {count}" for reason, count in sorted(report.skipped.items()))
    total = (
        f"{report.ripe} would go if they stay unused" if report.dry_run else f"{deleted} deleted"
    )
    output.line(f"{report.scanned} nodes, {total}; left: {left or 'none'}")
    output.document(
        {
            "dry_run": report.dry_run,
            "scanned": report.scanned,
            "empty": report.empty,
            "ripe": report.ripe,
            "deleted": deleted,
            "skipped": dict(report.skipped),
            "paths": removed,
            "orphans": [
                {
                    "path": it.path,
                    "identifier": moderate(it.contender.identifier),
                    "token": f"0x{it.contender.token:x}",
                    "age_seconds": round(it.age, 3),
                    "waiting": it.waiting,
                    "ephemeral": it.ephemeral,
                }
                for it in report.orphans
            ],
            "trouble": report.trouble,
        }
    )


class _Ages:
    """By this machine's clock; says once when that cannot be right."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said = False

    def of(self, occupant: Occupant) -> float:
        age = time.time() - occupant.since.timestamp()
        if age < -_SKEW and not self._said:
            self._said = True
            self._output.aside(
                f"the clock of this machine is {-age:.0f} s or more behind the servers': ages "
                "are too small"
            )
        return max(0.0, age)


def _notes(holder: Occupant, ages: _Ages, waiting: int) -> list[str]:
    notes = _facts(holder)
    if waiting and ages.of(holder) > _LONG:
        notes.append("long held")
    return notes


def _facts(occupant: Occupant) -> list[str]:
    facts = [] if occupant.ephemeral else ["not ephemeral"]
    if occupant.leases > 1:
        facts.append(f"{occupant.leases} leases")
    if not occupant.readable:
        facts.append("no permission to read who")
    return facts


def _described(occupant: Occupant, ages: _Ages, *, holds: bool) -> dict[str, Any]:
    contender = occupant.contender
    return {
        "holds": holds,
        "kind": occupant.kind,
        "identifier": moderate(contender.identifier),
        "host": occupant.host and moderate(occupant.host),
        "pid": occupant.pid,
        "queued_since": occupant.since.isoformat(timespec="milliseconds"),
        "age_seconds": round(ages.of(occupant), 3),
        "token": f"0x{contender.token:x}",
        "session": f"0x{contender.session_id:x}",
        "ephemeral": occupant.ephemeral,
        "readable": occupant.readable,
        "count": occupant.leases,
        "node": occupant.path,
    }
