"""Runs on the same queries, each compared with the first: paired differences, tests, and how often routes differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from causal_lm_router.evaluation.comparison.labels import label_runs
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate, rate_estimate
from causal_lm_router.evaluation.outcome_table import OutcomeTable
from causal_lm_router.evaluation.statistics import (
    Difference,
    Sample,
    correct_differences,
    estimate_differences,
)
from causal_lm_router.evaluation.stored import RunEvaluation, read_evaluation, shared_queries


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One evaluation: of a run, or of the `evaluate` command."""

    name: str
    """Its name and the settings in which it differs from the others; see `label_runs`."""
    folder: Path
    evaluation: RunEvaluation
    table: OutcomeTable
    """Its outcomes; rows are sorted by query id, as those of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A run minus the first, paired by query; Holm's correction runs over the pairs, for each metric on its own."""

    run: ComparedRun
    score: Difference
    accuracy: Difference
    cost: Estimate | None
    """USD per query; None where costs are unknown."""
    only_run_right: int
    only_first_right: int
    routes_differ: Estimate
    """Share of queries on which the two name different candidates, or only one of them names a candidate."""


@dataclass(frozen=True)
class Comparison:
    """Two or more runs; all others are compared with the first."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]

    @property
    def first(self) -> ComparedRun:
        """The run that the others are compared with."""
        return self.runs[0]


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Return the comparison of the evaluations in `folders` (with report.json and outcomes.jsonl) with the first.

    Raises:
        ValueError: there are fewer than two folders, one is given twice or holds no evaluation, or an evaluation has
            another split, pool, queries or scores than the first.
    """
    if len(folders) < 2:
        raise ValueError(f"folders must be at least 2, got {len(folders)}")
    resolved = [folder.resolve() for folder in folders]
    if twice := [folder for index, folder in enumerate(folders) if folder.resolve() in resolved[:index]]:
        raise ValueError(f"{twice[0]}: is given twice")
    evaluations = [_read(folder) for folder in folders]
    # The first run's order of candidates is that of all tables' columns.
    candidates = evaluations[0].report.candidate_names
    runs: list[ComparedRun] = []
    for name, folder, evaluation in zip(label_runs(folders, evaluations), folders, evaluations, strict=True):
        _check_queries(folder, evaluation, folders[0], evaluations[0])
        table = _table(folder, evaluation, candidates)
        runs.append(ComparedRun(name=name, folder=folder, evaluation=evaluation, table=table))
        if not np.array_equal(table.scores, runs[0].table.scores):
            raise ValueError(f"{folder}: candidates have other scores than in {folders[0]}, so the data differ")
    pairs = [_compare(run, runs[0]) for run in runs[1:]]
    return Comparison(tuple(runs), tuple(_correct(pairs)))


def _read(folder: Path) -> RunEvaluation:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    for name in ("report.json", "outcomes.jsonl"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: must be a finished run or an output folder of `evaluate`; it holds no {name}")
    return read_evaluation(folder)


def _table(folder: Path, evaluation: RunEvaluation, candidates: Sequence[str]) -> OutcomeTable:
    if evaluation.table is None:
        raise ValueError(f"{folder / 'outcomes.jsonl'}: cannot be compared: its rows lack the scores of all candidates")
    return evaluation.table.in_order(candidates)


def _check_queries(folder: Path, ours: RunEvaluation, first: Path, theirs: RunEvaluation) -> None:
    """Refuse an evaluation that cannot be paired with the first, query by query."""
    if ours.split != theirs.split:
        raise ValueError(f"{folder}: evaluates the split {ours.split!r}, {first} the split {theirs.split!r}")
    if set(ours.report.candidate_names) != set(theirs.report.candidate_names):
        raise ValueError(f"{folder}: routes among other candidates than {first}")
    # The counts say whether other runs, or a part of the queries, were meant.
    both = len(set(ours.query_ids) & set(theirs.query_ids))
    if ours.query_ids != theirs.query_ids:
        counts = f"{len(ours.query_ids):,} and {len(theirs.query_ids):,} queries, {both:,} of them in both"
        raise ValueError(f"{folder}: asks other queries than {first}: {counts}")
    # The ids are equal now; tasks and best scores must be, too.
    if not shared_queries(ours, theirs):
        raise ValueError(f"{folder}: queries have other tasks or best scores than in {first}, so the data differ")


def _compare(run: ComparedRun, first: ComparedRun) -> Pair:
    ours, theirs = run.evaluation.values, first.evaluation.values
    metrics = {"mean_score": Measure.difference, "routing_accuracy": Measure.difference}
    if "mean_cost" in ours and "mean_cost" in theirs:
        metrics["mean_cost"] = Measure.cost_difference
    # A row per query; both evaluations are sorted by query id.
    values = np.column_stack([ours[name] - theirs[name] for name in metrics])
    sample = Sample(run.evaluation.queries, values)
    score, accuracy, *costs = estimate_differences([sample], list(metrics.values()), accuracy=1)
    # Columns of both tables are in the first run's order, so equal routes are equal numbers.
    differ = run.table.routes != first.table.routes
    return Pair(
        run=run,
        score=score,
        accuracy=accuracy,
        cost=costs[0].estimate if costs else None,
        only_run_right=int((values[:, 1] > 0).sum()),
        only_first_right=int((values[:, 1] < 0).sum()),
        routes_differ=rate_estimate(int(differ.sum()), len(differ)),
    )


def _correct(pairs: Sequence[Pair]) -> list[Pair]:
    # Each metric on its own: a comparison asks two questions, and each of them once per pair.
    scores = correct_differences({index: pair.score for index, pair in enumerate(pairs)})
    accuracies = correct_differences({index: pair.accuracy for index, pair in enumerate(pairs)})
    return [replace(pair, score=scores[index], accuracy=accuracies[index]) for index, pair in enumerate(pairs)]
