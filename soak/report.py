"""A run for people: a summary, and the evidence in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from soak.checker import Report
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
        all_of_it = [v for v in report.violations if v.kind == kind]
        recipes = Counter(v.recipe for v in all_of_it if v.recipe)
        by = ", ".join(f"{recipe} {number}" for recipe, number in recipes.items())
        lines.append(f"VIOLATED {kind}: {count}" + (f" ({by})" if by else ""))
        lines += [f"    worker {v.worker}: {v.text}" for v in all_of_it[:_SHOWN]]
    return "\n".join(lines)


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f} s" if value >= 0 else "never"


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
