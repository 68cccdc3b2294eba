"""The reader of what an evaluation left on disk, report.json and outcomes.jsonl; which queries two of them share."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.outcome_table import OutcomeTable, row_table
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files.checksums import DamagedError, read_checked

REPORT, OUTCOMES = "report.json", "outcomes.jsonl"
"""The files of an evaluation; the report is written last."""
METRICS = ("routing_accuracy", "mean_score", "parse_failure_rate", "regret", "mean_cost")
"""Metrics that are means over queries. Costs may be unknown."""
_RENAMED = {"baselines": "references", "candidates": "candidate_names"}
"""Key in older reports -> key today."""


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """report.json and outcomes.jsonl of one evaluation, rows sorted by query id."""

    split: str
    report: RoutingReport
    query_ids: tuple[str, ...]
    facts: tuple[tuple[str, float], ...]
    """Task and best score of each query: what two runs on the same data must agree on."""
    values: Mapping[str, Floats]
    """Metric -> its value on each query; without `mean_cost` where costs are unknown."""
    best_single: Mapping[str, Floats] | None
    """Accuracy and score of best single on each query; None where the rows lack the scores of all candidates."""
    table: OutcomeTable | None = None
    """The rows as arrays; None where they lack the scores of all candidates."""

    @cached_property
    def queries(self) -> str:
        """Fingerprint: equal where split, pool and queries are the same."""
        identity = json.dumps([self.split, sorted(self.report.candidate_names), self.query_ids, self.facts])
        return hashlib.sha256(identity.encode()).hexdigest()


def read_report(folder: Path) -> RoutingReport:
    """Return the report in an evaluation's folder, one written before its keys were renamed too.

    Raises:
        ValueError: report.json is missing or no report; the message names the file.
    """
    return _report(folder, _read_json(folder / REPORT))


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what report.json says beside the report itself: name, seed, split, sizes of the splits, what made it.

    Raises:
        ValueError: report.json is missing or no JSON object; the message names the file.
    """
    numbers = {field.name for field in fields(RoutingReport)}
    return {key: value for key, value in _read_json(folder / REPORT).items() if key not in numbers}


def read_evaluation(folder: Path) -> RunEvaluation:
    """Return the evaluation in a folder.

    Raises:
        ValueError: something is missing, or is not as it should be; the message names the file.
    """
    plain = _read_json(folder / REPORT)
    report = _report(folder, plain)
    path, rows = folder / OUTCOMES, read_rows(folder)
    try:
        evaluation = _evaluation(str(plain["split"]), report, rows)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    # A report and outcomes of different evaluations would give estimates that do not fit one another.
    if len(set(evaluation.query_ids)) != report.num_queries or len(rows) != report.num_queries:
        raise ValueError(f"{path}: must hold a row for each of {report.num_queries} queries, got {len(rows)} rows")
    return evaluation


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of outcomes.jsonl in an evaluation's folder, sorted by query id.

    Raises:
        ValueError: the file is missing, or no such rows; the message names it.
    """
    path = folder / OUTCOMES
    try:
        # Generated text may hold characters that `splitlines` takes for line ends.
        lines = read_checked(path).split("\n")
        return sorted((json.loads(line) for line in lines if line), key=lambda row: str(row["query_id"]))
    except DamagedError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def shared_queries(one: RunEvaluation, other: RunEvaluation) -> list[str]:
    """Return the ids of the queries that both asked; none where split, pool or any such query differ.

    A query id with another task or another best score means other data, in which equal ids mean nothing.
    """
    if one.split != other.split or set(one.report.candidate_names) != set(other.report.candidate_names):
        return []
    # What must agree, by query id.
    theirs = dict(zip(other.query_ids, other.facts, strict=True))
    ours = dict(zip(one.query_ids, one.facts, strict=True))
    both = [query_id for query_id in one.query_ids if query_id in theirs]
    return both if all(ours[query_id] == theirs[query_id] for query_id in both) else []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(read_checked(path))
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(plain).__name__}")
    return {_RENAMED.get(str(key), str(key)): value for key, value in plain.items()}


def _report(folder: Path, plain: Mapping[str, Any]) -> RoutingReport:
    # report.json also holds facts about the run.
    names = [field.name for field in fields(RoutingReport)]
    try:
        return RoutingReport.from_dict({name: plain[name] for name in names if name in plain})
    except ValueError as error:
        raise ValueError(f"{folder / REPORT}: cannot be read: {error}") from error


def _evaluation(split: str, report: RoutingReport, rows: Sequence[Mapping[str, Any]]) -> RunEvaluation:
    # The values of a row rather than those of the table: the oldest rows hold no scores of all candidates.
    values = {
        "routing_accuracy": _numbers([row["is_correct"] for row in rows]),
        "mean_score": _numbers([row["score"] for row in rows]),
        "parse_failure_rate": _numbers([row["failure"] is not None for row in rows]),
        "regret": _numbers([row["best_score"] - row["score"] for row in rows]),
    }
    # One unknown cost makes a mean over all queries unknown.
    costs = [row["cost"] for row in rows]
    if None not in costs:
        values["mean_cost"] = _numbers(costs)
    table = row_table(rows, report.candidate_names) if all("scores" in row for row in rows) else None
    return RunEvaluation(
        split=split,
        report=report,
        query_ids=tuple(str(row["query_id"]) for row in rows),
        facts=tuple((str(row["task"]), float(row["best_score"])) for row in rows),
        values=values,
        best_single=None if table is None else _best_single(table, report.best_single),
        table=table,
    )


def _best_single(table: OutcomeTable, name: str) -> dict[str, Floats]:
    column = table.column(name)
    return {"routing_accuracy": _numbers(table.is_best[:, column]), "mean_score": table.scores[:, column]}


def _numbers(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)
