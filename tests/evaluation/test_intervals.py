"""Intervals against published values, another implementation and values worked out by hand."""

import pytest
from scipy.stats import binomtest

from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate, ratio_estimate


def test_wilson_interval_equals_published_and_independent_values() -> None:
    eight_of_ten = rate_estimate(8, 10)
    assert eight_of_ten.value == 0.8
    assert eight_of_ten.standard_error == pytest.approx((0.8 * 0.2 / 10) ** 0.5)
    assert (eight_of_ten.low, eight_of_ten.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)
    for num_hits, num_total in [(0, 1), (0, 10), (3, 7), (10, 10), (499, 500)]:
        estimate, other = (
            rate_estimate(num_hits, num_total),
            binomtest(num_hits, num_total).proportion_ci(method="wilson"),
        )
        assert (estimate.low, estimate.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert rate_estimate(0, 10).low == 0
    assert rate_estimate(10, 10).high == 1


@pytest.mark.parametrize(("num_hits", "num_total"), [(0, 0), (2, 1), (-1, 3)])
def test_impossible_rates_are_errors(num_hits: int, num_total: int) -> None:
    with pytest.raises(ValueError, match="0 <= hits <= total"):
        rate_estimate(num_hits, num_total)


def test_mean_interval() -> None:
    # 0, 1, 1, 2: variance 2 / 3, standard error sqrt(2 / 12) = 0.408248, half width 0.800152
    estimate = mean_estimate([0, 1, 1, 2])
    assert estimate.value == 1
    assert estimate.standard_error == pytest.approx(0.408248, abs=1e-6)
    assert (estimate.low, estimate.high) == pytest.approx((0.199848, 1.800152), abs=1e-6)


def test_mean_of_one_value_has_no_interval() -> None:
    assert mean_estimate([0.5]) == Estimate(value=0.5)


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
    assert estimate.low == pytest.approx(0.75 - 1.959964 * 0.286411, abs=1e-5)
    assert ratio_estimate([1, 2], [1, -1]) is None
    assert ratio_estimate([1, 2], [-1, -1]) is None
