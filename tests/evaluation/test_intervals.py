"""Intervals against published values, another implementation and values worked out by hand."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, norm, t, ttest_1samp

from causal_lm_router.evaluation.interval_formulas import Measure, limits
from causal_lm_router.evaluation.intervals import mean_estimate, rate_estimate, ratio_estimate


def test_exact_interval_equals_published_and_independent_values() -> None:
    eight_of_ten = rate_estimate(8, 10)
    assert eight_of_ten.value == 0.8
    assert eight_of_ten.standard_error == pytest.approx((0.8 * 0.2 / 10) ** 0.5)
    assert (eight_of_ten.low, eight_of_ten.high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    for num_hits, num_total in [(0, 1), (0, 10), (3, 7), (10, 10), (499, 500)]:
        estimate, other = rate_estimate(num_hits, num_total), binomtest(num_hits, num_total).proportion_ci()
        assert (estimate.low, estimate.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert (rate_estimate(0, 10).low, rate_estimate(10, 10).high) == (0, 1)
    assert rate_estimate(10, 10).standard_error is None, "equal answers say nothing of the spread"


@pytest.mark.parametrize(("num_hits", "num_total"), [(0, 0), (2, 1), (-1, 3)])
def test_impossible_rates_are_errors(num_hits: int, num_total: int) -> None:
    with pytest.raises(ValueError, match="0 <= hits <= total"):
        rate_estimate(num_hits, num_total)


def test_a_mean_of_right_and_wrong_answers_is_a_rate() -> None:
    assert mean_estimate([0, 1, 1, 1, 0, 0, 0, 0]).low == pytest.approx(rate_estimate(3, 8).low)


def test_scores_have_the_interval_of_their_effective_number_of_queries() -> None:
    # Mean 0.5, variance of the mean 0.01 / 30 * 30 / 29: as certain as 0.25 x 2900 = 725 answers, less for Student's t.
    estimate = mean_estimate([0.4, 0.6] * 15)
    size = 725 * (norm.ppf(0.975) / t.ppf(0.975, 29)) ** 2
    assert estimate.low == pytest.approx(beta.ppf(0.025, size / 2, size / 2 + 1))
    assert estimate.high == pytest.approx(beta.ppf(0.975, size / 2 + 1, size / 2))


def test_no_interval_leaves_what_a_measure_can_be() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        scores = random.random(4) ** random.choice([0.05, 1, 20])
        for values, measure in ((scores, Measure.share), (np.tile(2 * scores - 1, 3), Measure.difference)):
            estimate = mean_estimate(values, measure)
            lowest, highest = limits(measure)
            assert estimate.low is not None and estimate.high is not None
            assert lowest <= estimate.low < estimate.value < estimate.high <= highest


def test_what_says_too_little_has_no_interval_and_a_note() -> None:
    for values, measure, note in (
        ([0.5] * 30, Measure.share, "all values are equal, which says nothing of the spread"),
        ([0.0] * 500, Measure.difference, "needs at least 5 queries that differ"),
        ([1.0, -1, 1, 1] + [0.0] * 500, Measure.difference, "needs at least 5 queries that differ"),
        ([0.1] * 29 + [0.0] * 30, Measure.cost, "needs at least 30 calls with a cost"),
        ([0.1, -0.1] * 24 + [0.0] * 60, Measure.cost_difference, "needs at least 50 queries whose costs differ"),
        ([0.5], Measure.share, "a single query says nothing of the spread"),
    ):
        estimate = mean_estimate(values, measure)
        assert (estimate.low, estimate.high, estimate.note) == (None, None, note)
    for num_queries, note in ((29, "needs at least 30 queries"), (30, "what is divided by could be 0")):
        found = ratio_estimate(
            [0.5] * num_queries, [-1.0] * (num_queries // 2) + [1.1] * (num_queries - num_queries // 2)
        )
        assert found is not None and (found.low, found.note) == (None, note)


def test_differences_that_are_all_equal_have_a_width() -> None:
    estimate = mean_estimate([1.0] * 20, Measure.difference)
    assert (estimate.value, estimate.high, estimate.standard_error) == (1, 1, None)
    assert estimate.low is not None and 0.6 < estimate.low < 0.9


def test_a_cost_allows_for_one_more_call_of_the_dearest() -> None:
    costs = np.random.default_rng(1).lognormal(size=100)
    plain, dear = mean_estimate(costs, Measure.cost), mean_estimate(costs, Measure.cost, 50.0)
    assert plain.low == dear.low
    assert plain.high is not None and dear.high is not None and dear.high > plain.high + 0.5


def test_values_outside_of_their_measure_are_errors() -> None:
    with pytest.raises(ValueError, match=r"a share must be in 0\.\.1, got 0\.0\.\.1\.5"):
        mean_estimate([0.0, 1.5])


def test_mean_of_one_value_has_no_interval() -> None:
    assert mean_estimate([0.5]).standard_error is None


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_means_that_are_no_numbers_are_errors(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value, all finite"):
        mean_estimate(values)


def test_ratio_interval() -> None:
    # Ratio 3 / 4; residuals 0.25, -0.75, 0.5: variance 0.875 / 2, its standard error sqrt(0.4375 / 3) = 0.381881,
    # over the mean divisor 4 / 3: 0.286411.
    estimate = ratio_estimate([1, 0, 2], [1, 1, 2])
    assert estimate is not None
    assert estimate.value == pytest.approx(0.75)
    assert estimate.standard_error == pytest.approx(0.286411, abs=1e-6)
    assert ratio_estimate([1, 2], [1, -1]) is None
    assert ratio_estimate([1, 2], [-1, -1]) is None


def test_the_ends_of_a_ratio_are_where_a_t_test_turns() -> None:
    random = np.random.default_rng(2)
    y, x = random.random(40), random.random(40) + 0.2
    estimate = ratio_estimate(y, x)
    assert estimate is not None
    for end in (estimate.low, estimate.high):
        assert ttest_1samp(y - end * x, 0).pvalue == pytest.approx(0.05)
