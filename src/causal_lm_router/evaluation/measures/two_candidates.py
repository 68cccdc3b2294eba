"""Routing between a weak and a strong candidate, measured as RouteLLM's paper and as RouteLLM's code do.

A router gives every query a win share. It calls the strong candidate where the share reaches a threshold, so only
the order of the shares counts.
PGR, the performance gap recovered, of a quality r is (r - weak) / (strong - weak), with the mean scores of always
calling one of the two (arXiv 2406.18665, section on metrics). Source of the code: github.com/lm-sys/RouteLLM,
routellm/evals/evaluate.py and benchmarks.py. The two differ in three things: the paper integrates over the share of
strong calls and its CPT asks for the least share that suffices, while the code takes eleven thresholds at the deciles
of the win shares, integrates those by trapezoids, and reads CPT off by `np.interp` over qualities that need not be in
order.
"""

from typing import NamedTuple

import numpy as np

from causal_lm_router.data.arrays import Floats, Integers
from causal_lm_router.evaluation.interval_formulas import LEVEL, MIN_RATIO
from causal_lm_router.evaluation.intervals import Estimate, make_estimate, ratio_estimate

RESAMPLES = 1000
_SEED = 0
_CHUNK = 100
"""Resamples that are in memory at once."""


class CallCurve(NamedTuple):
    """Points of a curve: share of queries that call the strong candidate (0..1, ascending) and mean score there."""

    share: Floats
    quality: Floats


def call_curve(weak: Floats, strong: Floats, win_share: Floats) -> CallCurve:
    """Return the curve over all thresholds, from no strong calls to strong calls alone.

    `weak` and `strong` are what each candidate's answer to a query counts: scores, or costs for a curve of mean costs.
    Queries of one win share move together, as a threshold moves them. Between two points the curve is the straight
    line: the mean when the tied queries that call the strong candidate are drawn at random. So a constant router has
    only the two ends, and nothing depends on the order of the rows.
    """
    # The strong candidate is called from the highest win share down.
    order = np.argsort(-win_share, kind="stable")
    ordered = win_share[order]
    # A point after each group of equal win shares, and one before the first.
    group_ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) + 1
    # Each strong call changes the total by (strong - weak) of its query.
    gains = np.cumsum((strong - weak)[order])[group_ends - 1]
    num_queries = len(win_share)
    share = np.append(0.0, group_ends / num_queries)
    return CallCurve(share, weak.mean() + np.append(0.0, gains) / num_queries)


def pgr(quality: Floats | float, weak: Floats, strong: Floats) -> Floats:
    """Return PGR = (quality - mean weak) / (mean strong - mean weak); NaN unless strong is better on average."""
    gap = strong.mean() - weak.mean()
    if gap <= 1e-12:
        return np.full(np.shape(quality), np.nan)
    return np.asarray((quality - weak.mean()) / gap)


def apgr_paper(weak: Floats, strong: Floats, win_share: Floats) -> float:
    """Return APGR, the integral of PGR over the share of strong calls from 0 to 1: 0.5 for a router that knows nothing.

    The integral is exact under `call_curve`, a straight line between thresholds. (The paper approximates it by the mean
    over ten evenly spaced shares and does not say which ten.) Source: arXiv 2406.18665, section on metrics.
    """
    curve = call_curve(weak, strong, win_share)
    return float(np.trapezoid(pgr(curve.quality, weak, strong), curve.share))


def apgr_estimate(weak: Floats, strong: Floats, win_share: Floats) -> Estimate | None:
    """Return `apgr_paper` with its 95% interval; None unless strong is better on average.

    APGR is a ratio of two means over queries: of the gain of calling strong, times the share of thresholds at which the
    query calls it, and of the gain. What a query's win share does to the ranks of the others is its second part
    (Hajek's projection). The interval is Fieller's (`ratio_estimate`).
    """
    gain, num_queries = strong - weak, len(weak)
    ascending = np.sort(win_share)
    # Of the queries those with a lower win share, and with one at most as high: tied ones share their ranks.
    lower, at_most = (np.searchsorted(ascending, win_share, side=side) for side in ("left", "right"))
    called = (lower + at_most) / 2 / num_queries
    # The gains of the queries with a higher win share, and of half of those tied: what this query's rank adds to.
    totals = np.append(0.0, np.cumsum(gain[np.argsort(win_share, kind="stable")]))
    moved = (totals[-1] - (totals[lower] + totals[at_most]) / 2) / num_queries
    weighed = gain * called
    return ratio_estimate(weighed + moved - moved.mean(), gain)


def cpt_paper(weak: Floats, strong: Floats, win_share: Floats, target: float) -> float:
    """Return CPT(target): the least share of strong calls (0..1) at which PGR reaches `target`, on `call_curve`.

    It always exists, as PGR is 1 when all calls are strong. Source: arXiv 2406.18665, section on metrics.

    Raises:
        ValueError: `target` is not in 0..1.
    """
    _check_target(target)
    return float(_find_shares(strong - weak, win_share, np.ones((1, len(weak))), target)[0])


def cpt_estimate(weak: Floats, strong: Floats, win_share: Floats, target: float) -> Estimate | None:
    """Return `cpt_paper` with its 95% interval; None unless strong is better on average.

    The interval is that of the percentile bootstrap over queries (Efron and Tibshirani 1993, chapter 13), with a seed
    of its own: equal arguments give equal intervals. It has no ends where strong is not better in a resample.
    """
    value, num_queries = cpt_paper(weak, strong, win_share, target), len(weak)
    if np.isnan(value):
        return None
    if num_queries < MIN_RATIO:
        return Estimate(value=value, note=f"needs at least {MIN_RATIO} queries")
    random, found = np.random.default_rng(_SEED), []
    for _ in range(RESAMPLES // _CHUNK):
        # How often each query (column) is in each resample (row).
        drawn = random.integers(num_queries, size=(_CHUNK, num_queries)) + num_queries * np.arange(_CHUNK)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=_CHUNK * num_queries).reshape(_CHUNK, num_queries)
        found.append(_find_shares(strong - weak, win_share, counts, target))
    shares = np.concatenate(found)
    # NaN of one resample makes the bounds NaN.
    low, high = np.quantile(shares, [LEVEL / 2, 1 - LEVEL / 2])
    return make_estimate(value, float(shares.std(ddof=1)), low, high, "strong may be no better than the other one")


def _find_shares(gain: Floats, win_share: Floats, counts: Floats | Integers, target: float) -> Floats:
    """Return for each row of `counts` (how often each query counts) the least share of strong calls that suffices.

    NaN where strong is not better. `call_curve` has the same points, of one count each.
    """
    order = np.argsort(-win_share, kind="stable")
    ordered, counts = win_share[order], counts[:, order]
    group_ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    # Points of the curves, with the one of no strong call in front: shares of calls, and sums of gains.
    shares, gains = (
        np.pad(np.cumsum(counts * each, axis=1)[:, group_ends], ((0, 0), (1, 0)))
        for each in (np.full(len(gain), 1 / len(gain)), gain[order])
    )
    totals = np.where(gains[:, -1:] > 1e-12 * len(gain), gains[:, -1:], np.nan)
    recovered = gains / totals
    # Sums of scores are exact only up to rounding: a level met exactly must not be missed.
    rows, reached = np.arange(len(counts)), np.argmax(recovered >= target - 1e-9, axis=1)
    # The target is met on the line between the last point below it and the first that reaches it.
    earlier = np.maximum(reached - 1, 0)
    before, after = recovered[rows, earlier], recovered[rows, reached]
    part = np.minimum(1, (target - before) / np.where(reached == 0, 1, after - before))
    return np.asarray(shares[rows, earlier] + part * (shares[rows, reached] - shares[rows, earlier]))


def code_curve(weak: Floats, strong: Floats, win_share: Floats, num_bins: int = 10) -> CallCurve | None:
    """Return the points RouteLLM's code plots: thresholds at the `num_bins` + 1 quantiles of the win shares.

    A query calls the strong candidate when its win share is at least the threshold, and, at the last one, above it.
    The quantiles are those of `pandas.qcut`, linear between order statistics. None where two of them coincide: there
    the code stops with "Bin edges must be unique", for example on every constant router.
    """
    thresholds = np.quantile(win_share, np.linspace(0, 1, num_bins + 1))
    if len(np.unique(thresholds)) <= num_bins:
        return None
    # A row per threshold. At the last one the code compares with > instead of >=, so that nobody is strong.
    is_strong = win_share >= thresholds[:, None]
    is_strong[-1] = win_share > thresholds[-1]
    share, quality = is_strong.mean(axis=1), np.where(is_strong, strong, weak).mean(axis=1)
    order = np.argsort(share, kind="stable")
    return CallCurve(share[order], quality[order])


def apgr_code(weak: Floats, strong: Floats, win_share: Floats) -> float:
    """Return APGR as RouteLLM's code has it: (AUC - AUC of weak) / (AUC of strong - AUC of weak), by trapezoids.

    The three areas lie under eleven points (`code_curve`); NaN where those are undefined or strong is not better.
    """
    curve = code_curve(weak, strong, win_share)
    if curve is None or strong.mean() - weak.mean() <= 1e-12:
        return float("nan")
    # Always weak and always strong are level lines over the same shares.
    area = np.trapezoid(curve.quality, curve.share)
    weak_area, strong_area = (
        np.trapezoid(np.full(len(curve.share), end.mean()), curve.share) for end in (weak, strong)
    )
    return float((area - weak_area) / (strong_area - weak_area))


def cpt_code(weak: Floats, strong: Floats, win_share: Floats, target: float) -> float:
    """Return CPT(target) (0..1) as RouteLLM's code has it: the share at the target quality, by `np.interp`.

    The code hands `np.interp` the eleven qualities in the order of their shares. Where they do not ascend (a router
    that beats strong on the way, a noisy one) the result follows from the steps of its search, and may be far from the
    share that suffices. NaN where `code_curve` is undefined or strong is not better.

    Raises:
        ValueError: `target` is not in 0..1.
    """
    _check_target(target)
    curve = code_curve(weak, strong, win_share)
    gap = strong.mean() - weak.mean()
    if curve is None or gap <= 1e-12:
        return float("nan")
    return float(np.interp(target * gap + weak.mean(), curve.quality, curve.share))


def _check_target(target: float) -> None:
    if not 0 <= target <= 1:
        raise ValueError(f"target must be a PGR in 0..1, got {target!r}")
