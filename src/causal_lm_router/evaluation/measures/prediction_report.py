"""The record of what a router's predictions are worth, beside the estimates over its routes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Bools, Floats
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate, without_interval
from causal_lm_router.evaluation.measures import calibration, two_candidates
from causal_lm_router.evaluation.measures.cost_quality_report import CostQualityReport, report_cost_quality
from causal_lm_router.evaluation.outcome_table import OutcomeTable

OF_ECE = "an ECE is above 0 on any finite number of queries, also of a calibrated router: no interval holds"
OF_SHARES = "describes the routes of these queries: no interval holds where the shares are equal or one is 1"
OF_THRESHOLDS = "read off at thresholds taken from the same queries: no interval holds"
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
    are_choices: bool = False
    """The predictions are probabilities to choose a candidate, which sum to 1 over the pool, and predict no scores.

    Their AUROC says how well they order queries, and their calibration error is large by nature."""


def report_predictions(
    test: OutcomeTable, validation: OutcomeTable | None, best_single: str
) -> PredictionReport | None:
    """Return the report on `test`, None where its router does not predict.

    `validation` gives the temperature, the conformal threshold and expected costs; one without predictions counts as
    none. Without validation costs, what a call of each candidate costs is expected from the test queries' mean.
    Intervals hold the router, the temperature and the threshold fixed.

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
    temperature, threshold, expected_costs = _fit(test, validation)
    return PredictionReport(
        auroc={
            name: calibration.auroc_estimate(test.scores[:, column], test.predicted[:, column])
            for column, name in enumerate(test.candidate_names)
        },
        cost_quality=report_cost_quality(test, expected_costs, single),
        two_candidates=_two_candidates(test, test.predicted, single) if len(test.candidate_names) == 2 else None,
        conformal=None if threshold is None else _conformal(test.scores, test.predicted, threshold),
        **_calibration(test.scores, test.predicted, temperature),
        **_concentration(test.calls),
    )


def _fit(test: OutcomeTable, validation: OutcomeTable | None) -> tuple[float | None, float | None, Floats | None]:
    """Temperature, conformal threshold and expected costs from validation, as far as it has them.

    They are held fixed in every interval.
    """
    if validation is None or validation.predicted is None:
        return None, None, test.costs
    temperature = calibration.fit_temperature(validation.scores, validation.predicted)
    threshold = calibration.conformal_threshold(validation.scores, validation.predicted, CONFORMAL_LEVEL)
    return temperature, threshold, test.costs if validation.costs is None else validation.costs


def _calibration(scores: Floats, predicted: Floats, temperature: float | None) -> dict[str, Any]:
    """The fields of a report about how far predictions are from scores, before and after scaling."""
    scaled = None if temperature is None else calibration.scale(predicted, temperature)
    return {
        "ece": _ece(scores, predicted),
        "brier": _brier(scores, predicted),
        "temperature": temperature,
        "ece_scaled": None if scaled is None else _ece(scores, scaled),
        "brier_scaled": None if scaled is None else _brier(scores, scaled),
        "are_choices": calibration.are_choices(predicted),
    }


def _concentration(calls: Floats) -> dict[str, Any]:
    """The fields of a report about how few candidates get the calls."""
    return {
        "route_entropy": without_interval(calibration.route_entropy(calls), OF_SHARES),
        "normalised_route_entropy": without_interval(calibration.normalised_entropy(calls), OF_SHARES),
        "top_route_share": without_interval(calibration.top_share(calls), OF_SHARES),
    }


def _ece(scores: Floats, predicted: Floats) -> Estimate:
    return Estimate(value=calibration.expected_calibration_error(scores, predicted), note=OF_ECE)


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
        set_size=_set_size(sets),
    )


def _set_size(sets: Bools) -> Estimate:
    # A size from 1 to the pool's is a share of the candidates beyond the first.
    others = sets.shape[1] - 1
    share = mean_estimate((sets.sum(axis=1) - 1) / others)
    bounds = {key: getattr(share, key) for key in ("low", "high")}
    return Estimate(
        value=1 + others * share.value,
        standard_error=None if share.standard_error is None else others * share.standard_error,
        note=share.note,
        **{key: None if bound is None else 1 + others * bound for key, bound in bounds.items()},
    )


def _two_candidates(test: OutcomeTable, predicted: Floats, strong: int) -> TwoCandidateReport:
    weak = 1 - strong
    # RouteLLM's routers give a win share; of two predictions the difference puts queries in the same order.
    arrays = (test.scores[:, weak], test.scores[:, strong], predicted[:, strong] - predicted[:, weak])
    return TwoCandidateReport(
        strong=test.candidate_names[strong],
        apgr_paper=two_candidates.apgr_estimate(*arrays),
        apgr_code=without_interval(two_candidates.apgr_code(*arrays), OF_THRESHOLDS),
        cpt50_paper=two_candidates.cpt_estimate(*arrays, target=0.5),
        cpt50_code=without_interval(two_candidates.cpt_code(*arrays, target=0.5), OF_THRESHOLDS),
        cpt80_paper=two_candidates.cpt_estimate(*arrays, target=0.8),
        cpt80_code=without_interval(two_candidates.cpt_code(*arrays, target=0.8), OF_THRESHOLDS),
    )
