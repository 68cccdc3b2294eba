"""Reports as a data frame: a row per estimate, ready for pandas."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.stored import read_facts, read_report

if TYPE_CHECKING:
    import pandas as pd

ROUTER, ALL_TASKS = "router", "all tasks"
COLUMNS = ("folder", "name", "seed", "split", "who", "task", "estimate", "value", "standard_error", "low", "high")


def report_frame(folders: str | Path | Iterable[str | Path]) -> "pd.DataFrame":
    """Return the estimates of runs or evaluations, by their folders, in the columns of `COLUMNS`.

    `who` is `router` or a reference such as `best_single`; `task` is a task, or `all tasks`. `low` and `high` are the
    95% interval.

    Raises:
        ValueError: a folder has no report.json, or none that can be read.
    """
    import pandas as pd

    paths = [folders] if isinstance(folders, str | Path) else list(folders)
    return pd.DataFrame([row for path in paths for row in _rows_of(Path(path))], columns=list(COLUMNS))


def _rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    report, facts = read_report(folder), read_facts(folder)
    made = {"folder": str(folder), **{key: facts.get(key) for key in ("name", "seed", "split")}}
    for who, task, name, estimate in _estimates(report):
        values = {field.name: getattr(estimate, field.name) for field in fields(Estimate)}
        yield {**made, "who": who, "task": task, "estimate": name, **values}


def _estimates(report: RoutingReport) -> Iterator[tuple[str, str, str, Estimate]]:
    """Yield who, task, name and value of every estimate: the router's, those of references, then task by task."""
    records: list[tuple[str, str, Any]] = [(ROUTER, ALL_TASKS, report)]
    records += [(who, ALL_TASKS, reference) for who, reference in report.references.items()]
    records += [(ROUTER, task, of_task) for task, of_task in report.per_task.items()]
    for who, task, record in records:
        for field in fields(record):
            estimate = getattr(record, field.name)
            if isinstance(estimate, Estimate):
                yield who, task, field.name, estimate
