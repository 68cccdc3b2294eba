"""From outcomes to an evaluation: how well the router chose, beside ways of choosing that need no router.

Arrays have a row per query and, where two-dimensional, a column per candidate in pool order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Bools, Floats
from causal_lm_router.data.train_means import TrainMeans
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate, ratio_estimate
from causal_lm_router.evaluation.measures.prediction_report import PredictionReport, report_predictions
from causal_lm_router.evaluation.outcome_table import NOBODY, OutcomeTable, outcome_table
from causal_lm_router.evaluation.references import evaluate_references, reference_choices
from causal_lm_router.evaluation.report import (
    DecodingReport,
    FailedGeneration,
    RoutingReport,
    TaskReport,
)
from causal_lm_router.routing import ParseFailure, RouteOutcome

_NUM_EXAMPLES, _EXAMPLE_CHARS = 3, 80
"""Parse failures that a report shows, and how much of their texts."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A report with the outcomes it was made from, and the same by other decoding methods on the same weights."""

    report: RoutingReport
    outcomes: Sequence[RouteOutcome]
    table: OutcomeTable
    """The outcomes as arrays."""
    others: Mapping[str, "Evaluation"] = field(default_factory=dict)
    """Name of a decoding method -> its evaluation."""


def evaluate_outcomes(
    outcomes: Sequence[RouteOutcome],
    pool_names: Sequence[str],
    best_single: str,
    queries_per_second: float | None = None,
    *,
    means: TrainMeans | None = None,
    decoding: DecodingReport | None = None,
    with_predictions: bool = False,
    validation: Evaluation | None = None,
) -> Evaluation:
    """Return the evaluation of `outcomes`, on which `best_single` (chosen on the training queries) is one reference.
    `means`, the candidates' means on train, give two more: the per-task table and the mixture at the router's cost.

    With `with_predictions` the report also says what the router's predictions are worth, where it predicts at all:
    not for every evaluation during training, as it can take seconds. `validation` is the same router's evaluation on
    the validation split, which gives the temperature and the conformal threshold.

    Raises:
        ValueError: there are no outcomes, one does not fit `pool_names`, or `best_single` is not among them.
    """
    table = outcome_table(outcomes, pool_names)
    # First, so that the report is built once, with everything known.
    predictions = None
    if with_predictions:
        predictions = report_predictions(table, validation.table if validation else None, best_single)
    report = _report(table, outcomes, best_single, means, queries_per_second, decoding, predictions)
    return Evaluation(report=report, outcomes=outcomes, table=table)


def _report(
    table: OutcomeTable,
    outcomes: Sequence[RouteOutcome],
    best_single: str,
    means: TrainMeans | None,
    queries_per_second: float | None,
    decoding: DecodingReport | None,
    predictions: PredictionReport | None,
) -> RoutingReport:
    """The report; `interval_formulas` says which intervals its estimates have."""
    # Everything is compared with always calling best single, query by query.
    single = table.column(best_single)
    # Where all candidates score the same, no route is better than another.
    is_decisive = ~table.is_best.all(axis=1)
    cost = None if table.costs is None else table.of_called(table.costs)
    mean_cost = None if cost is None else float(cost.mean())
    choices = reference_choices(
        table.scores, table.costs, table.expected, single, table.tasks, table.candidate_names, means, mean_cost
    )
    return RoutingReport(
        num_queries=len(outcomes),
        num_decisive=int(is_decisive.sum()),
        candidate_names=table.candidate_names,
        best_single=best_single,
        routing_accuracy=_rate(table.is_right),
        label_accuracy=_rate(outcome.route.candidate == outcome.label for outcome in outcomes),
        decisive_accuracy=_rate(table.is_right[is_decisive]) if is_decisive.any() else None,
        mean_score=mean_estimate(table.score),
        regret=mean_estimate(table.best_score - table.score),
        mean_cost=None if cost is None else mean_estimate(cost, Measure.cost, table.dearest),
        references=evaluate_references(choices, table.scores, table.costs),
        score_gains={
            name: mean_estimate(table.score - (choices[name] * table.scores).sum(axis=1), Measure.difference)
            for name in ("per_task_best", "same_cost_mixture")
            if name in choices
        },
        per_task=_per_task(table, table.scores[:, single]),
        confusion=_confusion(outcomes, table.candidate_names),
        queries_per_second=queries_per_second,
        decoding=decoding,
        predictions=predictions,
        **_route_shares(outcomes, table.candidate_names),
        **_gains(table, single),
    )


def _route_shares(outcomes: Sequence[RouteOutcome], names: Sequence[str]) -> dict[str, Any]:
    """The fields of a report about what was generated and chosen, whatever it was worth."""
    routes = [outcome.route for outcome in outcomes]
    return {
        "parse_failure_rate": _rate(route.failure is not None for route in routes),
        "fuzzy_rate": _rate(route.fuzzy for route in routes),
        "truncation_rate": _rate(outcome.truncated_query for outcome in outcomes),
        "parse_failures": {kind.value: sum(route.failure is kind for route in routes) for kind in ParseFailure},
        "route_distribution": _shares((route.candidate for route in routes), names),
        "failed_generations": _failed_generations(outcomes),
    }


def _failed_generations(outcomes: Sequence[RouteOutcome]) -> tuple[FailedGeneration, ...]:
    """A few parse failures: the first of each kind, the most frequent kind first, then whichever come next."""
    failed = [outcome for outcome in outcomes if outcome.route.failure is not None]
    by_kind = Counter(outcome.route.failure for outcome in failed).most_common()
    first = [next(outcome for outcome in failed if outcome.route.failure is kind) for kind, _ in by_kind]
    shown = [*first, *(outcome for outcome in failed if outcome not in first)][:_NUM_EXAMPLES]
    return tuple(
        FailedGeneration(
            query_id=outcome.example.query_id,
            query=_beginning(outcome.example.query),
            generation=_beginning(outcome.generation.text),
            failure=outcome.route.failure.value,
        )
        for outcome in shown
        if outcome.route.failure is not None
    )


def _beginning(text: str) -> str:
    return text if len(text) <= _EXAMPLE_CHARS else f"{text[: _EXAMPLE_CHARS - 1]}…"


def _gains(table: OutcomeTable, single: int) -> dict[str, Any]:
    """The fields of a report that compare with best single, whose column is `single`."""
    single_score = table.scores[:, single]
    gain = table.score - single_score
    # The best possible router knows expected scores, not the answers.
    bayes_score = None if table.expected is None else table.expected.max(axis=1)
    return {
        "score_gain": mean_estimate(gain, Measure.difference),
        "accuracy_gain": mean_estimate(
            table.is_right.astype(np.float64) - table.is_best[:, single], Measure.difference
        ),
        "gap_recovered": ratio_estimate(gain, table.best_score - single_score),
        "bayes_score": None if bayes_score is None else mean_estimate(bayes_score),
        "bayes_gap_recovered": None if bayes_score is None else ratio_estimate(gain, bayes_score - single_score),
        "expected_gap_recovered": _expected_gap_recovered(table, single),
    }


def _rate(hits: Iterable[bool] | Bools | Floats) -> Estimate:
    counted = [bool(hit) for hit in hits]
    return rate_estimate(sum(counted), len(counted))


def _shares(routes: Iterable[str | None], names: Sequence[str]) -> dict[str, float]:
    counts = Counter(routes)
    # Parse failures are in the total, so that the shares may sum to less than 1.
    return {name: counts[name] / counts.total() for name in names}


def _expected_gap_recovered(table: OutcomeTable, single: int) -> Estimate | None:
    """Share of the way from best single to the best possible router, all by expected scores."""
    if table.expected is None:
        return None
    single_score = table.expected[:, single]
    return ratio_estimate(table.of_called(table.expected) - single_score, table.expected.max(axis=1) - single_score)


def _per_task(table: OutcomeTable, single_score: Floats) -> dict[str, TaskReport]:
    tasks = np.array(table.tasks, dtype=object)
    reports = {}
    for task in sorted(set(table.tasks)):
        rows = tasks == task
        reports[task] = TaskReport(
            num_queries=int(rows.sum()),
            routing_accuracy=_rate(table.is_right[rows]),
            mean_score=mean_estimate(table.score[rows]),
            best_single_mean_score=mean_estimate(single_score[rows]),
            oracle_mean_score=mean_estimate(table.best_score[rows]),
            num_parse_failures=int((table.routes[rows] == NOBODY).sum()),
        )
    return reports


def _confusion(outcomes: Sequence[RouteOutcome], names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Queries by label (rows) and route (columns, parse failures last)."""
    counts = Counter((outcome.label, outcome.route.candidate) for outcome in outcomes)
    return tuple(tuple(counts[label, route] for route in (*names, None)) for label in names)
