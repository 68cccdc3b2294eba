"""The table with which `evaluate -m` ends: a row per evaluation, by what differs in its settings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from causal_lm_router.evaluation.formatting import (
    PERCENT,
    REFERENCE_NAMES,
    SCORE,
    form_of,
    format_estimate,
    format_two_lines,
)
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.terminal import plain_text

_COLUMNS = ("mean_score", "routing_accuracy", "parse_failure_rate")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One evaluation: the overrides that made it, where it lies, and its report."""

    overrides: Sequence[str]
    folder: Path
    report: RoutingReport


def print_evaluations(evaluated: Sequence[Evaluated], console: Console) -> None:
    """Print the evaluations in the order in which they ran, then the references where all of them have the same."""
    # Of a single one (others failed) all settings but the run are its own.
    shared = {override for override in evaluated[0].overrides if override.startswith("run_dir=")}
    if len(evaluated) > 1:
        shared = set(evaluated[0].overrides).intersection(*(one.overrides for one in evaluated))
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("Settings", overflow="fold")
    for heading in ("Mean\nscore", "Routing\naccuracy", "Parse\nfailures"):
        table.add_column(heading, justify="right")
    table.add_column("Folder", overflow="fold")
    for one in evaluated:
        own = "\n".join(override for override in one.overrides if override not in shared)
        estimates = [format_two_lines(getattr(one.report, name), form_of(name)) for name in _COLUMNS]
        table.add_row(plain_text(own), *estimates, plain_text(one.folder.name))
    # Without intervals: they are there for orientation. Other queries have others.
    references = evaluated[0].report.references
    is_shared = all(one.report.references == references for one in evaluated)
    for key, reference in references.items() if is_shared else ():
        score = format_estimate(reference.mean_score.value, SCORE)
        accuracy = format_estimate(reference.routing_accuracy.value, PERCENT)
        table.add_row(REFERENCE_NAMES[key], score, accuracy, "", "", style="dim")
    console.print(table)
    console.print(plain_text(f"evaluations: {os.path.relpath(evaluated[0].folder.parent)}"), soft_wrap=True)
