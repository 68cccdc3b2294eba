"""References: ways of choosing that need no router, on the same queries.

Arrays have a row per query and, where two-dimensional, a column per candidate in pool order. A choice is such an array
of weights: 1 for the candidate chosen, 1 / pool size each for a choice at random.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.data.train_means import TrainMeans
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate
from causal_lm_router.evaluation.measures.cost_quality import Points, convex_hull
from causal_lm_router.evaluation.report import Reference

_DRAWN = ("random", "same_cost_mixture")
"""References that draw a candidate: they are right with a chance per query."""


def reference_choices(
    scores: Floats,
    costs: Floats | None,
    expected: Floats | None,
    single: int,
    tasks: Sequence[str],
    names: Sequence[str],
    means: TrainMeans | None,
    mean_cost: float | None,
) -> dict[str, Floats]:
    """Return the choice of every reference; `single` is the column of best single.

    Ties: the oracle takes the cheapest best candidate (the first where costs are unknown), bayes the first candidate of
    the highest expected score. The per-task table needs `means`; a task without training queries gets best single. The
    mixture needs `mean_cost`, that of the router, too: see `mix_at_cost`.
    """
    is_best = scores == scores.max(axis=1, keepdims=True)
    # What the oracle prefers among the best candidates: a low cost.
    tie_key = np.zeros_like(scores) if costs is None else costs
    # A row of the identity matrix is the choice of one candidate.
    one_hot = np.eye(scores.shape[1])
    choices = {
        "random": np.full_like(scores, 1 / scores.shape[1]),
        "best_single": np.tile(one_hot[single], (len(scores), 1)),
    }
    if means is not None:
        choices["per_task_best"] = one_hot[_best_by_task(tasks, names, means, single)]
        if costs is not None and mean_cost is not None and means.costs is not None:
            mixture = mix_at_cost(means, costs.mean(axis=0), names, mean_cost)
            choices["same_cost_mixture"] = np.tile(mixture, (len(scores), 1))
    choices["oracle"] = one_hot[np.where(is_best, tie_key, np.inf).argmin(axis=1)]
    if expected is not None:
        choices["bayes"] = one_hot[expected.argmax(axis=1)]
    return choices


def evaluate_references(choices: Mapping[str, Floats], scores: Floats, costs: Floats | None) -> dict[str, Reference]:
    """Return what each choice gets."""
    return {name: _reference(choice, scores, costs, is_rate=name not in _DRAWN) for name, choice in choices.items()}


def mix_at_cost(means: TrainMeans, costs: Floats, names: Sequence[str], mean_cost: float) -> Floats:
    """Return [C]: the chances with which to call candidates blindly, at a mean cost of `mean_cost` (USD) a query.

    The best such mixture draws between two neighbours on the non-decreasing convex hull of the candidates' mean costs
    and scores, here those on train; `costs` [C] are the candidates' mean costs on the queries themselves. Cheaper than
    its cheapest or dearer than its dearest candidate there is nothing to mix: then it is that one. Source: the Zero
    router of RouterBench (arXiv 2403.12031, section 3).
    """
    assert means.costs is not None, "costs are known"
    points = Points(np.array([means.costs[name] for name in names]), np.array([means.scores[name] for name in names]))
    hull = convex_hull(points)
    # The hull has points; each is the first candidate that lies there.
    corners = [
        int(np.flatnonzero((points.cost == cost) & (points.score == score))[0])
        for cost, score in zip(hull.cost, hull.score, strict=True)
    ]
    # The order of costs may be another one on these queries.
    corners.sort(key=lambda column: costs[column])
    chances = np.eye(len(names))[corners]
    return np.array([np.interp(mean_cost, costs[corners], chances[:, column]) for column in range(len(names))])


def _best_by_task(tasks: Sequence[str], names: Sequence[str], means: TrainMeans, single: int) -> list[int]:
    # Of equal means best single goes first, then the pool's order.
    best = {}
    for task, scores in means.by_task.items():
        ordered = sorted(range(len(names)), key=lambda column: (-scores[names[column]], column != single))
        best[task] = ordered[0]
    return [best.get(task, single) for task in tasks]


def _reference(choice: Floats, scores: Floats, costs: Floats | None, *, is_rate: bool) -> Reference:
    best_score = scores.max(axis=1)
    is_right = (choice * (scores == best_score[:, None])).sum(axis=1)
    score = (choice * scores).sum(axis=1)
    return Reference(
        mean_score=mean_estimate(score),
        # A choice at random is right with a chance per query, which is a mean of shares and not a count of hits.
        routing_accuracy=rate_estimate(int(is_right.sum()), len(is_right)) if is_rate else mean_estimate(is_right),
        regret=mean_estimate(best_score - score),
        mean_cost=None if costs is None else _reference_cost(choice, costs),
    )


def _reference_cost(choice: Floats, costs: Floats) -> Estimate:
    # A further call may go to any candidate that the choice sends a query to: for best single to it alone.
    is_called = (choice == 1).any(axis=0)
    dearest = float((costs.mean(axis=0) * is_called).max())
    return mean_estimate((choice * costs).sum(axis=1), Measure.cost, dearest)
