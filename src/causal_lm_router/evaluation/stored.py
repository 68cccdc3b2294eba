"""What a run's evaluation left behind, as arrays with a row per query, and which queries two evaluations share."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.report import RoutingReport

FIGURES = ("routing_accuracy", "mean_score", "parse_failure_rate", "regret", "mean_cost")
"""Figures that are means over queries. Costs may be unknown."""


@dataclass(frozen=True)
class RunEvaluation:
    """report.json and outcomes.jsonl of one evaluation, rows sorted by query id."""

    split: str
    report: RoutingReport
    query_ids: tuple[str, ...]
    facts: tuple[tuple[str, float], ...]
    """Task and best score of each query: what two runs on the same data must agree on."""
    values: Mapping[str, Floats]
    """Figure -> its value on each query; without `mean_cost` where costs are unknown."""
    best_single: Mapping[str, Floats] | None
    """Accuracy and score of best single on each query; None where outcomes.jsonl lacks the scores of all candidates."""

    @cached_property
    def queries(self) -> str:
        """Fingerprint: equal where split, pool and queries are the same."""
        identity = json.dumps([self.split, sorted(self.report.candidate_names), self.query_ids, self.facts])
        return hashlib.sha256(identity.encode()).hexdigest()


def read_evaluation(folder: Path) -> RunEvaluation:
    """Read an evaluation; raise ValueError, naming the file, where something is missing or not as it should be."""
    plain = _read_json(folder / "report.json")
    path = folder / "outcomes.jsonl"
    try:
        names = [field.name for field in fields(RoutingReport)]
        report = RoutingReport.from_dict({name: plain[name] for name in names if name in plain})
        # Generated text may hold characters that `splitlines` takes for line ends.
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = sorted((json.loads(line) for line in lines if line), key=lambda row: str(row["query_id"]))
        evaluation = _evaluation(str(plain["split"]), report, rows)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{folder}: its evaluation cannot be read: {type(error).__name__}: {error}") from error
    if len(set(evaluation.query_ids)) != report.num_queries or len(rows) != report.num_queries:
        raise ValueError(f"{path}: {len(rows)} rows, report.json counts {report.num_queries} queries")
    return evaluation


def shared_queries(one: RunEvaluation, other: RunEvaluation) -> list[str]:
    """Return the ids of the queries that both asked; none where split, pool or any such query differ.

    A query id with another task or another best score means other data, in which equal ids mean nothing.
    """
    if one.split != other.split or set(one.report.candidate_names) != set(other.report.candidate_names):
        return []
    theirs = dict(zip(other.query_ids, other.facts, strict=True))
    ours = dict(zip(one.query_ids, one.facts, strict=True))
    both = [query_id for query_id in one.query_ids if query_id in theirs]
    return both if all(ours[query_id] == theirs[query_id] for query_id in both) else []


def _evaluation(split: str, report: RoutingReport, rows: list[dict[str, Any]]) -> RunEvaluation:
    values = {
        "routing_accuracy": _numbers([row["is_correct"] for row in rows]),
        "mean_score": _numbers([row["score"] for row in rows]),
        "parse_failure_rate": _numbers([row["failure"] is not None for row in rows]),
        "regret": _numbers([row["best_score"] - row["score"] for row in rows]),
    }
    costs = [row["cost"] for row in rows]
    if None not in costs:
        values["mean_cost"] = _numbers(costs)
    facts = tuple((str(row["task"]), float(row["best_score"])) for row in rows)
    query_ids = tuple(str(row["query_id"]) for row in rows)
    return RunEvaluation(split, report, query_ids, facts, values, _best_single(report.best_single, rows))


def _best_single(name: str, rows: list[dict[str, Any]]) -> dict[str, Floats] | None:
    if any("scores" not in row for row in rows):
        return None
    scores = _numbers([row["scores"][name] for row in rows])
    best = _numbers([row["best_score"] for row in rows])
    return {"routing_accuracy": _numbers(scores == best), "mean_score": scores}


def _numbers(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return plain
