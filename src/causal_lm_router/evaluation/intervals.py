"""Estimates over queries with their standard errors and 95% intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from causal_lm_router.data.arrays import Floats

Z_95 = NormalDist().inv_cdf(0.975)
"""Standard errors to each side of a normal 95% interval: 1.96."""
Values = Sequence[float] | Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate over queries with its standard error and 95% interval.

    The three are None where a single query leaves the spread unknown.
    """

    value: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None


def rate_estimate(num_hits: int, num_total: int) -> Estimate:
    """Return the share of hits with its Wilson 95% interval, which holds for few queries and for shares near 0 and 1.

    The standard error is sqrt(p (1 - p) / n). Source: Wilson (1927), JASA 22, 209-212; recommended by Brown, Cai and
    DasGupta (2001), Statistical Science 16, 101-133.

    Raises:
        ValueError: the hits are not in 0..total, or the total is 0.
    """
    if not 0 <= num_hits <= num_total or num_total == 0:
        raise ValueError(f"a rate must have 0 <= hits <= total and a total above 0, got {num_hits} of {num_total}")
    rate, n = num_hits / num_total, num_total
    standard_error = (rate * (1 - rate) / n) ** 0.5
    # Wilson's interval is centred between the rate and 1/2, the nearer to 1/2 the fewer the queries.
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * (rate * (1 - rate) / n + Z_95**2 / (4 * n**2)) ** 0.5
    # At the two ends the interval closes exactly; rounding would leave it a hair short.
    low = 0.0 if num_hits == 0 else centre - half
    high = 1.0 if num_hits == num_total else centre + half
    return Estimate(value=rate, standard_error=standard_error, low=low, high=high)


def mean_estimate(values: Values) -> Estimate:
    """Return the mean with its normal 95% interval: 1.96 standard errors, s / sqrt(n) with s over n - 1, to each side.

    The interval is too narrow for a few dozen values, has no width where all values are equal, and may leave 0..1.
    Source: the central limit theorem, as Miller (2024), arXiv 2411.00640, applies it to evaluations.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a mean must have at least one value, all finite, got {array.size} values")
    # One value says nothing of the spread.
    standard_error = None if array.size == 1 else float(array.std(ddof=1)) / array.size**0.5
    return _normal_estimate(float(array.mean()), standard_error)


def ratio_estimate(numerators: Values, denominators: Values) -> Estimate | None:
    """Return mean(numerators) / mean(denominators) with the normal 95% interval; None unless the divisor is above 0.

    The standard error is that of the ratio estimator, the standard error of mean(y - ratio x) divided by mean(x).
    It fails where the divisor is not well above 0: the interval is then far too narrow. Source: Cochran (1977),
    Sampling Techniques, 3rd edition, chapter 6.
    """
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    divisor = float(x.mean())
    # A divisor within rounding of 0 is 0: the quotient would be noise.
    if divisor <= 1e-12:
        return None
    ratio = float(y.mean()) / divisor
    residual = mean_estimate(y - ratio * x).standard_error
    return _normal_estimate(ratio, None if residual is None else residual / divisor)


def _normal_estimate(value: float, standard_error: float | None) -> Estimate:
    if standard_error is None:
        return Estimate(value=value)
    half = Z_95 * standard_error
    return Estimate(value=value, standard_error=standard_error, low=value - half, high=value + half)
