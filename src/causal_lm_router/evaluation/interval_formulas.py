"""The formulas of the intervals, each a function of its level; what each is good for, and its source.

They work on whole arrays of samples: values have a query on their last axis. `experiments/coverage.py` measures how
often the intervals hold the truth.
"""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
import scipy

from causal_lm_router.data.arrays import Floats

LEVEL = 0.05
"""Share of intervals that may miss the truth, and the family-wise level of a significant difference."""
MIN_COSTS = 30
"""Calls with a cost that an interval of a mean cost needs: costs are skewed."""
MIN_COST_DIFFERENCES = 50
"""Queries whose costs differ that an interval of a difference of costs needs."""
MIN_DIFFERENCES = 5
"""Queries that differ, on average over seeds, that an interval of a mean of differences needs."""
MIN_RATIO = 30
"""Queries that an interval of a ratio needs."""
Interval = Callable[[Floats | float], tuple[Floats, Floats]]
"""Level -> low and high; NaN where there is no interval."""


class Measure(StrEnum):
    """What a value per query is, which decides how its mean's interval is made."""

    share = "share"
    """A share or a score, 0 to 1."""
    difference = "difference"
    """A difference of two of them, -1 to 1."""
    cost = "cost"
    """USD, at least 0."""
    cost_difference = "cost_difference"


def limits(measure: Measure) -> tuple[float, float]:
    """Return the lowest and highest value that a measure can have."""
    return {
        Measure.share: (0.0, 1.0),
        Measure.difference: (-1.0, 1.0),
        Measure.cost: (0.0, np.inf),
        Measure.cost_difference: (-np.inf, np.inf),
    }[measure]


def query_interval(values: Floats, measure: Measure, dearest: Floats | float = 0.0) -> Interval:
    """Return the interval of the mean over the last axis, of two or more values.

    - Shares and scores: `share_interval`.
    - Differences: gains and losses apart, each by `share_interval`, put together.
    - Costs: the gamma interval, whose high end allows for one more call at the largest of these costs, or at `dearest`,
      the mean cost of the dearest candidate. Source: Fay and Feuer (1997), Statistics in Medicine 16, 791-801.
    - Differences of costs: Student's t.
    """
    num = values.shape[-1]
    mean, variance = values.mean(axis=-1), values.var(axis=-1, ddof=1) / num
    match measure:
        case Measure.share:
            return share_interval(mean, variance, num)
        case Measure.difference:
            return _difference_interval(values)
        case Measure.cost:
            largest = np.maximum(values.max(axis=-1), dearest)
            return _cost_interval(np.where((values > 0).sum(axis=-1) < MIN_COSTS, np.nan, mean), variance, num, largest)
        case Measure.cost_difference:
            shown = np.where((values != 0).sum(axis=-1) < MIN_COST_DIFFERENCES, np.nan, mean)
            return lambda level: _around(shown, t_quantile(num - 1, level) * np.sqrt(variance))


def share_interval(mean: Floats, variance: Floats, num: float) -> Interval:
    """Return the exact interval of a share at the effective number of queries; never outside 0..1.

    `variance` is that of the mean, over `num` queries. The effective number is that of right or wrong answers whose
    share would be as certain, and at least `num`, as nothing in 0..1 spreads more. Source: Korn and Graubard (1998),
    Survey Methodology 24, 193-201.
    """
    return lambda level: exact_interval(mean, _effective_size(mean, variance, num, level), level)


def fieller_interval(numerators: Floats, denominators: Floats) -> tuple[Floats, Floats]:
    """Return Fieller's interval of the ratio of means over the last axis, NaN without ends or for too few queries."""
    y, x = numerators, denominators
    num = y.shape[-1]
    mean_y, mean_x = y.mean(axis=-1), x.mean(axis=-1)
    # Squared quantile times the covariances of the two means.
    t_squared = t_quantile(num - 1, LEVEL) ** 2 / (num * (num - 1))
    from_y, from_x = y - mean_y[..., None], x - mean_x[..., None]
    yy, xx, xy = (t_squared * (a * b).sum(axis=-1) for a, b in ((from_y, from_y), (from_x, from_x), (from_x, from_y)))
    # The ends solve a r^2 - 2 b r + c = 0, an interval only where a is above 0.
    a, b, c = mean_x**2 - xx, mean_x * mean_y - xy, mean_y**2 - yy
    a = np.where((a > 0) & (num >= MIN_RATIO), a, np.nan)
    root = np.sqrt(np.maximum(0.0, b**2 - a * c))
    return (b - root) / a, (b + root) / a


def t_quantile(degrees: Floats | float, level: Floats | float) -> Floats:
    """Return Student's t quantile for a two-sided interval at the level."""
    return np.asarray(scipy.special.stdtrit(degrees, 1 - np.asarray(level) / 2))


def _z_quantile(level: Floats | float) -> Floats:
    return np.asarray(scipy.special.ndtri(1 - np.asarray(level) / 2))


def _effective_size(mean: Floats, variance: Floats, num: float, level: Floats | float) -> Floats:
    """The number of right or wrong answers that are as certain; NaN where all values are one that is not 0 or 1."""
    # The t quantile allows for the estimated variance.
    allowance = (_z_quantile(level) / t_quantile(num - 1, level)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(variance > 1e-18, allowance * mean * (1 - mean) / variance, np.nan)
    # All values 0, or all 1, are as many right or wrong answers.
    return np.where((mean <= 1e-12) | (mean >= 1 - 1e-12), float(num), np.maximum(num, size))


def exact_interval(share: Floats, size: Floats, level: Floats | float) -> tuple[Floats, Floats]:
    """Clopper and Pearson's interval, also for sizes and hits that are no whole numbers."""
    hits, tail = share * size, np.asarray(level) / 2
    low = scipy.special.betaincinv(np.maximum(hits, 1e-9), size - hits + 1, tail)
    high = scipy.special.betaincinv(hits + 1, np.maximum(size - hits, 1e-9), 1 - tail)
    # At the two ends the interval closes exactly.
    return np.where(share <= 1e-12, 0.0, low), np.where(share >= 1 - 1e-12, 1.0, high)


def _difference_interval(values: Floats) -> Interval:
    """The interval of a mean of differences, also where few queries differ or none does.

    Newcombe's way from the intervals of two proportions to that of their difference (1998, Statistics in Medicine 17,
    2635-2650), for gains and losses, as Zou and Donner generalise it (2008, Statistics in Medicine 27, 1693-1702).
    """
    num = values.shape[-1]
    gains, losses = np.maximum(values, 0.0), np.maximum(-values, 0.0)
    gain, loss = gains.mean(axis=-1), losses.mean(axis=-1)
    # Of a query one of the two is 0, so their mean product is 0 and their covariance -gain x loss.
    spread = [part.var(axis=-1) for part in (gains, losses)]
    product = np.sqrt(spread[0] * spread[1])
    shown = np.where((values != 0).sum(axis=-1) < MIN_DIFFERENCES, np.nan, gain - loss)
    correlation = np.where(product > 1e-18, -gain * loss / np.maximum(product, 1e-18), 0.0)
    # Differences that are all equal leave their spread to the worst case.
    least = [
        np.where(variance > 1e-18, variance, mean * (1 - mean))
        for mean, variance in zip((gain, loss), spread, strict=True)
    ]
    parts = [
        share_interval(mean, variance / (num - 1), num) for mean, variance in zip((gain, loss), least, strict=True)
    ]

    def interval(level: Floats | float) -> tuple[Floats, Floats]:
        (gain_low, gain_high), (loss_low, loss_high) = (part(level) for part in parts)
        below = _together(gain - gain_low, loss_high - loss, correlation)
        above = _together(gain_high - gain, loss - loss_low, correlation)
        return shown - below, shown + above

    return interval


def _together(one: Floats, other: Floats, correlation: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(0.0, one**2 + other**2 - 2 * correlation * one * other)))


def _cost_interval(mean: Floats, variance: Floats, num: int, largest: Floats | float) -> Interval:
    def interval(level: Floats | float) -> tuple[Floats, Floats]:
        tail = np.asarray(level) / 2
        spread = variance * (t_quantile(num - 1, level) / _z_quantile(level)) ** 2
        # A gamma distribution of mean m and variance v has the shape m^2 / v and the scale v / m.
        more, more_spread = mean + largest / num, spread + (largest / num) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            low = scipy.special.gammaincinv(mean**2 / spread, tail) * spread / mean
            high = scipy.special.gammaincinv(more**2 / more_spread, 1 - tail) * more_spread / more
        return np.where(spread > 0, low, mean), np.where(np.isnan(mean), np.nan, high)

    return interval


def _around(mean: Floats, half: Floats) -> tuple[Floats, Floats]:
    return mean - half, mean + half
