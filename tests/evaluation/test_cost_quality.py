"""Frontier, hull and the values over them, on values worked out by hand and by brute force."""

import numpy as np
import pytest

from causal_lm_router.evaluation.measures.cost_quality import (
    Points,
    aiq,
    arena_score,
    candidate_points,
    convex_hull,
    cost_save,
    pareto_dist,
    pareto_front,
    perf_gain,
    pool_aiq,
    trade_offs,
)
from causal_lm_router.evaluation.measures.two_candidates import call_curve

POINTS = Points(np.array([5.0, 1, 3, 2, 4]), np.array([0.8, 0.2, 0.7, 0.6, 0.9]))


def test_trade_offs_by_hand() -> None:
    # Query 0 goes to the cheap candidate from lambda 0.4 / 2 on, query 1 from 0.1 / 2 on.
    scores, costs = np.array([[0.0, 1], [1, 1]]), np.array([[1.0, 3], [1, 5]])
    frontier = trade_offs(scores, costs, np.array([[0.2, 0.6], [0.5, 0.6]]), np.array([1.0, 3]))
    assert frontier.weight.tolist() == [0, pytest.approx(0.125), np.inf]
    assert frontier.points().cost.tolist() == [4, 2, 1]
    assert frontier.points().score.tolist() == [1, 1, 0.5]


def test_tied_predictions_go_to_the_cheaper_candidate_and_else_at_random() -> None:
    scores, costs = np.array([[0.0, 1, 1]]), np.array([[1.0, 2, 4]])
    tied = np.array([[0.3, 0.5, 0.5]])
    assert trade_offs(scores, costs, tied, np.array([1.0, 2, 4])).points().cost[[0, -1]].tolist() == [2, 1]
    at_random = trade_offs(scores, costs, tied, np.array([1.0, 2, 2])).points()
    assert at_random.cost[[0, -1]].tolist() == [3, 1]
    all_alike = trade_offs(scores, costs, tied, np.array([1.0, 1, 1])).points()
    assert all_alike.cost.tolist() == [3, 3]


def test_trade_offs_pass_through_every_routing_and_no_more_than_allowed() -> None:
    random = np.random.default_rng(0)
    scores, costs, predicted = random.random((3, 12, 4))
    expected = costs.mean(axis=0)
    exact = trade_offs(scores, costs, predicted, expected, max_weights=10_000).points()
    found = set(exact.cost.round(9))
    for weight in np.geomspace(1e-3, 1e3, 2_000):
        routes = (predicted - weight * expected).argmax(axis=1)
        assert costs[np.arange(12), routes].mean().round(9) in found
    coarse = trade_offs(scores, costs, predicted, expected, max_weights=7)
    assert len(coarse.weight) <= 8
    assert set(coarse.points().cost.round(9)) <= found


def test_trade_offs_between_two_candidates_are_the_thresholds_of_a_win_share() -> None:
    random = np.random.default_rng(1)
    scores, costs = random.random((2, 30, 2))
    predicted = np.column_stack([np.zeros(30), random.random(30)])
    by_weight = trade_offs(scores, costs, predicted, np.array([1.0, 2]), max_weights=100).points()
    win_share = predicted[:, 1] - predicted[:, 0]
    for found, values in ((by_weight.cost, costs), (by_weight.score, scores)):
        assert found[::-1] == pytest.approx(call_curve(values[:, 0], values[:, 1], win_share).quality)


def test_hull_by_hand() -> None:
    # (3, 0.7) lies under the line from (2, 0.6) to (4, 0.9), and (5, 0.8) costs more for less.
    hull = convex_hull(POINTS)
    assert hull.cost.tolist() == [1, 2, 4]
    assert hull.score.tolist() == [0.2, 0.6, 0.9]


def test_hull_is_the_best_mixture_of_two_points() -> None:
    points = Points(*np.random.default_rng(3).random((2, 9)))
    hull = convex_hull(points)
    parts = np.linspace(0, 1, 401)
    for budget in np.linspace(hull.cost[0], 1, 7):
        best = max(
            float(np.max(part * points.score[i] + (1 - part) * points.score[j]))
            for i in range(9)
            for j in range(9)
            if (part := parts[parts * points.cost[i] + (1 - parts) * points.cost[j] <= budget + 1e-12]).size
        )
        reached = np.interp(budget, hull.cost, hull.score)
        assert best <= reached + 1e-9
        assert best == pytest.approx(reached, abs=0.01)


def test_aiq_by_hand() -> None:
    # From 1 to 2: 0.4, from 2 to 4: 1.5, level to 6: 1.8.
    assert aiq(POINTS, 1, 6) == pytest.approx(3.7 / 5)
    # Below the cheapest point on the line to no cost and no score: 0.1 at 0.5, so 0.075 more.
    assert aiq(POINTS, 0.5, 6) == pytest.approx(3.775 / 5.5)
    assert np.isnan(aiq(POINTS, 2, 2))


def test_zero_router_mixes_candidates() -> None:
    # Candidates at (1, 0.2), (3, 0.6) and, beaten by a mixture, (2, 0.3): the mean over budgets is 0.4.
    scores, costs = np.array([[0.2, 0.6, 0.3]]), np.array([[1.0, 3, 2]])
    pool = candidate_points(scores, costs)
    assert pool_aiq(pool, pool) == pytest.approx(0.4)
    assert pool_aiq(Points(np.array([1.0, 2]), np.array([0.2, 0.6])), pool) == pytest.approx(0.5)


def test_gain_saving_and_distance_by_hand() -> None:
    assert perf_gain(POINTS, 0.75) == pytest.approx(0.2)
    assert cost_save(POINTS, 0.6, 4) == pytest.approx(0.5)
    assert cost_save(POINTS, 0.6, 1) == pytest.approx(-1)
    assert np.isnan([cost_save(POINTS, 0.95, 4), cost_save(POINTS, 0.6, 0), perf_gain(POINTS, 0)]).all()
    # The frontier is (1, 0.5) and (3, 1); (3, 0.5) is a whole span from both, (1, 0.5) is on it.
    router, others = Points(np.array([1.0, 3]), np.array([0.5, 0.5])), Points(np.array([2.0, 3]), np.array([0.5, 1]))
    assert pareto_dist(router, others) == pytest.approx(0.5)
    assert pareto_dist(others, router) == pytest.approx(0.25)
    same = Points(np.array([1.0]), np.array([0.5]))
    assert pareto_dist(same, same) == 0


def test_pareto_front_by_hand() -> None:
    cost, score = [1.0, 2, 2, 3, 0.5, 4, 4], [0.5, 0.5, 0.7, 0.6, 0.1, 0.9, 0.9]
    front = pareto_front(Points(np.array(cost), np.array(score)))
    assert (front.cost.tolist(), front.score.tolist()) == ([0.5, 1.0, 2.0, 4.0], [0.1, 0.5, 0.7, 0.9])
    assert len(pareto_front(Points(np.array([]), np.array([]))).cost) == 0


def test_arena_score() -> None:
    # Half way between the bounds on the logarithmic scale C is 0.5: 1.1 x 0.25 / (0.05 + 0.5) = 0.5.
    assert arena_score(0.5, (200 * 0.0044) ** 0.5 / 1000) == pytest.approx(0.5)
    assert arena_score(0.5, 0) == arena_score(0.5, 0.0044 / 1000) == pytest.approx(0.55 / 1.05)
    assert arena_score(0.5, 1) == 0
    assert arena_score(0, 1) == 0
    # github.com/RouteWorks/RouterArena/pull/139: accuracy 72.05, USD 0.20 (rounded) per 1,000 queries, score 71.26.
    assert arena_score(0.7205, 0.20 / 1000) == pytest.approx(0.7126, abs=5e-4)
