"""The label of a query: the best candidate, and every rule for ties."""

from collections import Counter

import pytest

from causal_lm_router.config import TieBreak
from causal_lm_router.data.labels import best_single, choose_labels, drop_undecided, rank_on_train
from causal_lm_router.routing import Candidate, RoutingExample

NAMES = ("large", "small", "tiny")
PRICED = (Candidate("large", 2.0, 8.0), Candidate("small", 0.2, 0.8), Candidate("tiny", 0.3, 0.6))
UNPRICED = tuple(Candidate(name) for name in NAMES)


def example(query_id: str, *scores: float, costs: tuple[float, ...] | None = None) -> RoutingExample:
    by_name = None if costs is None else dict(zip(NAMES, costs, strict=True))
    return RoutingExample(query_id, f"query {query_id}", "t", dict(zip(NAMES, scores, strict=True)), by_name)


TRAIN = [example("1", 0.2, 0.5, 0.9), example("2", 0.3, 0.6, 0.4)]  # means 0.25, 0.55, 0.65


@pytest.mark.parametrize("tie_break", TieBreak)
def test_the_best_score_wins_whatever_the_rule(tie_break: TieBreak) -> None:
    rows = [example("x", 0.9, 0.5, 0.5), example("y", 0.0, 1.0, 0.99)]
    assert choose_labels(rows, tie_break, PRICED, TRAIN, seed=0) == {"x": "large", "y": "small"}


def test_cheapest_goes_by_the_costs_of_the_query() -> None:
    rows = [example("x", 1, 1, 1, costs=(0.1, 0.3, 0.2)), example("y", 1, 1, 0, costs=(0.3, 0.2, 0.1))]
    assert choose_labels(rows, TieBreak("cheapest"), PRICED, TRAIN, seed=0) == {"x": "large", "y": "small"}


def test_cheapest_goes_by_the_sum_of_prices_without_costs() -> None:
    # 10.0, 1.0 and 0.9 USD
    rows = [example("x", 1, 1, 1), example("y", 1, 1, 0)]
    assert choose_labels(rows, TieBreak("cheapest"), PRICED, TRAIN, seed=0) == {"x": "tiny", "y": "small"}


def test_cheapest_of_equal_cost_is_the_first_of_the_pool() -> None:
    rows = [example("x", 0, 1, 1, costs=(0.1, 0.2, 0.2))]
    assert choose_labels(rows, TieBreak("cheapest"), PRICED, TRAIN, seed=0) == {"x": "small"}


@pytest.mark.parametrize("pool", [UNPRICED, (*PRICED[:2], UNPRICED[2])], ids=["no price", "one price missing"])
def test_cheapest_needs_costs_or_all_prices(pool: tuple[Candidate, ...]) -> None:
    with pytest.raises(ValueError, match=r"data\.tie_break .*best_on_train.* got 'cheapest': query 'x' "):
        choose_labels([example("x", 1, 1, 0)], TieBreak("cheapest"), pool, TRAIN, seed=0)


def test_best_on_train_goes_by_mean_train_score() -> None:
    rows = [example("x", 1, 1, 1), example("y", 1, 1, 0)]
    assert choose_labels(rows, TieBreak("best_on_train"), PRICED, TRAIN, seed=0) == {"x": "tiny", "y": "small"}


def test_first_goes_by_pool_order() -> None:
    rows = [example("x", 1, 1, 1), example("y", 0, 1, 1)]
    assert choose_labels(rows, TieBreak("first"), UNPRICED, [], seed=0) == {"x": "large", "y": "small"}


def test_random_is_even_and_only_among_the_best() -> None:
    rows = [example(str(number), 1, 0, 1) for number in range(1000)]
    counts = Counter(choose_labels(rows, TieBreak("random"), UNPRICED, TRAIN, seed=0).values())
    assert counts.keys() == {"large", "tiny"}
    # 500 with a standard deviation of 16
    assert 420 < counts["large"] < 580


def test_random_depends_on_seed_and_query_id_alone() -> None:
    rows = [example(str(number), 1, 1, 1) for number in range(100)]
    labels = choose_labels(rows, TieBreak("random"), UNPRICED, TRAIN, seed=0)
    backwards = choose_labels(rows[::-1][:50], TieBreak("random"), UNPRICED, TRAIN, seed=0)
    assert all(labels[query_id] == label for query_id, label in backwards.items())
    assert labels != choose_labels(rows, TieBreak("random"), UNPRICED, TRAIN, seed=1)


def test_random_is_the_same_in_every_process() -> None:
    rows = [example(query_id, 1, 1, 1) for query_id in "abcdef"]
    labels = choose_labels(rows, TieBreak("random"), UNPRICED, TRAIN, seed=0)
    # Recorded once: a hash that differs from process to process would not repeat them.
    assert list(labels.values()) == ["tiny", "tiny", "large", "tiny", "large", "tiny"]


def test_best_single_has_the_highest_mean_score() -> None:
    assert best_single(TRAIN, PRICED) == "tiny"
    assert rank_on_train(TRAIN, PRICED) == ["tiny", "small", "large"]


def test_best_single_of_equal_means_costs_least() -> None:
    costs = [example("1", 1, 0, 1, costs=(0.5, 0.25, 0.75)), example("2", 0, 1, 0, costs=(0.5, 0.5, 0.0))]
    # Means are 0.5 each; mean costs 0.5, 0.375 and 0.375: small stands before tiny in the pool.
    assert rank_on_train(costs, UNPRICED) == ["small", "tiny", "large"]


def test_best_single_of_equal_means_without_costs_has_the_lowest_price() -> None:
    train = [example("1", 0.5, 0.5, 0.5)]
    assert rank_on_train(train, PRICED) == ["tiny", "small", "large"]
    assert rank_on_train(train, UNPRICED) == ["large", "small", "tiny"]


def test_the_order_of_queries_does_not_break_a_tie() -> None:
    # 0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 in floating point.
    train = [example("1", 0.1, 0.3, 0), example("2", 0.2, 0.2, 0), example("3", 0.3, 0.1, 0)]
    assert rank_on_train(train, UNPRICED) == ["large", "small", "tiny"]


def test_best_single_needs_training_queries() -> None:
    with pytest.raises(ValueError, match=r"train .*at least 1 query"):
        best_single([], PRICED)


def test_undecided_queries_are_dropped() -> None:
    rows = [example("x", 0.5, 0.5, 0.5), example("y", 0.5, 0.5, 0.4), example("z", 0, 0, 0)]
    assert [row.query_id for row in drop_undecided(rows)] == ["y"]
