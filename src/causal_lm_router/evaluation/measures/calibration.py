"""How far predictions can be trusted (order, calibration, conformal sets), and how concentrated the routes are.

A prediction is read as the expected score of the candidate's answer. Scores may be fractional. For a router that
predicts which candidate it would choose (shares that sum to 1), the order is meaningful and the calibration is
expected to be poor.
"""

from typing import NamedTuple

import numpy as np
import scipy

from causal_lm_router.data.arrays import Bools, Floats, Integers
from causal_lm_router.evaluation.interval_formulas import LEVEL, share_interval
from causal_lm_router.evaluation.intervals import Estimate, make_estimate

CLIP = 1e-6
"""Predictions are kept this far from 0 and 1 before their logit is taken."""
TEMPERATURES = (0.05, 20.0)
"""The range in which a temperature is looked for."""

MIN_CONTRAST = 16
"""Harmonic mean of the numbers of right and wrong answers that an interval of an AUROC needs."""
# Pairs of queries held at once: bounds the memory, not the result.
_MAX_PAIRS = 4_000_000


class Reliability(NamedTuple):
    """Predictions in bins of equal width: how many, their mean and the mean score; NaN means in an empty bin."""

    num_pairs: Integers
    mean_predicted: Floats
    mean_score: Floats


def are_choices(predicted: Floats) -> bool:
    """Return whether the predictions say which candidate is chosen (shares that sum to 1), not how each will score."""
    return bool(np.allclose(predicted.sum(axis=1), 1, atol=1e-6))


def auroc(scores: Floats, predicted: Floats) -> float:
    """Return AUROC: of the pairs of queries with different scores, the share whose predictions are in the same order.

    Equal predictions count half; NaN where all scores are equal. For scores of 0 and 1 this is the area under the ROC
    curve (Hanley and McNeil, 1982), for others the concordance index (Harrell et al., 1982).
    """
    surplus, compared = _concordance(scores, predicted)
    return float((surplus.sum() / compared.sum() + 1) / 2) if compared.any() else float("nan")


def auroc_estimate(scores: Floats, predicted: Floats) -> Estimate | None:
    """Return AUROC with its 95% interval; None where all scores are equal.

    The standard error is the jackknife's, which for scores of 0 and 1 is about that of DeLong et al. (1988), Biometrics
    44, 837-845. The interval is that of a share (`share_interval`), its number of queries the harmonic mean of the
    numbers of right and wrong answers, or what makes as many pairs.
    """
    surplus, compared = _concordance(scores, predicted)
    if not compared.any():
        return None
    value, num = float((surplus.sum() / compared.sum() + 1) / 2), len(scores)
    size = float(compared.sum()) / num
    if size < MIN_CONTRAST:
        return Estimate(value=value, note="too few queries score otherwise than the others")
    # AUROC without each query in turn: a query is in all its pairs, which the sums count from both sides.
    without = (surplus.sum() - 2 * surplus) / (compared.sum() - 2 * compared) / 2
    error = float(np.sqrt((num - 1) / num * ((without - without.mean()) ** 2).sum()))
    low, high = share_interval(np.array(value), np.array(error**2), size)(LEVEL)
    return make_estimate(value, error, low, high, "every pair is in the same order")


def _concordance(scores: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """Of each query's pairs with others: those in order minus those in reverse, and those whose scores differ."""
    surplus, compared = np.empty(len(scores)), np.empty(len(scores))
    # In parts, as all pairs at once would not fit for many queries.
    for start in range(0, len(scores), step := max(1, _MAX_PAIRS // len(scores))):
        part = slice(start, start + step)
        order = np.sign(scores[part, None] - scores)
        surplus[part] = (order * np.sign(predicted[part, None] - predicted)).sum(axis=1)
        compared[part] = np.abs(order).sum(axis=1)
    return surplus, compared


def reliability(scores: Floats, predicted: Floats, num_bins: int = 15) -> Reliability:
    """Return the bins of a reliability diagram over all entries of `predicted`: bin b holds (b / bins, (b + 1) / bins].

    A prediction of 0 is in the first bin. Source: Guo et al. (2017), arXiv 1706.04599, section 2.
    """
    bins = bin_numbers(predicted, num_bins).ravel()
    num_pairs = np.bincount(bins, minlength=num_bins)
    # The sums of predictions and of scores in each bin give its means.
    sums = [np.bincount(bins, values.ravel(), num_bins) for values in (predicted, scores)]
    mean_predicted, mean_score = (
        np.divide(total, num_pairs, out=np.full(num_bins, np.nan), where=num_pairs > 0) for total in sums
    )
    return Reliability(num_pairs, mean_predicted, mean_score)


def bin_numbers(predicted: Floats, num_bins: int) -> Integers:
    """Return the bin of every prediction, from 0; a bound belongs to the bin below it."""
    return np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], predicted, side="left")


def expected_calibration_error(scores: Floats, predicted: Floats, num_bins: int = 15) -> float:
    """Return ECE, the sum over bins of (share of predictions) x |mean score - mean prediction|, over all entries.

    Source: Naeini et al. (2015), AAAI; Guo et al. (2017), arXiv 1706.04599, equation 3, with 15 bins of equal width.
    """
    bins = reliability(scores, predicted, num_bins)
    # Empty bins have no means and no weight.
    return float(np.nansum(bins.num_pairs * np.abs(bins.mean_score - bins.mean_predicted)) / bins.num_pairs.sum())


def scale(predicted: Floats, temperature: float) -> Floats:
    """Return sigmoid(logit(prediction) / temperature), predictions clipped to `CLIP` from 0 and 1 before."""
    return np.asarray(scipy.special.expit(scipy.special.logit(np.clip(predicted, CLIP, 1 - CLIP)) / temperature))


def fit_temperature(scores: Floats, predicted: Floats) -> float:
    """Return the temperature within `TEMPERATURES` whose scaled predictions have the least negative log-likelihood.

    The likelihood takes scores as soft labels: mean of -score ln q - (1 - score) ln(1 - q). Above 1: the predictions
    were too sure. Fit it on validation queries. Source: Guo et al. (2017), arXiv 1706.04599, section 4.2, here for one
    logit per candidate.
    """
    logits = scipy.special.logit(np.clip(predicted, CLIP, 1 - CLIP))

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        # -ln sigmoid(x) = ln(1 + e^-x), and -ln(1 - sigmoid(x)) is the same plus x.
        return float(np.mean(np.logaddexp(0, -scaled) + (1 - scores) * scaled))

    # On the logarithm of the temperature the loss is smooth and the range is even.
    low, high = np.log(TEMPERATURES)
    found = scipy.optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def conformal_threshold(scores: Floats, predicted: Floats, level: float = 0.9) -> float:
    """Return how far below the highest prediction a candidate may lie and still be in the set, chosen on `scores`.

    Each query's shortfall is its highest prediction minus the highest prediction among its best candidates (ties all
    count as best). The threshold is the ceil((n + 1) x level)-th smallest shortfall of n queries, infinite where there
    are too few queries for it. On further queries, exchangeable with these, `conformal_sets` then hold a best candidate
    with probability at least `level`. Source: split conformal prediction, Vovk et al. (2005); Angelopoulos and Bates
    (2021), arXiv 2107.07511, section 1; the shortfall as its conformity score is this project's choice.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    # The highest prediction among the best candidates of each query.
    best_predicted = np.where(scores == scores.max(axis=1, keepdims=True), predicted, -np.inf).max(axis=1)
    shortfalls = np.sort(predicted.max(axis=1) - best_predicted)
    # The small amount keeps (n + 1) x level from being rounded up over an integer.
    rank = int(np.ceil((len(shortfalls) + 1) * level - 1e-9))
    return float(shortfalls[rank - 1]) if rank <= len(shortfalls) else float("inf")


def conformal_sets(predicted: Floats, threshold: float) -> Bools:
    """Return for every query which candidates lie within `threshold` of its highest prediction: at least one."""
    return np.asarray(predicted.max(axis=1, keepdims=True) - predicted <= threshold)


def holds_best(scores: Floats, sets: Bools) -> Bools:
    """Return for every query whether its set holds a best candidate; the mean of it is the coverage."""
    return np.asarray(((scores == scores.max(axis=1, keepdims=True)) & sets).any(axis=1))


def route_shares(called: Floats) -> Floats:
    """Return each candidate's share of the calls; NaN where nothing is called.

    `called` holds the weight of each candidate in a query's route: 1 for the one called, all 0 where none is.
    """
    calls = called.sum(axis=0)
    return np.asarray(calls / calls.sum()) if calls.sum() > 0 else np.full(calls.shape, np.nan)


def route_entropy(called: Floats) -> float:
    """Return the entropy of the route shares, -sum p ln p, in nats: 0 for one candidate always, ln C for equal shares.

    Source: Shannon (1948), section 6.
    """
    shares = route_shares(called)
    # Adding 0 turns -0 into 0.
    return float(-sum(share * np.log(share) for share in shares if share != 0)) + 0.0


def normalised_entropy(called: Floats) -> float:
    """Return the entropy of the route shares divided by ln C, its largest value: 0..1 (Pielou, 1966)."""
    return route_entropy(called) / float(np.log(called.shape[1]))


def top_share(called: Floats) -> float:
    """Return the share of the calls that goes to the candidate called most: 1/C..1."""
    return float(route_shares(called).max())
