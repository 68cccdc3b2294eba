"""How certain means over seeds and queries are: intervals, tests of differences, exact McNemar test, Holm's correction.

Seeds and queries are crossed where every seed answers the same queries: an easy query is easy for all seeds, a good
seed is good on all queries, so the cells of the table seeds x queries are not independent draws. The values of a query
are averaged over the seeds first, which gives the interval of `interval_formulas` over queries. What the seeds' means
spread is added to it: the halves of the two intervals, squared, the second with Student's quantile of S - 1 degrees of
freedom (Graybill and Wang 1980, "Confidence intervals on nonnegative linear combinations of variances", JASA 75,
869-873; Zou and Donner 2008). What seeds and queries do together is in both; it is taken out of the part over queries,
of which at least a quarter stays. By simulation this holds down to levels of 0.6%, as Holm's correction asks for, while
Satterthwaite's degrees of freedom for the sum miss too often (14% at two seeds).
Seeds that answer different queries each have an interval over their own.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.interval_formulas import (
    LEVEL,
    MIN_DIFFERENCES,
    Interval,
    Measure,
    limits,
    query_interval,
    t_quantile,
)
from causal_lm_router.evaluation.intervals import Estimate, make_estimate, why_none

NO_DIFFERENCE = "no significant difference"
# The part over queries never shrinks below this share of its variance: seeds that agree by chance are no certainty.
_LEAST_KEPT = 0.25
# Tests tell p-values apart down to this one.
_LEAST_P = 1e-9


@dataclass(frozen=True)
class Sample:
    """One seed's values; samples with equal `queries` have the same query in each row."""

    queries: Hashable
    values: Floats
    """Shape (queries, metrics)."""


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """Means over seeds and queries of one sample, or of an array of samples."""

    value: Floats
    standard_error: Floats
    interval: Interval

    def p_value(self) -> Floats:
        """Return the two-sided p-value of the mean being 0: the smallest level whose interval leaves out 0."""
        # By halves, on the logarithm: the interval shrinks as its level grows.
        lowest = np.full(np.shape(self.value), np.log(_LEAST_P))
        highest = np.zeros_like(lowest)
        for _ in range(40):
            middle = (lowest + highest) / 2
            low, high = self.interval(np.exp(middle))
            is_out = (low > 0) | (high < 0)
            highest, lowest = np.where(is_out, middle, highest), np.where(is_out, lowest, middle)
        return np.exp(highest)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference of two means over seeds and queries, with its tests."""

    estimate: Estimate
    p: float
    """Of the interval's test; 1 where a single query leaves no interval."""
    mcnemar_p: float | None
    """Of routing accuracy alone, and of one seed alone: it knows nothing of the spread between seeds."""
    adjusted_p: float = 1.0
    """`p_value` after Holm's correction (see `correct_differences`)."""

    @property
    def p_value(self) -> float:
        """The larger of the two: a difference counts when both tests see it."""
        return max(self.p, self.mcnemar_p or 0.0)

    @property
    def verdict(self) -> str:
        """In words, at a family-wise level of 5%."""
        if self.adjusted_p > LEVEL:
            return NO_DIFFERENCE
        return "significantly better" if self.estimate.value > 0 else "significantly worse"


def pool_folds(seeds: Sequence[Hashable], samples: Sequence[Sample]) -> list[Sample]:
    """Return a sample for each seed from the samples of several runs, each with its seed.

    The folds of a cross-validation ask different queries under one seed. Together they are one sample: as samples of
    their own, what their means differ by chance would count twice.
    """
    by_seed: dict[Hashable, list[Sample]] = {}
    for seed, sample in zip(seeds, samples, strict=True):
        by_seed.setdefault(seed, []).append(sample)
    return [
        folds[0]
        if len(folds) == 1
        else Sample(tuple(one.queries for one in folds), np.concatenate([one.values for one in folds]))
        for folds in by_seed.values()
    ]


def seed_mean(tables: Sequence[Floats], measure: Measure, dearest: Floats | float = 0.0) -> SeedMean:
    """Return the mean over seeds of their means over queries.

    A table of shape (..., seeds, queries), of at least two queries, for each set of seeds with the same queries.
    `dearest` is that of `query_interval`.
    """
    num_seeds = sum(table.shape[-2] for table in tables)
    seed_means = np.concatenate([table.mean(axis=-1) for table in tables], axis=-1)
    value = seed_means.mean(axis=-1)
    # Each table's queries averaged over its seeds, and its share of the seeds.
    averaged = [table.mean(axis=-2) for table in tables]
    shares = [table.shape[-2] / num_seeds for table in tables]
    # An interval has no centre where seeds differ on too few queries, however many those are together.
    num_different = np.asarray(np.sum([(table != 0).sum(axis=(-2, -1)) for table in tables], axis=0))
    is_rare = (measure is Measure.difference) & (num_different < MIN_DIFFERENCES * num_seeds)
    centre = np.where(is_rare, np.nan, value)
    of_queries = _combine([query_interval(values, measure, dearest) for values in averaged], averaged, shares)
    spread = _add(shares, [values.var(axis=-1, ddof=1) / values.shape[-1] for values in averaged])
    if num_seeds == 1:
        return SeedMean(value=value, standard_error=np.sqrt(spread), interval=_within(measure, centre, of_queries))
    between = seed_means.var(axis=-1, ddof=1) / num_seeds
    # What seeds and queries do together is in both parts: it is taken out of that over queries.
    together = _add(shares, [_interaction(table) for table in tables])
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(spread > 0, np.clip(1 - together / spread, _LEAST_KEPT, 1.0), 1.0)

    def halves(level: Floats | float) -> tuple[Floats, Floats]:
        # The seeds' part is known to few degrees of freedom alone.
        of_seeds = between * t_quantile(num_seeds - 1, level) ** 2
        below, above = of_queries(level)
        return np.sqrt(kept * below**2 + of_seeds), np.sqrt(kept * above**2 + of_seeds)

    return SeedMean(
        value=value, standard_error=np.sqrt(kept * spread + between), interval=_within(measure, centre, halves)
    )


def estimate_means(samples: Sequence[Sample], measures: Sequence[Measure], dearest: float = 0.0) -> list[Estimate]:
    """Return per column, a measure each, the mean over seeds of the mean over queries with its 95% interval.

    One seed leaves the spread between seeds unknown: the interval then covers the spread of queries alone. A seed with
    a single query leaves no interval.
    """
    return [_estimate(samples, column, measure, dearest) for column, measure in enumerate(measures)]


def estimate_differences(samples: Sequence[Sample], measures: Sequence[Measure], *, accuracy: int) -> list[Difference]:
    """Return per column the mean of paired differences with its tests; McNemar's for the column `accuracy` alone.

    `samples` hold one router's values minus another's, a sample per seed. Holm's correction is still to be made.
    """
    differences = []
    for column, measure in enumerate(measures):
        estimate = _estimate(samples, column, measure)
        # Without an interval there is no reason to doubt that the two are equal.
        p = 1.0 if estimate.low is None else float(seed_mean(_tables(samples, column), measure).p_value())
        is_exact = column == accuracy and len(samples) == 1
        exact_p = mcnemar_p(samples[0].values[:, column]) if is_exact else None
        differences.append(Difference(estimate=estimate, p=p, mcnemar_p=exact_p))
    return differences


def correct_differences(differences: Mapping[Hashable, Difference]) -> dict[Hashable, Difference]:
    """Return the differences with their p-values after Holm's correction over all of them."""
    adjusted = adjust_holm({key: difference.p_value for key, difference in differences.items()})
    return {key: replace(difference, adjusted_p=adjusted[key]) for key, difference in differences.items()}


def mcnemar_p(differences: Floats) -> float:
    """Return the exact two-sided p-value that two routers are right equally often: McNemar's test.

    `differences` holds per query 1 where only the first is right, -1 where only the second is, else 0. Of one run of
    each: over several seeds a query would count once a seed, and sums over seeds know nothing of the spread between
    them. Source: McNemar (1947), Psychometrika 12, 153-157.
    """
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def adjust_holm(p_values: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """Return p-values after Holm's correction: those of at most 0.05 are significant at a family-wise level of 5%.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
    6, 65-70.
    """
    adjusted: dict[Hashable, float] = {}
    highest = 0.0
    # From the smallest p-value up; none may fall below the one before it.
    for rank, (key, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[key] = highest
    return adjusted


def _estimate(samples: Sequence[Sample], column: int, measure: Measure, dearest: float = 0.0) -> Estimate:
    if any(len(sample.values) < 2 for sample in samples):
        value = float(np.mean([sample.values[:, column].mean() for sample in samples]))
        return Estimate(value=value, note="a single query says nothing of the spread")
    mean = seed_mean(_tables(samples, column), measure, dearest)
    low, high = mean.interval(LEVEL)
    note = why_none(measure, len(samples))
    return make_estimate(float(mean.value), float(mean.standard_error), low, high, note)


def _combine(intervals: Sequence[Interval], averaged: Sequence[Floats], shares: Sequence[float]) -> Interval:
    """Level -> how far the interval of the weighed mean of several sets of queries reaches down and up (MOVER)."""
    means = [values.mean(axis=-1) for values in averaged]

    def halves(level: Floats | float) -> tuple[Floats, Floats]:
        ends = [interval(level) for interval in intervals]
        below = [(mean - low) ** 2 for mean, (low, _) in zip(means, ends, strict=True)]
        above = [(high - mean) ** 2 for mean, (_, high) in zip(means, ends, strict=True)]
        return np.sqrt(_add(shares, below)), np.sqrt(_add(shares, above))

    return halves


def _add(shares: Sequence[float], variances: Sequence[Floats]) -> Floats:
    """The variance of a weighed mean of parts that are independent."""
    parts = [share**2 * variance for share, variance in zip(shares, variances, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def _within(measure: Measure, value: Floats, halves: Interval) -> Interval:
    """The interval that reaches so far down and up, inside what the measure can be."""
    lowest, highest = limits(measure)

    def interval(level: Floats | float) -> tuple[Floats, Floats]:
        below, above = halves(level)
        return np.maximum(lowest, value - below), np.minimum(highest, value + above)

    return interval


def _interaction(table: Floats) -> Floats:
    """The part of the variance of the mean over queries that seeds and queries make together.

    Of one seed it cannot be told from the queries' own: all of it.
    """
    num_seeds, num_queries = table.shape[-2:]
    centred = table - table.mean(axis=-1, keepdims=True)
    if num_seeds == 1:
        return np.asarray(centred[..., 0, :].var(axis=-1, ddof=1) / num_queries)
    rest = centred - centred.mean(axis=-2, keepdims=True)
    return np.asarray((rest**2).sum(axis=(-2, -1)) / ((num_seeds - 1) * (num_queries - 1)) / (num_seeds * num_queries))


def _tables(samples: Sequence[Sample], column: int) -> list[Floats]:
    """A table of seeds x queries for each set of samples with the same queries."""
    groups: dict[Hashable, list[Floats]] = {}
    for sample in samples:
        groups.setdefault(sample.queries, []).append(sample.values[:, column])
    return [np.stack(rows) for rows in groups.values()]
