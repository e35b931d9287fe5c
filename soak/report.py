"""A run for people: a summary, and the evidence in a folder."""

from __future__ import annotations

from pathlib import Path

from soak.checker import Figures, Report
from soak.excerpt import excerpt
from soak.history import save
from soak.run import Outcome

__all__ = ["describe", "keep"]

_SHOWN = 3  # violations of a kind
_EXCERPTS = 20


def describe(report: Report) -> str:
    faults = ", ".join(f"{count} {name}" for name, count in sorted(report.faults.items()))
    lines = [f"{sum(report.faults.values())} faults in {report.seconds:.0f} s: {faults}"]
    lines += [f"{recipe}: {_figures(figures)}" for recipe, figures in report.figures.items()]
    if not report.violations:
        lines.append("nothing violated")
    for kind, count in report.kinds.items():
        lines.append(f"VIOLATED {kind}: {count}")
        some = [v for v in report.violations if v.kind == kind][:_SHOWN]
        lines += [f"    worker {v.worker}: {v.text}" for v in some]
    return "\n".join(lines)


def _figures(figures: Figures) -> str:
    revived = f"{figures.revived:.1f} s" if figures.revived >= 0 else "never"
    return (
        f"{figures.granted} acquisitions, {figures.claims} claims,"
        f" {figures.stale} stale (latest {figures.lateness:.3f} s),"
        f" {figures.untold} untold of an expiry (latest {figures.untold_for:.3f} s),"
        f" {figures.lost} losses noticed ({figures.groundless} without a fault),"
        f" gap {figures.gap:.1f} s (limit {figures.gap_limit:.1f}),"
        f" all alive {revived} after the heal"
    )


def keep(outcome: Outcome, folder: Path) -> None:
    """Write the history, what the workers logged, and what the first violations looked like."""
    save(outcome.history, folder)
    for worker, log in enumerate(outcome.logs):
        (folder / f"worker-{worker}.log").write_text(log)
    lines = []
    for number, violation in enumerate(outcome.report.violations[:_EXCERPTS], 1):
        lines.append(f"== {number}. {violation.kind}, worker {violation.worker}: {violation.text}")
        lines += excerpt(outcome.history, violation)
    (folder / "excerpts.txt").write_text("\n".join(lines) + "\n")
