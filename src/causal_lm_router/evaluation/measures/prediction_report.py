"""The record of what a router's predictions are worth, next to the figures over its routes alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, rate_estimate
from causal_lm_router.evaluation.measures import calibration, two_candidates
from causal_lm_router.evaluation.measures import calibration as concentration
from causal_lm_router.evaluation.measures.cost_quality_report import CostQualityReport, report_cost_quality
from causal_lm_router.evaluation.measures.predictions import Predictions
from causal_lm_router.evaluation.measures.resampling import bootstrap_estimates

RESAMPLES = 300
"""Bootstrap resamples behind each interval of a report."""
CONFORMAL_LEVEL = 0.9
"""The share of queries whose conformal set is to hold a best candidate."""


@dataclass(frozen=True, slots=True)
class TwoCandidateReport:
    """RouteLLM's figures, each by its paper and by its code; see `measures.two_candidates`.

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """Every figure over a router's predictions on the test queries; None where one is undefined or lacks its data."""

    auroc: Mapping[str, Estimate | None]
    """Candidate -> AUROC of its prediction; None where all its scores are equal."""
    ece: Estimate
    brier: Estimate
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


def report_predictions(test: Predictions, validation: Predictions | None, best_single: str) -> PredictionReport:
    """Return the report on `test`; `validation` gives the temperature, the conformal threshold and expected costs.

    Without validation costs, what a call of each candidate costs is expected from the test queries' mean. Intervals of
    means and rates are those of `intervals`, all others percentile bootstrap intervals over `RESAMPLES` resamples. They
    hold the router, the temperature and the threshold fixed. Raises ValueError where `best_single` or the names of
    `validation` do not fit the names of `test`.
    """
    if best_single not in test.candidate_names:
        raise ValueError(f"best_single={best_single!r}: allowed is {' | '.join(test.candidate_names)}")
    if validation is not None and validation.candidate_names != test.candidate_names:
        raise ValueError(f"validation: got names {validation.candidate_names}, allowed is {test.candidate_names}")
    temperature = None if validation is None else calibration.fit_temperature(validation.scores, validation.predicted)
    scaled = None if temperature is None else calibration.scale(test.predicted, temperature)
    return PredictionReport(
        auroc={
            name: _bootstrap(calibration.auroc, test.scores[:, column], test.predicted[:, column])
            for column, name in enumerate(test.candidate_names)
        },
        ece=_ece(test.scores, test.predicted),
        brier=_brier(test.scores, test.predicted),
        temperature=temperature,
        ece_scaled=None if scaled is None else _ece(test.scores, scaled),
        brier_scaled=None if scaled is None else _brier(test.scores, scaled),
        route_entropy=_bootstrap(concentration.route_entropy, test.called),
        normalised_route_entropy=_bootstrap(concentration.normalised_entropy, test.called),
        top_route_share=_bootstrap(concentration.top_share, test.called),
        cost_quality=report_cost_quality(test, validation, best_single, RESAMPLES),
        two_candidates=_two_candidates(test, best_single) if len(test.candidate_names) == 2 else None,
        conformal=None if validation is None else _conformal(test, validation),
    )


def _bootstrap(statistic: Callable[..., float], *arrays: NDArray[Any]) -> Estimate | None:
    return bootstrap_estimates(lambda *rows: {"": statistic(*rows)}, arrays, resamples=RESAMPLES)[""]


def _ece(scores: Floats, predicted: Floats) -> Estimate:
    figure = _bootstrap(calibration.expected_calibration_error, scores, predicted)
    assert figure is not None
    return figure


def _brier(scores: Floats, predicted: Floats) -> Estimate:
    return mean_estimate(((predicted - scores) ** 2).mean(axis=1))


def _conformal(test: Predictions, validation: Predictions) -> ConformalReport:
    threshold = calibration.conformal_threshold(validation.scores, validation.predicted, CONFORMAL_LEVEL)
    sets = calibration.conformal_sets(test.predicted, threshold)
    num_held = int(calibration.holds_best(test.scores, sets).sum())
    return ConformalReport(
        level=CONFORMAL_LEVEL,
        threshold=threshold if np.isfinite(threshold) else None,
        coverage=rate_estimate(num_held, len(sets)),
        set_size=mean_estimate(sets.sum(axis=1)),
    )


def _two_candidates(test: Predictions, best_single: str) -> TwoCandidateReport:
    strong = test.candidate_names.index(best_single)
    weak = 1 - strong
    arrays = (test.scores[:, weak], test.scores[:, strong], test.predicted[:, strong] - test.predicted[:, weak])
    return TwoCandidateReport(
        strong=best_single,
        apgr_paper=_bootstrap(two_candidates.apgr_paper, *arrays),
        apgr_code=_bootstrap(two_candidates.apgr_code, *arrays),
        cpt50_paper=_bootstrap(partial(two_candidates.cpt_paper, target=0.5), *arrays),
        cpt50_code=_bootstrap(partial(two_candidates.cpt_code, target=0.5), *arrays),
        cpt80_paper=_bootstrap(partial(two_candidates.cpt_paper, target=0.8), *arrays),
        cpt80_code=_bootstrap(partial(two_candidates.cpt_code, target=0.8), *arrays),
    )
