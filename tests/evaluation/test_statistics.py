"""Bootstrap over seeds and queries, exact McNemar, Holm: against hand-made numbers, other libraries and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from causal_lm_router.evaluation.intervals import mean_estimate
from causal_lm_router.evaluation.statistics import (
    Difference,
    MeanEstimate,
    Resampling,
    Sample,
    adjust_holm,
    correct_differences,
    estimate_differences,
    estimate_means,
    mcnemar_p,
)

MANY = Resampling(resamples=20_000)


def estimate(samples: list[Sample], resampling: Resampling = MANY) -> MeanEstimate:
    (only,) = estimate_means(samples, resampling)
    return only


def crossed(table: np.ndarray) -> list[Sample]:
    """A sample per row; all answer the same queries."""
    return [Sample("shared", row[:, None]) for row in table]


def test_one_seed_is_the_mean_over_queries() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.3, 400)
    expected = mean_estimate(values)
    mean = estimate(crossed(values[None])).estimate
    assert mean.value == pytest.approx(expected.value)
    assert mean.standard_error == pytest.approx(expected.standard_error, rel=0.03)
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_equal_seeds_do_not_make_queries_more_certain() -> None:
    values = np.random.default_rng(1).normal(size=200)
    one, four = estimate(crossed(values[None])), estimate(crossed(np.tile(values, (4, 1))))
    assert four.estimate.standard_error == pytest.approx(one.estimate.standard_error, rel=0.03)


def test_seeds_alone_have_the_unbiased_standard_error_and_few_degrees_of_freedom() -> None:
    means = np.array([0.50, 0.56, 0.59])
    mean = estimate(crossed(np.tile(means[:, None], (1, 50)))).estimate
    standard_error = means.std(ddof=1) / np.sqrt(3)
    assert mean.standard_error == pytest.approx(standard_error, rel=0.03)
    assert mean.high == pytest.approx(0.55 + stats.t.ppf(0.975, 2) * standard_error, rel=0.02)


@pytest.mark.slow
def test_other_queries_are_drawn_on_their_own() -> None:
    values = np.repeat([0.0, 1.0], 100)
    same, other = (
        estimate([Sample(name, values[:, None]) for name in names]) for names in ("aaaaaaaaaa", "abcdefghij")
    )
    assert same.estimate.standard_error == pytest.approx(0.5 / np.sqrt(200), rel=0.05)
    # Nine of ten equal seeds, drawn with replacement, are worth five: (9 + 9 * 8 / 10) / 9^2 = 1 / 5.
    assert other.estimate.standard_error == pytest.approx(0.5 / np.sqrt(200 * 5), rel=0.05)


def test_columns_are_estimated_together_and_on_their_own() -> None:
    table = np.random.default_rng(3).normal(size=(3, 80, 2))
    both = estimate_means([Sample("q", rows) for rows in table], Resampling())
    alone = [estimate(crossed(table[:, :, column]), Resampling()) for column in (0, 1)]
    for one, other in zip(both, alone, strict=True):
        assert one.estimate.value == pytest.approx(other.estimate.value)
        assert one.estimate.standard_error == pytest.approx(other.estimate.standard_error)


def test_large_tables_are_drawn_in_parts() -> None:
    # 2,000 resamples of 5,000 queries are more numbers than are held at once; 400 resamples are not.
    values = np.random.default_rng(4).normal(size=5000)
    expected = mean_estimate(values)
    for num_resamples in (400, 2000):
        mean = estimate(crossed(values[None]), Resampling(num_resamples, seed=5)).estimate
        assert mean.value == pytest.approx(expected.value)
        assert mean.standard_error == pytest.approx(expected.standard_error, rel=0.1)


def test_seed_of_the_bootstrap_decides_the_draws() -> None:
    samples = crossed(np.random.default_rng(6).normal(size=(2, 50)))
    one, again, other = (estimate(samples, Resampling(500, seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_interval_holds_the_truth_in_about_95_of_100_experiments() -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        # Query, seed and their interaction, as in a sweep: 3 seeds, 100 queries, true mean 0.
        table = random.normal(0, 1, (1, 100)) + random.normal(0, 0.1, (3, 1)) + random.normal(0, 0.5, (3, 100))
        mean = estimate(crossed(table), Resampling(400)).estimate
        assert mean.low is not None and mean.high is not None
        hits += mean.low <= 0 <= mean.high
    assert 0.93 <= hits / 300 <= 1


def test_one_query_has_no_interval() -> None:
    result = estimate([Sample("q", np.array([[0.5]]))])
    assert (result.estimate.value, result.estimate.low, result.p_value) == (0.5, None, None)


def test_equal_values_have_no_width() -> None:
    result = estimate(crossed(np.zeros((2, 30))))
    assert (result.estimate.low, result.estimate.high, result.p_value) == (0.0, 0.0, 1.0)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 100, got 10"):
        Resampling(10)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (25, 10), (7, 8), (300, 200), (0, 40)])
def test_mcnemar_of_one_seed_is_the_binomial_test(wins: int, losses: int) -> None:
    sums = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 50)
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_p(sums) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_several_seeds_is_the_share_of_signs_that_reach_the_total() -> None:
    sums = np.array([3, -1, 2, 2, 0, 1, -2, 3, 1])
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=len(sums))]
    expected = np.mean([total >= abs(sums.sum()) for total in totals])
    assert mcnemar_p(sums) == pytest.approx(expected)


def test_mcnemar_does_not_count_a_query_once_a_seed() -> None:
    one = np.array([1] * 14 + [-1] * 5)
    assert mcnemar_p(5 * one) == pytest.approx(mcnemar_p(one))


def test_holm_by_hand() -> None:
    # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1; never below the one before.
    adjusted = adjust_holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02})
    assert adjusted == pytest.approx({"b": 0.04, "d": 0.06, "c": 0.06, "a": 0.06})
    assert adjust_holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert adjust_holm({}) == {}


def test_the_larger_of_two_p_values_is_corrected() -> None:
    same = estimate(crossed(np.ones((1, 4)))).estimate
    found = correct_differences(
        {
            "a": Difference(estimate=same, bootstrap_p=0.001, mcnemar_p=0.02),
            "b": Difference(estimate=same, bootstrap_p=0.03, mcnemar_p=None),
        }
    )
    assert {key: one.adjusted_p for key, one in found.items()} == pytest.approx({"a": 0.04, "b": 0.04})
    assert [one.verdict for one in found.values()] == ["significantly better"] * 2


def test_only_the_accuracy_column_has_an_exact_test_over_the_sums_of_the_seeds() -> None:
    seeds = [np.array([[1.0, 0.5], [0.0, 0.2], [1.0, 0.1]]), np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, 0.3]])]
    accuracy, score = estimate_differences([Sample("q", rows) for rows in seeds], Resampling(), accuracy=0)
    assert accuracy.mcnemar_p == pytest.approx(mcnemar_p(np.array([2.0, -1.0, 1.0])))
    assert score.mcnemar_p is None
    assert (accuracy.estimate.value, score.estimate.value) == pytest.approx((2 / 6, 1.6 / 6))
