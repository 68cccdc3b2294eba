"""Estimates over queries with their standard errors and 95% intervals.

What no interval of `interval_formulas` holds for has none, and a note that says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.interval_formulas import (
    LEVEL,
    MIN_COST_DIFFERENCES,
    MIN_COSTS,
    MIN_DIFFERENCES,
    MIN_RATIO,
    Measure,
    exact_interval,
    fieller_interval,
    limits,
    query_interval,
)

Values = Sequence[float] | Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate over queries with its standard error and 95% interval, both None where the data say too little."""

    value: float
    standard_error: float | None = None
    """None where all values are equal, too: they say nothing of the spread."""
    low: float | None = None
    high: float | None = None
    note: str | None = None
    """Why there is no interval; None where there is one."""


def rate_estimate(num_hits: int, num_total: int) -> Estimate:
    """Return the share of hits with its exact 95% interval (Clopper and Pearson 1934, Biometrika 26, 404-413).

    Raises:
        ValueError: the hits are not in 0..total, or the total is 0.
    """
    if not 0 <= num_hits <= num_total or num_total == 0:
        raise ValueError(f"a rate must have 0 <= hits <= total and a total above 0, got {num_hits} of {num_total}")
    rate = num_hits / num_total
    low, high = exact_interval(np.array(rate), np.array(float(num_total)), LEVEL)
    return make_estimate(rate, (rate * (1 - rate) / num_total) ** 0.5, low, high, "")


def mean_estimate(values: Values, measure: Measure = Measure.share, dearest: float = 0.0) -> Estimate:
    """Return the mean of a value per query with its 95% interval (see `query_interval`, also for `dearest`).

    Raises:
        ValueError: there are no values, or one is not finite or outside of what its measure can be.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a mean must have at least one value, all finite, got {array.size} values")
    lowest, highest = limits(measure)
    if array.min() < lowest - 1e-9 or array.max() > highest + 1e-9:
        raise ValueError(f"a {measure} must be in {lowest:g}..{highest:g}, got {array.min()}..{array.max()}")
    if array.size == 1:
        return Estimate(value=float(array[0]), note="a single query says nothing of the spread")
    low, high = query_interval(array, measure, dearest)(LEVEL)
    return make_estimate(float(array.mean()), float(array.std(ddof=1)) / array.size**0.5, low, high, why_none(measure))


def ratio_estimate(numerators: Values, denominators: Values) -> Estimate | None:
    """Return mean(numerators) / mean(denominators) with its 95% interval; None unless the divisor is above 0.

    The interval is Fieller's: the ratios r for which a t test does not tell the mean of y - r x from 0 (Fieller 1954,
    Journal of the Royal Statistical Society B 16, 175-185). It has no ends where the divisor could be 0. The standard
    error is that of the ratio estimator (Cochran 1977, Sampling Techniques, 3rd edition, chapter 6).
    """
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    # A divisor within rounding of 0 is 0: the quotient would be noise.
    if (divisor := float(x.mean())) <= 1e-12:
        return None
    ratio, num = float(y.mean()) / divisor, len(y)
    if num == 1:
        return Estimate(value=ratio, note="a single query says nothing of the spread")
    error = float((y - ratio * x).std(ddof=1)) / num**0.5 / divisor
    low, high = fieller_interval(y, x)
    note = f"needs at least {MIN_RATIO} queries" if num < MIN_RATIO else "what is divided by could be 0"
    return make_estimate(ratio, error, low, high, note)


def make_estimate(value: float, error: float, low: Floats, high: Floats, note: str) -> Estimate:
    """Return the estimate; without an interval, and with the note, where a bound is no number or they are one."""
    standard_error = error if error > 1e-12 else None
    if not (np.isfinite(low) and np.isfinite(high) and high - low > 1e-12):
        return Estimate(value=value, standard_error=standard_error, note=note)
    return Estimate(value=value, standard_error=standard_error, low=float(low), high=float(high))


def without_interval(value: float, note: str) -> Estimate | None:
    """Return an estimate for which no interval holds, as the note says; None for a value that is not defined."""
    return Estimate(value=value, note=note) if np.isfinite(value) else None


def why_none(measure: Measure, num_seeds: int = 1) -> str:
    """Return why a mean of several values of the measure has no interval."""
    of_seeds = " on average over the seeds" if num_seeds > 1 else ""
    return {
        Measure.difference: f"needs at least {MIN_DIFFERENCES} queries that differ{of_seeds}",
        Measure.cost: f"needs at least {MIN_COSTS} calls with a cost",
        Measure.cost_difference: f"needs at least {MIN_COST_DIFFERENCES} queries whose costs differ",
    }.get(measure, "all values are equal, which says nothing of the spread")
