"""Outcomes as arrays, and the words and digits that estimates are shown in."""

import numpy as np
import pytest

from causal_lm_router.evaluation.formatting import (
    COST,
    PERCENT,
    SCORE,
    Form,
    count,
    form_of,
    format_estimate,
    format_p,
    format_two_lines,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.outcome_table import NOBODY, OutcomeTable, row_table

NAMES = ("a", "b", "c")


@pytest.fixture
def table() -> OutcomeTable:
    """One query routed to c, one that names nobody and falls back on a, one on which nobody is called."""
    return OutcomeTable(
        candidate_names=NAMES,
        tasks=("x", "x", "y"),
        routes=np.array([2, NOBODY, NOBODY]),
        called=np.array([2, 0, NOBODY]),
        scores=np.array([[0.1, 0.5, 0.5], [1.0, 0.0, 0.0], [0.2, 0.3, 0.4]]),
        costs=np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]),
        expected=None,
        predicted=None,
    )


def test_called_candidates_have_scores_and_costs(table: OutcomeTable) -> None:
    assert table.score.tolist() == [0.5, 1.0, 0.0]
    assert table.costs is not None
    assert table.of_called(table.costs).tolist() == [3, 4, 0]
    assert table.calls.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert table.is_right.tolist() == [True, False, False], "a fallback is never right"
    assert table.best_score.tolist() == [0.5, 1.0, 0.4]


def test_candidates_in_another_order_are_the_same_outcomes(table: OutcomeTable) -> None:
    turned = table.in_order(["c", "a", "b"])
    assert turned.scores.tolist() == [[0.5, 0.1, 0.5], [0.0, 1.0, 0.0], [0.4, 0.2, 0.3]]
    assert turned.routes.tolist() == [0, NOBODY, NOBODY]
    assert turned.called.tolist() == [0, 1, NOBODY]
    assert turned.score.tolist() == table.score.tolist()
    assert turned.predicted is None
    back = turned.in_order(NAMES)
    assert np.array_equal(back.scores, table.scores) and np.array_equal(back.called, table.called)


def test_a_row_that_does_not_fit_names_its_query() -> None:
    row = {"query_id": "q7", "task": "x", "label": "a", "route": "b", "called": "b", "scores": dict.fromkeys(NAMES, 1)}
    assert row_table([row], NAMES).routes.tolist() == [1]
    with pytest.raises(ValueError, match=r"query 'q7': route .* got 'd'"):
        row_table([row | {"route": "d"}], NAMES)
    with pytest.raises(ValueError, match="query 'q7': predicted"):
        row_table([row | {"predicted": {"a": 0.5}}], NAMES)
    with pytest.raises(KeyError, match="scores"):
        row_table([{key: value for key, value in row.items() if key != "scores"}], NAMES)


def test_estimates_are_shown_in_their_form() -> None:
    estimate = Estimate(value=0.5, low=0.25, high=0.75)
    assert format_estimate(estimate, SCORE) == "0.500 [0.250, 0.750]"
    assert format_estimate(estimate, PERCENT) == "50.0% [25.0%, 75.0%]"
    assert format_estimate(estimate, Form("+.1f", 100, " points")) == "+50.0 points [+25.0, +75.0]"
    assert format_estimate(Estimate(value=0.5), SCORE) == format_estimate(0.5, SCORE) == "0.500"
    assert format_estimate(None, SCORE) == "unknown"
    assert format_two_lines(estimate, SCORE).plain == "0.500\n[0.250, 0.750]"
    assert (form_of("regret"), form_of("mean_cost"), form_of("fuzzy_rate")) == (SCORE, COST, PERCENT)


def test_costs_of_cheap_pools_keep_their_digits() -> None:
    assert format_estimate(1.2345, COST) == "1,234.500"
    assert format_estimate(Estimate(value=0.0000123, low=0.0, high=0.0005), COST) == "0.0123 [0, 0.5]"


def test_counts_and_p_values_in_words() -> None:
    assert [count(number, "query", "queries") for number in (0, 1, 1200)] == ["0 queries", "1 query", "1,200 queries"]
    assert [format_p(value) for value in (None, 0.0001, 0.0214)] == ["", "<0.001", "0.021"]
