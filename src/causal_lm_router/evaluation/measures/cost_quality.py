"""What quality costs: a router's frontier, and measures of it.

A router's configuration is a point of mean cost (USD per query) and mean score. Mixing two configurations at random
gives every point between them, so the hull over points is what a router can reach (RouterBench, arXiv 2403.12031,
section 3).
"""

from typing import NamedTuple

import numpy as np

from causal_lm_router.data.arrays import Floats


class Points(NamedTuple):
    """Mean costs (USD per query) and mean scores of configurations, one each."""

    cost: Floats
    score: Floats


class TradeOffs(NamedTuple):
    """The configurations of a trade-off: lambda (score per USD, infinite for the last) and what each query gets there.

    `score` and `cost` have a row per query and a column per lambda.
    """

    weight: Floats
    score: Floats
    cost: Floats

    def points(self) -> Points:
        """The frontier: mean cost and mean score at every lambda."""
        return Points(self.cost.mean(axis=0), self.score.mean(axis=0))


def trade_offs(
    scores: Floats, costs: Floats, predicted: Floats, predicted_costs: Floats, max_weights: int = 50
) -> TradeOffs:
    """Return what the router gets at lambda from 0 to infinity, where it calls argmax of prediction - lambda x cost.

    `predicted_costs` (USD, one per candidate) is what the router is told a call will cost: a query's own cost is known
    only after the answer. Routes change at the breakpoints (difference of predictions) / (difference of costs). With
    fewer than `max_weights` of them there is a lambda between each two, so every frontier point is there; with more,
    lambdas are evenly spaced quantiles of them. Ties go to the cheaper candidate, as under the smallest lambda; at
    infinity to the one of the higher prediction; what is tied then too is shared evenly.
    """
    weights = _weights(predicted, predicted_costs, max_weights)
    # A column per lambda: what each query scores and costs under its routes.
    shape = (len(scores), len(weights))
    score, cost = np.empty(shape), np.empty(shape)
    for column, weight in enumerate(weights):
        routes = _routes(predicted, predicted_costs, weight)
        score[:, column], cost[:, column] = (routes * scores).sum(axis=1), (routes * costs).sum(axis=1)
    return TradeOffs(weights, score, cost)


def _weights(predicted: Floats, predicted_costs: Floats, max_weights: int) -> Floats:
    """The lambdas of `trade_offs`, ascending."""
    # Two candidates change places on a query where lambda = gain in prediction / extra cost.
    first, second = np.triu_indices(len(predicted_costs), 1)
    gains = predicted[:, first] - predicted[:, second]
    extra_costs = np.broadcast_to(predicted_costs[first] - predicted_costs[second], gains.shape)
    quotients = np.divide(gains, extra_costs, out=np.zeros_like(gains), where=extra_costs != 0)
    breakpoints = np.unique(quotients[quotients > 0])
    # Between two breakpoints nothing changes, so any lambda there stands for all.
    if len(breakpoints) < max_weights - 1:
        between = (breakpoints[1:] + breakpoints[:-1]) / 2
    else:
        between = np.unique(np.quantile(breakpoints, np.linspace(0, 1, max_weights)[1:-1]))
    return np.concatenate([[0.0], between, [np.inf]])


def _routes(predicted: Floats, predicted_costs: Floats, weight: float) -> Floats:
    """The weight of every candidate in each query's route."""
    # Infinite lambda is looked at apart: only costs count, and predictions break ties.
    value = (
        -np.broadcast_to(predicted_costs, predicted.shape) if np.isinf(weight) else predicted - weight * predicted_costs
    )
    tie_break = predicted if np.isinf(weight) else -np.broadcast_to(predicted_costs, predicted.shape)
    is_best = value == value.max(axis=1, keepdims=True)
    tied = np.where(is_best, tie_break, -np.inf)
    # What is still tied is shared evenly: the mean over drawing one of them.
    is_called = tied == tied.max(axis=1, keepdims=True)
    return np.asarray(is_called / is_called.sum(axis=1, keepdims=True))


def candidate_points(scores: Floats, costs: Floats) -> Points:
    """Return the points of always calling one candidate, in pool order."""
    return Points(costs.mean(axis=0), scores.mean(axis=0))


def convex_hull(points: Points) -> Points:
    """Return the corners of the non-decreasing convex hull, costs and scores ascending.

    It is the upper edge of what mixing at random reaches, cut at the highest score: more money never means a lower
    score. Source: RouterBench, arXiv 2403.12031, section 3 (non-decreasing convex hull).
    """
    hull: list[tuple[float, float]] = []
    # From the cheapest up; of equal costs the highest score first.
    for index in np.lexsort((-points.score, points.cost)):
        corner = (float(points.cost[index]), float(points.score[index]))
        if hull and corner[1] <= hull[-1][1]:
            continue
        # The new corner may leave earlier ones under the line to it.
        while len(hull) > 1 and _lies_under(hull[-1], hull[-2], corner):
            hull.pop()
        hull.append(corner)
    return Points(np.array([cost for cost, _ in hull]), np.array([score for _, score in hull]))


def _lies_under(middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> bool:
    """True where the middle corner is on or below the line between the other two; costs do not descend."""
    # Slopes are compared without dividing, as costs may be equal.
    rise, run = right[1] - left[1], right[0] - left[0]
    return (middle[1] - left[1]) * run <= rise * (middle[0] - left[0])


def aiq(points: Points, min_cost: float, max_cost: float) -> float:
    """Return AIQ, the mean score of the hull over budgets from `min_cost` to `max_cost` (USD per query).

    AIQ = 1 / (c_max - c_min) x the integral of the non-decreasing convex hull from c_min to c_max; the bounds are the
    same for all routers compared. Above its highest point the hull is level; below its cheapest point the router is
    mixed with calling no LLM (no cost, score 0). NaN unless c_max is above c_min. Source: RouterBench, arXiv
    2403.12031, section 3; its code (withmartian/routerbench, evaluation/AIQ.py) divides by c_max instead, the highest
    cost of the routers compared, and counts nothing below a router's cheapest point.
    """
    if max_cost - min_cost <= 1e-15:
        return float("nan")
    hull = convex_hull(points)
    # Below its cheapest point the router is mixed with calling nobody.
    if hull.cost[0] > 0:
        hull = Points(np.append(0.0, hull.cost), np.append(0.0, hull.score))
    # The area under straight lines is exact when all corners between the bounds are among the budgets.
    budgets = np.unique(np.concatenate([[min_cost, max_cost], np.clip(hull.cost, min_cost, max_cost)]))
    reached = np.interp(budgets, hull.cost, hull.score)
    return float(np.trapezoid(reached, budgets) / (max_cost - min_cost))


def pool_aiq(points: Points, candidates: Points) -> float:
    """Return AIQ from the cheapest to the dearest of the candidates' points.

    Of the candidates' own points it is the AIQ of the Zero router, which knows nothing of the query and mixes
    candidates at random; a router is worth its name where its AIQ is higher. Source: RouterBench, arXiv 2403.12031,
    section 3.
    """
    return aiq(points, float(candidates.cost.min()), float(candidates.cost.max()))


def perf_gain(points: Points, single_score: float) -> float:
    """Return PerfGain = (highest score of the router's configurations) / (score of best single) - 1.

    The highest is taken on the same queries, which favours routers of many configurations. NaN where best single
    scores 0. Source: LLMRouterBench, arXiv 2601.07206, which states it in words ("maximum performance improvement over
    the best single model"); that it is relative, and over queries rather than averaged over data sets, is assumed here.
    """
    return float(points.score.max()) / single_score - 1 if single_score > 0 else float("nan")


def cost_save(points: Points, single_score: float, single_cost: float) -> float:
    """Return CostSave = 1 - (cost of the cheapest configuration that scores at least as best single) / (its cost).

    NaN where no configuration scores that high or best single costs nothing; below 0 where it takes more money.
    Source: LLMRouterBench, arXiv 2601.07206, in words ("largest saving at no lower accuracy than best single").
    """
    # Means of the same scores may differ by rounding.
    is_enough = points.score >= single_score - 1e-12
    return (
        1 - float(points.cost[is_enough].min()) / single_cost if is_enough.any() and single_cost > 0 else float("nan")
    )


def pareto_front(points: Points) -> Points:
    """Return the points that no other beats, cheapest first; equal points are one.

    A point beats another that costs as much or more and scores as high or lower, unless the two are equal.
    """
    # Of equal costs the highest score comes first, so a point is on the front when it scores above all before it.
    order = np.lexsort((-points.score, points.cost))
    cost, score = points.cost[order], points.score[order]
    best_before = np.append(-np.inf, np.maximum.accumulate(score)[:-1])
    return Points(cost[score > best_before], score[score > best_before])


def pareto_dist(points: Points, others: Points) -> float:
    """Return ParetoDist, the mean distance of the router's configurations to the Pareto frontier: 0 is best.

    The frontier is that of the points of the router and `others` together (see `pareto_front`). Costs and scores are
    scaled so that all these points span 0..1 on both axes; the distance is Euclidean, to the nearest frontier point.
    Source: LLMRouterBench, arXiv 2601.07206, in words ("average distance to the Pareto frontier"); its scaling could
    not be checked, so the values are comparable only where `others` are the same.
    """
    together = Points(np.append(points.cost, others.cost), np.append(points.score, others.score))
    front = pareto_front(together)
    squares = np.zeros((len(points.cost), len(front.cost)))
    for own, all_values, on_front in zip(points, together, front, strict=True):
        # Where all values are equal there is nothing to scale.
        span = np.ptp(all_values) or 1.0
        squares += ((own[:, None] - on_front) / span) ** 2
    return float(np.sqrt(squares.min(axis=1)).mean())


def arena_score(
    score: float, cost: float, beta: float = 0.1, max_cost: float = 200.0, min_cost: float = 0.0044
) -> float:
    """Return the Arena score S = (1 + beta) A C / (beta A + C) of mean score A and mean cost (USD per query).

    C = (log2 max_cost - log2 c) / (log2 max_cost - log2 min_cost) with c the cost in USD of 1,000 queries, kept within
    the two bounds (USD per 1,000 queries). Source: RouterArena, arXiv 2510.00202; constants and clamping from its code
    (RouteWorks/RouterArena, llm_evaluation/run.py), which refuses a cost of 0 where this takes `min_cost`.
    """
    per_thousand = min(max(1000 * cost, min_cost), max_cost)
    cheapness = np.log2(max_cost / per_thousand) / np.log2(max_cost / min_cost)
    divisor = beta * score + cheapness
    return float((1 + beta) * score * cheapness / divisor) if divisor > 0 else 0.0
