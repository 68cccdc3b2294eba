"""The record of what a router's predictions are worth, beside the estimates over its routes alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate
from causal_lm_router.evaluation.measures import calibration, two_candidates
from causal_lm_router.evaluation.measures.cost_quality_report import CostQualityReport, report_cost_quality
from causal_lm_router.evaluation.measures.resampling import bootstrap_estimates
from causal_lm_router.evaluation.outcome_table import OutcomeTable

RESAMPLES = 300
"""Bootstrap resamples behind each interval of a report."""
CONFORMAL_LEVEL = 0.9
"""The share of queries whose conformal set is to hold a best candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoCandidateReport:
    """RouteLLM's measures, each by its paper and by its code; see `measures.two_candidates`.

    None where the strong candidate is not better on the test queries, and by the code where its thresholds coincide.
    """

    strong: str
    """Best single is the strong candidate."""
    apgr_paper: Estimate | None
    apgr_code: Estimate | None
    cpt50_paper: Estimate | None
    cpt50_code: Estimate | None
    cpt80_paper: Estimate | None
    cpt80_code: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalReport:
    """Sets that hold a best candidate, chosen on validation; see `calibration.conformal_threshold`."""

    level: float
    """The share of queries whose set is to hold a best candidate."""
    threshold: float | None
    """How far below the highest prediction a set reaches; None where validation is too small and all are in."""
    coverage: Estimate
    """Share of test queries whose set holds a best candidate."""
    set_size: Estimate
    """Mean number of candidates in a set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionReport:
    """What predictions are worth on the test queries; None where a measure is undefined or lacks its data."""

    auroc: Mapping[str, Estimate | None]
    """Candidate -> AUROC of its prediction; None where all its scores are equal."""
    ece: Estimate
    """Expected calibration error."""
    brier: Estimate
    """Brier score: mean of (prediction - score)^2 over queries and candidates (Brier, 1950, for one class of two)."""
    temperature: float | None
    """Fitted on validation; None without it."""
    ece_scaled: Estimate | None
    """ECE after temperature scaling."""
    brier_scaled: Estimate | None
    """Brier score after temperature scaling."""
    route_entropy: Estimate | None
    """Entropy of the actual routes, nats."""
    normalised_route_entropy: Estimate | None
    """The same divided by the logarithm of the pool size, 0..1."""
    top_route_share: Estimate | None
    """Share of the calls that goes to the candidate called most."""
    cost_quality: CostQualityReport | None
    """None where costs are unknown."""
    two_candidates: TwoCandidateReport | None
    """None for a pool of more than two."""
    conformal: ConformalReport | None
    """None without validation."""


def report_predictions(
    test: OutcomeTable, validation: OutcomeTable | None, best_single: str
) -> PredictionReport | None:
    """Return the report on `test`, None where its router does not predict.

    `validation` gives the temperature, the conformal threshold and expected costs; one without predictions counts as
    none. Without validation costs, what a call of each candidate costs is expected from the test queries' mean.
    Intervals of means and rates are those of `intervals`, all others percentile bootstrap intervals over `RESAMPLES`
    resamples. They hold the router, the temperature and the threshold fixed.

    Raises:
        ValueError: `best_single` or the candidates of `validation` are not those of `test`.
    """
    if test.predicted is None:
        return None
    single = test.column(best_single)
    if validation is not None and validation.candidate_names != test.candidate_names:
        raise ValueError(
            f"validation must be of the candidates {test.candidate_names}, got {validation.candidate_names}"
        )
    # What is fitted on validation is held fixed in every interval below.
    temperature, conformal, expected_costs = None, None, test.costs
    if validation is not None and validation.predicted is not None:
        temperature = calibration.fit_temperature(validation.scores, validation.predicted)
        threshold = calibration.conformal_threshold(validation.scores, validation.predicted, CONFORMAL_LEVEL)
        conformal = _conformal(test.scores, test.predicted, threshold)
        expected_costs = test.costs if validation.costs is None else validation.costs
    return PredictionReport(
        auroc={
            name: _bootstrap(calibration.auroc, test.scores[:, column], test.predicted[:, column])
            for column, name in enumerate(test.candidate_names)
        },
        cost_quality=report_cost_quality(test, expected_costs, single, RESAMPLES),
        two_candidates=_two_candidates(test, test.predicted, single) if len(test.candidate_names) == 2 else None,
        conformal=conformal,
        **_calibration(test.scores, test.predicted, temperature),
        **_concentration(test.calls),
    )


def _calibration(scores: Floats, predicted: Floats, temperature: float | None) -> dict[str, Any]:
    """The fields of a report about how far predictions are from scores, before and after scaling."""
    scaled = None if temperature is None else calibration.scale(predicted, temperature)
    return {
        "ece": _ece(scores, predicted),
        "brier": _brier(scores, predicted),
        "temperature": temperature,
        "ece_scaled": None if scaled is None else _ece(scores, scaled),
        "brier_scaled": None if scaled is None else _brier(scores, scaled),
    }


def _concentration(calls: Floats) -> dict[str, Any]:
    """The fields of a report about how few candidates get the calls."""
    return {
        "route_entropy": _bootstrap(calibration.route_entropy, calls),
        "normalised_route_entropy": _bootstrap(calibration.normalised_entropy, calls),
        "top_route_share": _bootstrap(calibration.top_share, calls),
    }


def _bootstrap(statistic: Callable[..., float], *arrays: NDArray[Any]) -> Estimate | None:
    return bootstrap_estimates(lambda *rows: {"": statistic(*rows)}, arrays, resamples=RESAMPLES)[""]


def _ece(scores: Floats, predicted: Floats) -> Estimate:
    estimate = _bootstrap(calibration.expected_calibration_error, scores, predicted)
    assert estimate is not None, "an ECE is defined for every query"
    return estimate


def _brier(scores: Floats, predicted: Floats) -> Estimate:
    # The mean of each query's squares first: queries are what an interval is over.
    return mean_estimate(((predicted - scores) ** 2).mean(axis=1))


def _conformal(scores: Floats, predicted: Floats, threshold: float) -> ConformalReport:
    sets = calibration.conformal_sets(predicted, threshold)
    return ConformalReport(
        level=CONFORMAL_LEVEL,
        # JSON has no infinity.
        threshold=threshold if np.isfinite(threshold) else None,
        coverage=rate_estimate(int(calibration.holds_best(scores, sets).sum()), len(sets)),
        set_size=mean_estimate(sets.sum(axis=1)),
    )


def _two_candidates(test: OutcomeTable, predicted: Floats, strong: int) -> TwoCandidateReport:
    weak = 1 - strong
    # RouteLLM's routers give a win share; of two predictions the difference puts queries in the same order.
    arrays = (test.scores[:, weak], test.scores[:, strong], predicted[:, strong] - predicted[:, weak])
    return TwoCandidateReport(
        strong=test.candidate_names[strong],
        apgr_paper=_bootstrap(two_candidates.apgr_paper, *arrays),
        apgr_code=_bootstrap(two_candidates.apgr_code, *arrays),
        cpt50_paper=_bootstrap(partial(two_candidates.cpt_paper, target=0.5), *arrays),
        cpt50_code=_bootstrap(partial(two_candidates.cpt_code, target=0.5), *arrays),
        cpt80_paper=_bootstrap(partial(two_candidates.cpt_paper, target=0.8), *arrays),
        cpt80_code=_bootstrap(partial(two_candidates.cpt_code, target=0.8), *arrays),
    )
