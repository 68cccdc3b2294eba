"""From outcomes to a report: how well the router chose, beside choosing at random, one candidate always, and the best.

Arrays have a row per query and, where two-dimensional, a column per candidate in pool order. A choice is such an array
of weights: 1 for the candidate chosen, 1 / pool size each for a choice at random, all 0 where no candidate is called.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from causal_lm_router.data.arrays import Bools, Floats, known_matrix, matrix
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate, ratio_estimate
from causal_lm_router.evaluation.report import Reference, RoutingReport, TaskReport
from causal_lm_router.routing import ParseFailure, RouteOutcome


@dataclass(frozen=True)
class _Table:
    """The numbers of all outcomes; costs and expected scores are None unless every query has them."""

    scores: Floats
    costs: Floats | None
    expected: Floats | None
    called: Floats
    """The choice of the called candidates."""
    single: Floats
    """The choice of best single."""
    is_right: Bools
    """Whether each query's route is right."""

    @cached_property
    def is_best(self) -> Bools:
        return np.equal(self.scores, self.best_score[:, None])

    @cached_property
    def best_score(self) -> Floats:
        return np.asarray(self.scores.max(axis=1))

    @cached_property
    def score(self) -> Floats:
        return _chosen(self.called, self.scores)

    @cached_property
    def single_score(self) -> Floats:
        return _chosen(self.single, self.scores)


def evaluate_outcomes(
    outcomes: Sequence[RouteOutcome], pool_names: Sequence[str], best_single: str, queries_per_second: float | None
) -> RoutingReport:
    """Return the report over `outcomes`, on which `best_single` (chosen on the training queries) is one reference.

    Rates have Wilson intervals; means of scores, regrets, costs and paired differences have normal intervals from the
    standard error of the mean; ratios of gains have normal intervals of the ratio estimator (see `intervals`). Costs
    and expected scores enter only where every query has them.

    Raises ValueError for no outcomes, an outcome whose scores, label or route do not fit `pool_names`, and a
    `best_single` outside the pool.
    """
    names = tuple(pool_names)
    _check(outcomes, names, best_single)
    table = _table(outcomes, names, best_single)
    routes = [outcome.route for outcome in outcomes]
    is_decisive = ~table.is_best.all(axis=1)
    gain = table.score - table.single_score
    single_is_best = _chosen(table.single, table.is_best)
    return RoutingReport(
        num_queries=len(outcomes),
        num_decisive=int(is_decisive.sum()),
        candidate_names=names,
        best_single=best_single,
        routing_accuracy=_rate(table.is_right),
        label_accuracy=_rate(outcome.route.candidate == outcome.label for outcome in outcomes),
        decisive_accuracy=_rate(table.is_right[is_decisive]) if is_decisive.any() else None,
        mean_score=mean_estimate(table.score),
        regret=mean_estimate(table.best_score - table.score),
        mean_cost=_mean_chosen(table.called, table.costs),
        parse_failure_rate=_rate(route.failure is not None for route in routes),
        fuzzy_rate=_rate(route.fuzzy for route in routes),
        truncation_rate=_rate(outcome.truncated_query for outcome in outcomes),
        parse_failures={kind.value: sum(route.failure is kind for route in routes) for kind in ParseFailure},
        route_distribution=_shares((route.candidate for route in routes), names),
        references=_references(table),
        score_gain=mean_estimate(gain),
        accuracy_gain=mean_estimate(table.is_right - single_is_best),
        gap_recovered=ratio_estimate(gain, table.best_score - table.single_score),
        bayes_score=None if table.expected is None else mean_estimate(table.expected.max(axis=1)),
        bayes_gap_recovered=_bayes_gap_recovered(table),
        expected_gap_recovered=_expected_gap_recovered(table),
        per_task=_per_task(outcomes, table),
        confusion=_confusion(outcomes, names),
        queries_per_second=queries_per_second,
    )


def _check(outcomes: Sequence[RouteOutcome], names: Sequence[str], best_single: str) -> None:
    if not outcomes:
        raise ValueError("outcomes: got none, a report needs at least one query")
    allowed = f"allowed is {' | '.join(names)}"
    if best_single not in names:
        raise ValueError(f"best_single={best_single!r}: {allowed}")
    for outcome in outcomes:
        example = outcome.example
        for key in ("scores", "costs", "expected_scores"):
            values = getattr(example, key)
            if values is not None and values.keys() != set(names):
                raise ValueError(f"query {example.query_id!r}: {key} of {list(values)}, the pool holds {list(names)}")
        for key, name in (("label", outcome.label), ("route", outcome.route.candidate), ("called", outcome.called)):
            if name not in names and (name is not None or key == "label"):
                raise ValueError(f"query {example.query_id!r}: {key}={name!r}, {allowed}")


def _table(outcomes: Sequence[RouteOutcome], names: Sequence[str], best_single: str) -> _Table:
    examples = [outcome.example for outcome in outcomes]
    return _Table(
        scores=matrix([example.scores for example in examples], names),
        costs=known_matrix([example.costs for example in examples], names),
        expected=known_matrix([example.expected_scores for example in examples], names),
        called=np.array([[outcome.called == name for name in names] for outcome in outcomes], dtype=np.float64),
        single=np.tile([float(name == best_single) for name in names], (len(outcomes), 1)),
        is_right=np.array([outcome.is_correct for outcome in outcomes]),
    )


def _chosen(weights: Floats, values: Floats | Bools) -> Floats:
    """The value of each query's choice."""
    return np.asarray((weights * values).sum(axis=1))


def _mean_chosen(weights: Floats, values: Floats | None) -> Estimate | None:
    return None if values is None else mean_estimate(_chosen(weights, values))


def _rate(hits: Iterable[bool] | Bools) -> Estimate:
    counted = [bool(hit) for hit in hits]
    return rate_estimate(sum(counted), len(counted))


def _shares(routes: Iterable[str | None], names: Sequence[str]) -> dict[str, float]:
    counts = Counter(routes)
    return {name: counts[name] / counts.total() for name in names}


def _references(table: _Table) -> dict[str, Reference]:
    """Choices that need no router. Ties: the oracle takes the cheapest best candidate (the first where costs are
    unknown), bayes the first candidate of the highest expected score."""
    tie_key = np.zeros_like(table.scores) if table.costs is None else table.costs
    oracle = np.where(table.is_best, tie_key, np.inf).argmin(axis=1)
    one_hot = np.eye(table.scores.shape[1])
    choices = {
        "random": np.full_like(table.scores, 1 / table.scores.shape[1]),
        "best_single": table.single,
        "oracle": one_hot[oracle],
    }
    if table.expected is not None:
        choices["bayes"] = one_hot[table.expected.argmax(axis=1)]
    return {name: _reference(table, weights, is_rate=name != "random") for name, weights in choices.items()}


def _reference(table: _Table, weights: Floats, *, is_rate: bool) -> Reference:
    is_right = _chosen(weights, table.is_best)
    score = _chosen(weights, table.scores)
    return Reference(
        mean_score=mean_estimate(score),
        routing_accuracy=_rate(is_right) if is_rate else mean_estimate(is_right),
        regret=mean_estimate(table.best_score - score),
        mean_cost=_mean_chosen(weights, table.costs),
    )


def _bayes_gap_recovered(table: _Table) -> Estimate | None:
    if table.expected is None:
        return None
    return ratio_estimate(table.score - table.single_score, table.expected.max(axis=1) - table.single_score)


def _expected_gap_recovered(table: _Table) -> Estimate | None:
    if table.expected is None:
        return None
    single_score = _chosen(table.single, table.expected)
    return ratio_estimate(
        _chosen(table.called, table.expected) - single_score, table.expected.max(axis=1) - single_score
    )


def _per_task(outcomes: Sequence[RouteOutcome], table: _Table) -> dict[str, TaskReport]:
    tasks = np.array([outcome.example.task for outcome in outcomes], dtype=object)
    failed = np.array([outcome.route.failure is not None for outcome in outcomes])
    reports = {}
    for task in sorted(set(tasks)):
        rows = tasks == task
        reports[task] = TaskReport(
            num_queries=int(rows.sum()),
            routing_accuracy=_rate(table.is_right[rows]),
            mean_score=mean_estimate(table.score[rows]),
            best_single_mean_score=mean_estimate(table.single_score[rows]),
            oracle_mean_score=mean_estimate(table.best_score[rows]),
            num_parse_failures=int(failed[rows].sum()),
        )
    return reports


def _confusion(outcomes: Sequence[RouteOutcome], names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    counts = Counter((outcome.label, outcome.route.candidate) for outcome in outcomes)
    return tuple(tuple(counts[label, route] for route in (*names, None)) for label in names)
