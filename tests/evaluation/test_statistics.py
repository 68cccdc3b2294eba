"""Means over seeds and queries, tests, Holm: against hand-made numbers, other libraries and brute force."""

import numpy as np
import pytest
from scipy import stats

from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate
from causal_lm_router.evaluation.statistics import (
    Difference,
    Sample,
    adjust_holm,
    correct_differences,
    estimate_differences,
    estimate_means,
    mcnemar_p,
    seed_mean,
)


def estimate(samples: list[Sample], measure: Measure = Measure.share) -> Estimate:
    (only,) = estimate_means(samples, [measure])
    return only


def crossed(table: np.ndarray) -> list[Sample]:
    """A sample per row; all answer the same queries."""
    return [Sample("shared", row[:, None]) for row in table]


def width(one: Estimate) -> float:
    assert one.low is not None and one.high is not None
    return one.high - one.low


def test_one_seed_is_the_mean_over_queries() -> None:
    values = np.random.default_rng(0).random(400)
    assert estimate(crossed(values[None])) == mean_estimate(values)


def test_equal_seeds_do_not_make_queries_more_certain() -> None:
    values = np.random.default_rng(1).random(200)
    one, two, four = (estimate(crossed(np.tile(values, (number, 1)))) for number in (1, 2, 4))
    for more in (two, four):
        assert more.standard_error == pytest.approx(one.standard_error)
        assert width(more) == pytest.approx(width(one))


def test_seeds_alone_have_few_degrees_of_freedom() -> None:
    means = np.array([0.50, 0.56, 0.59])
    # Of queries that are all equal nothing is known but what the seeds spread.
    mean = estimate(crossed(means[:, None] + np.tile([-1e-4, 1e-4], (3, 25))))
    standard_error = means.std(ddof=1) / np.sqrt(3)
    assert mean.standard_error == pytest.approx(standard_error, rel=0.01)
    assert mean.high == pytest.approx(0.55 + stats.t.ppf(0.975, 2) * standard_error, rel=0.01)


def test_seeds_that_agree_by_chance_are_no_certainty() -> None:
    # Two seeds right equally often, on other queries: half of the spread over queries, squared a quarter, stays.
    table = np.array([[1.0, 0.0] * 50, [0.0, 1.0] * 50])
    mean = estimate(crossed(table + np.array([[0.0], [0.0]])))
    assert mean.low is None, "every query's mean is one half"
    table[0, 0] = 0.0
    assert width(estimate(crossed(table))) > 0.003


def test_other_queries_have_intervals_of_their_own() -> None:
    values = np.repeat([0.0, 1.0], 100)
    same, other = (estimate([Sample(name, values[:, None]) for name in names]) for names in ("aaaa", "abcd"))
    assert same.standard_error == pytest.approx(0.5 / np.sqrt(199))
    # What seeds of other queries spread counts once: beside the seeds' spread, 0 here, a quarter of the queries' stays.
    assert other.standard_error == pytest.approx(0.5 / np.sqrt(4 * 199) / 2)


def test_columns_are_estimated_on_their_own() -> None:
    table = np.random.default_rng(3).random((3, 80, 2))
    both = estimate_means([Sample("q", rows) for rows in table], [Measure.share] * 2)
    assert both == [estimate(crossed(table[:, :, column])) for column in (0, 1)]


def test_one_query_has_no_interval() -> None:
    result = estimate([Sample("q", np.array([[0.5]]))])
    assert (result.value, result.low, result.note) == (0.5, None, "a single query says nothing of the spread")


def test_runs_that_never_differ_have_no_interval_and_no_doubt() -> None:
    (same,) = estimate_differences(crossed(np.zeros((2, 30))), [Measure.difference], accuracy=0)
    assert (same.estimate.value, same.estimate.standard_error, same.estimate.low, same.p) == (0.0, None, None, 1.0)


def test_seeds_that_differ_on_few_queries_have_no_interval() -> None:
    table = np.zeros((3, 40))
    table[[0] * 5 + [1] * 5 + [2] * 4, range(14)] = 1.0
    (few,) = estimate_differences(crossed(table), [Measure.difference], accuracy=0)
    table[2, 14] = 1.0
    (enough,) = estimate_differences(crossed(table), [Measure.difference], accuracy=0)
    assert (few.estimate.low, few.p) == (None, 1.0), "14 of 15"
    assert few.estimate.note == "needs at least 5 queries that differ on average over the seeds"
    assert enough.estimate.low is not None and enough.p < 1.0


def test_differences_of_equal_seeds_are_as_sure_as_their_queries() -> None:
    values = np.repeat([1.0, 0.0], (8, 22))
    one, three = (
        estimate_differences(crossed(np.tile(values, (number, 1))), [Measure.difference], accuracy=0)[0]
        for number in (1, 3)
    )
    assert three.p == pytest.approx(one.p, rel=1e-6)
    assert 0.001 < three.p < 0.05
    assert one.mcnemar_p == pytest.approx(2 / 2**8)
    assert three.mcnemar_p is None, "it knows nothing of the spread between seeds"


def test_a_p_value_is_the_level_at_which_the_interval_ends_at_0() -> None:
    random = np.random.default_rng(4)
    for num_seeds in (1, 2, 5):
        mean = seed_mean([random.choice([-1.0, 0, 0, 1, 1], size=(num_seeds, 60))], Measure.difference)
        p_value = mean.p_value()
        assert np.abs(np.array(mean.interval(p_value))).min() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (25, 10), (7, 8), (300, 200), (0, 40)])
def test_mcnemar_of_one_seed_is_the_binomial_test(wins: int, losses: int) -> None:
    differences = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 50)
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_p(differences) == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand() -> None:
    # Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1; never below the one before.
    adjusted = adjust_holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02})
    assert adjusted == pytest.approx({"b": 0.04, "d": 0.06, "c": 0.06, "a": 0.06})
    assert adjust_holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert adjust_holm({}) == {}


def test_the_larger_of_two_p_values_is_corrected() -> None:
    same = estimate(crossed(np.ones((1, 4))))
    found = correct_differences(
        {
            "a": Difference(estimate=same, p=0.001, mcnemar_p=0.02),
            "b": Difference(estimate=same, p=0.03, mcnemar_p=None),
        }
    )
    assert {key: one.adjusted_p for key, one in found.items()} == pytest.approx({"a": 0.04, "b": 0.04})
    assert [one.verdict for one in found.values()] == ["significantly better"] * 2


def test_only_the_accuracy_column_has_an_exact_test() -> None:
    rows = np.array([[1.0, 0.5], [-1.0, 0.2], [1.0, 0.1], [1.0, 0.0]])
    accuracy, score = estimate_differences([Sample("q", rows)], [Measure.difference] * 2, accuracy=0)
    assert accuracy.mcnemar_p == pytest.approx(mcnemar_p(rows[:, 0])) == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert score.mcnemar_p is None
    assert (accuracy.estimate.value, score.estimate.value) == pytest.approx((2 / 4, 0.8 / 4))
