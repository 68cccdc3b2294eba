"""How certain means over several seeds are: hierarchical bootstrap, exact McNemar test, Holm's correction.

Seeds and queries are crossed where every seed answers the same queries: an easy query is easy for all seeds, a good
seed is good on all queries, so the cells of the table seeds x queries are not independent draws. The bootstrap
therefore draws seeds and, for all of them together, queries: the pigeonhole bootstrap (Owen 2007, "The pigeonhole
bootstrap", Annals of Applied Statistics 1(2), 386-411, arXiv 0712.1111), whose variance is on average at least the
true one where seeds are many. Seeds that answer different queries have their queries drawn separately: there the
bootstrap is nested, and too wide rather than too narrow.

Few seeds make a bootstrap over them too narrow, by the factor (S - 1) / S in the variance and by the normal instead of
the t distribution. So S - 1 of S seeds are drawn, which makes their part of the variance unbiased (Rao and Wu 1988,
"Resampling inference with complex survey data", JASA 83, 231-241), and the interval is that of Student's t around the
estimate with the bootstrap's standard error (Hesterberg 2015, "What teachers should know about the bootstrap", American
Statistician 69, 371-386), at the degrees of freedom that Satterthwaite's formula gives for the sum of the two parts, as
in Clark (1973), "The language-as-fixed-effect fallacy", for subjects crossed with items.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import signal, stats

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.intervals import Estimate

LEVEL = 0.05
"""Family-wise level at which a difference is called significant."""
NO_DIFFERENCE = "no significant difference"
# Numbers held at once while queries are drawn: bounds the memory, not the result.
_MAX_DRAWN = 4_000_000


@dataclass(frozen=True)
class Sample:
    """One seed's values; samples with equal `queries` have the same query in each row."""

    queries: Hashable
    values: Floats
    """Shape (queries, metrics)."""


@dataclass(frozen=True)
class Resampling:
    """How many times the bootstrap draws, and from which random seed.

    Raises:
        ValueError: `resamples` is below 100.
    """

    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100, got {self.resamples}")


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over seeds and queries, and the two-sided p-value of its being 0 (None where there is a single query)."""

    estimate: Estimate
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference of two means over seeds and queries, with its tests."""

    estimate: Estimate
    bootstrap_p: float
    mcnemar_p: float | None
    """Of routing accuracy alone."""
    adjusted_p: float = 1.0
    """`p_value` after Holm's correction (see `correct_differences`)."""

    @property
    def p_value(self) -> float:
        """The larger of the two: a difference counts when both tests see it."""
        return max(self.bootstrap_p, self.mcnemar_p or 0.0)

    @property
    def verdict(self) -> str:
        """In words, at a family-wise level of 5%."""
        if self.adjusted_p > LEVEL:
            return NO_DIFFERENCE
        return "significantly better" if self.estimate.value > 0 else "significantly worse"


def estimate_means(samples: Sequence[Sample], resampling: Resampling) -> list[MeanEstimate]:
    """Return per column the mean over seeds of the mean over queries, with its hierarchical bootstrap 95% interval.

    One seed leaves the spread between seeds unknown: the interval then covers the spread of queries alone. A seed with
    a single query leaves no interval.
    """
    means = np.stack([sample.values.mean(axis=0) for sample in samples])
    if any(len(sample.values) < 2 for sample in samples):
        return [MeanEstimate(Estimate(value=float(value)), None) for value in means.mean(axis=0)]
    errors = _resampled_means(samples, resampling).std(axis=0, ddof=1)
    degrees = _degrees_of_freedom(samples, means)
    return [_estimate(*numbers) for numbers in zip(means.mean(axis=0), errors, degrees, strict=True)]


def estimate_differences(samples: Sequence[Sample], resampling: Resampling, *, accuracy: int) -> list[Difference]:
    """Return per column the mean of paired differences with its tests; McNemar's for the column `accuracy` alone.

    `samples` hold one router's values minus another's, a sample per seed. Holm's correction is still to be made.
    """
    differences = []
    for column, mean in enumerate(estimate_means(samples, resampling)):
        # A single query has no p-value, and gives no reason to doubt that the two are equal.
        bootstrap_p = 1.0 if mean.p_value is None else mean.p_value
        exact_p = mcnemar_p(_sums_over_seeds(samples, column)) if column == accuracy else None
        differences.append(Difference(estimate=mean.estimate, bootstrap_p=bootstrap_p, mcnemar_p=exact_p))
    return differences


def correct_differences(differences: Mapping[Hashable, Difference]) -> dict[Hashable, Difference]:
    """Return the differences with their p-values after Holm's correction over all of them."""
    adjusted = adjust_holm({key: difference.p_value for key, difference in differences.items()})
    return {key: replace(difference, adjusted_p=adjusted[key]) for key, difference in differences.items()}


def mcnemar_p(sums: Floats) -> float:
    """Return the exact two-sided p-value that two routers are right equally often on the queries, given their seeds.

    `sums` holds a whole number per query: on how many seeds only the first router is right, minus on how many only the
    second is. Of one seed it is McNemar's exact test, the binomial on discordant queries (McNemar 1947, Psychometrika
    12, 153-157). Of several seeds it is the same test on the sums: under the null hypothesis each is as likely as its
    negative, and the distribution of their total over all signs (Pitman 1937, Supplement to the Journal of the Royal
    Statistical Society 4, 119-130) is worked out exactly. Pooled pairs would count a query once a seed as if its
    answers were independent; a majority of seeds would test the ensemble rather than the router.
    """
    whole = np.rint(sums).astype(int)
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    # Distribution of the total: element i is the probability of i - centre. The queries are independent, so those of
    # each size add their own distribution by convolution.
    distribution: Floats = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        # `count` random signs times `size`: their sum takes every 2 * size-th value from -size * count up.
        signs = np.zeros(2 * size * count + 1)
        signs[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.maximum(0.0, signal.convolve(distribution, signs))
    # Both tails are equal; with a total of 0 each of them holds the middle, hence the bound of 1.
    centre = len(distribution) // 2
    return min(1.0, 2 * float(distribution[centre + abs(int(whole.sum())) :].sum()))


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


def _sums_over_seeds(samples: Sequence[Sample], column: int) -> Floats:
    """Per query the sum over seeds of the values in `column`, as `mcnemar_p` takes them."""
    sums = [
        np.sum([samples[index].values[:, column] for index in indices], axis=0) for indices in _same_queries(samples)
    ]
    return np.concatenate(sums)


def _estimate(value: float, error: float, degrees: float) -> MeanEstimate:
    # All values equal: an interval without width, and certainty whether the mean is 0.
    if error < 1e-12:
        same = float(value)
        return MeanEstimate(Estimate(value=same, standard_error=0.0, low=same, high=same), float(abs(same) < 1e-12))
    half = float(stats.t.ppf(0.975, degrees)) * float(error)
    interval = Estimate(
        value=float(value), standard_error=float(error), low=float(value) - half, high=float(value) + half
    )
    return MeanEstimate(interval, float(2 * stats.t.sf(abs(value) / error, degrees)))


def _resampled_means(samples: Sequence[Sample], resampling: Resampling) -> Floats:
    """Means over drawn seeds and queries, shape (resamples, metrics)."""
    random = np.random.default_rng(resampling.seed)
    num_seeds, num_metrics = len(samples), samples[0].values.shape[1]
    # Every seed's mean over the drawn queries. Seeds with the same queries share each draw: the two are crossed.
    means = np.empty((resampling.resamples, num_seeds, num_metrics))
    for indices in _same_queries(samples):
        # The columns of all these seeds side by side: one matrix product draws queries for all of them.
        values = np.concatenate([samples[index].values for index in indices], axis=1)
        for start in range(0, resampling.resamples, step := max(1, _MAX_DRAWN // len(values))):
            drawn = _draw_counts(random, min(step, resampling.resamples - start), len(values)) @ values / len(values)
            means[start : start + step, indices] = drawn.reshape(len(drawn), len(indices), num_metrics)
    # S - 1 of S seeds make their part of the variance unbiased (Rao and Wu 1988).
    seeds = random.integers(num_seeds, size=(resampling.resamples, max(1, num_seeds - 1), 1))
    return np.asarray(np.take_along_axis(means, seeds, axis=1).mean(axis=1))


def _draw_counts(random: np.random.Generator, num_resamples: int, num_queries: int) -> Floats:
    """How often each resample draws each query, shape (resamples, queries)."""
    drawn = random.integers(num_queries, size=(num_resamples, num_queries))
    # Each resample counts in a range of its own, so that one call counts all of them.
    drawn += np.arange(num_resamples)[:, None] * num_queries
    counts = np.bincount(drawn.ravel(), minlength=drawn.size)
    return counts.reshape(drawn.shape).astype(np.float64)


def _degrees_of_freedom(samples: Sequence[Sample], means: Floats) -> Floats:
    """Satterthwaite's degrees of freedom per column, of the variance between seeds plus that between queries.

    (sum of v)^2 / sum of (v^2 / d), over the parts v of the variance with their degrees of freedom d.
    """
    parts = []
    for indices in _same_queries(samples):
        # Seeds with the same queries are averaged first: their queries are drawn together.
        values = np.mean([samples[index].values for index in indices], axis=0)
        share = len(indices) / len(samples)
        parts.append((share**2 * values.var(axis=0, ddof=1) / len(values), len(values) - 1))
    if len(samples) > 1:
        parts.append((means.var(axis=0, ddof=1) / len(samples), len(samples) - 1))
    total = np.sum([variance for variance, _ in parts], axis=0)
    shares = np.sum([variance**2 / degrees for variance, degrees in parts], axis=0)
    # Without any variance the quotient is 0 / 0; `_estimate` then takes no notice of the degrees.
    return np.asarray(np.divide(total**2, shares, out=np.ones_like(total), where=shares > 0))


def _same_queries(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the samples, those with the same queries together."""
    groups: dict[Hashable, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.queries, []).append(index)
    return list(groups.values())
