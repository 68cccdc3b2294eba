"""The record of a router's frontier and of the measures of it."""

from dataclasses import dataclass

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.intervals import Estimate, without_interval
from causal_lm_router.evaluation.measures import cost_quality
from causal_lm_router.evaluation.measures.cost_quality import (
    Points,
    TradeOffs,
    candidate_points,
    pool_aiq,
    trade_offs,
)
from causal_lm_router.evaluation.outcome_table import OutcomeTable

OF_FRONTIER = "the best of many configurations on the same queries, or a ratio of such: no interval holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """A configuration of the router on the test queries."""

    cost: float
    """Mean cost, USD per query."""
    score: float
    """Mean score."""
    trade_off: float | None
    """Lambda, score per USD; None for infinite, where the cheapest candidate is always called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQualityReport:
    """Measures of mean cost and mean score; see `measures.cost_quality` for each."""

    frontier: tuple[FrontierPoint, ...]
    """From lambda 0 to infinity, repeated points left out."""
    aiq: Estimate | None
    """Of the frontier and the actual routes, over budgets from the cheapest to the dearest candidate."""
    zero_router_aiq: Estimate | None
    """AIQ of mixing candidates at random."""
    aiq_gain: Estimate | None
    """`aiq` minus `zero_router_aiq`, paired by query."""
    perf_gain: Estimate | None
    """Over the frontier and the actual routes, against always calling best single."""
    cost_save: Estimate | None
    """Over the same; None where none of them scores as high as best single."""
    pareto_dist: Estimate
    """Of the frontier and the actual routes, to the Pareto frontier of these and the candidates."""
    arena_score: Estimate
    """Of the actual routes."""


def report_cost_quality(test: OutcomeTable, expected_costs: Floats | None, single: int) -> CostQualityReport | None:
    """Return the report on `test`, None where its costs or predictions are unknown; `single` is best single's column.

    What a call of each candidate costs is the mean of `expected_costs` (USD; queries x candidates), from queries that
    may be others.
    """
    if test.costs is None or test.predicted is None or expected_costs is None:
        return None
    frontier = trade_offs(test.scores, test.costs, test.predicted, expected_costs.mean(axis=0))
    measures = _measures(
        # The router's last column holds the actual routes, beside its configurations.
        np.column_stack([frontier.score, test.score]),
        np.column_stack([frontier.cost, test.of_called(test.costs)]),
        test.scores,
        test.costs,
        single=single,
    )
    found = {name: without_interval(value, OF_FRONTIER) for name, value in measures.items()}
    # These two are defined wherever costs are known.
    pareto_dist, arena_score = found["pareto_dist"], found["arena_score"]
    assert pareto_dist is not None and arena_score is not None
    return CostQualityReport(
        frontier=_frontier_points(frontier),
        aiq=found["aiq"],
        zero_router_aiq=found["zero_router_aiq"],
        aiq_gain=found["aiq_gain"],
        perf_gain=found["perf_gain"],
        cost_save=found["cost_save"],
        pareto_dist=pareto_dist,
        arena_score=arena_score,
    )


def _measures(
    router_scores: Floats, router_costs: Floats, scores: Floats, costs: Floats, *, single: int
) -> dict[str, float]:
    """The measures on one sample of the queries; the router's last column holds the actual routes."""
    # Means first: a configuration is a point of mean cost and mean score.
    router = Points(router_costs.mean(axis=0), router_scores.mean(axis=0))
    pool = candidate_points(scores, costs)
    aiq, zero_router_aiq = pool_aiq(router, pool), pool_aiq(pool, pool)
    return {
        "aiq": aiq,
        "zero_router_aiq": zero_router_aiq,
        "aiq_gain": aiq - zero_router_aiq,
        "perf_gain": cost_quality.perf_gain(router, float(pool.score[single])),
        "cost_save": cost_quality.cost_save(router, float(pool.score[single]), float(pool.cost[single])),
        "pareto_dist": cost_quality.pareto_dist(router, pool),
        "arena_score": cost_quality.arena_score(router.score[-1], router.cost[-1]),
    }


def _frontier_points(frontier: TradeOffs) -> tuple[FrontierPoint, ...]:
    points = frontier.points()
    rows: list[FrontierPoint] = []
    # Neighbouring lambdas often route alike.
    for cost, score, weight in zip(points.cost, points.score, frontier.weight, strict=True):
        if not rows or (cost, score) != (rows[-1].cost, rows[-1].score):
            trade_off = float(weight) if np.isfinite(weight) else None
            rows.append(FrontierPoint(cost=float(cost), score=float(score), trade_off=trade_off))
    return tuple(rows)
