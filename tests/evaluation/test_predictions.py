"""Calibration, concentration and the report over predictions, by hand and against scikit-learn."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from causal_lm_router.evaluation.measures import calibration
from causal_lm_router.evaluation.measures.cost_quality_report import OF_FRONTIER
from causal_lm_router.evaluation.measures.prediction_report import PredictionReport, report_predictions
from causal_lm_router.evaluation.outcome_table import NOBODY, OutcomeTable
from causal_lm_router.evaluation.report import _decode, _encode


def test_auroc_by_hand_and_against_scikit_learn() -> None:
    # Four pairs of a right and a wrong answer: three in order, one tied.
    assert calibration.auroc(np.array([0.0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35])) == pytest.approx(3.5 / 4)
    # Fractional: of the pairs (0, 0.5), (0, 1), (0.5, 1) the first is in the wrong order.
    assert calibration.auroc(np.array([0.0, 0.5, 1]), np.array([0.2, 0.1, 0.3])) == pytest.approx(2 / 3)
    assert calibration.auroc(np.array([0.0, 1]), np.array([0.3, 0.3])) == 0.5
    assert np.isnan(calibration.auroc(np.array([1.0, 1]), np.array([0.3, 0.4])))
    random = np.random.default_rng(0)
    scores, predicted = random.integers(2, size=200), random.integers(12, size=200) / 12
    assert calibration.auroc(scores.astype(float), predicted) == pytest.approx(roc_auc_score(scores, predicted))


def test_auroc_of_fractional_scores_counts_pairs() -> None:
    random = np.random.default_rng(1)
    scores, predicted = random.integers(5, size=60) / 4, random.integers(9, size=60) / 9
    pairs = [(i, j) for i in range(60) for j in range(60) if scores[i] > scores[j]]
    in_order = [1 if predicted[i] > predicted[j] else 0.5 * (predicted[i] == predicted[j]) for i, j in pairs]
    assert calibration.auroc(scores, predicted) == pytest.approx(np.mean(in_order))


def test_calibration_error_by_hand() -> None:
    scores, predicted = np.array([[0.0, 1], [1, 1]]), np.array([[0.05, 0.05], [0.95, 0.95]])
    # Half the predictions lie 0.45 below their mean score, half 0.05.
    assert calibration.expected_calibration_error(scores, predicted, 10) == pytest.approx(0.25)
    bins = calibration.reliability(scores, np.array([[0, 0.2], [0.21, 1]]), 5)
    assert bins.num_pairs.tolist() == [2, 1, 0, 0, 1]
    assert bins.mean_score[:2].tolist() == [0.5, 1]
    assert np.isnan(bins.mean_predicted[2])


def test_temperature_by_hand() -> None:
    # Predictions of 0.9 and 0.1 that are right three times in four: odds of 9 should be odds of 3, ln 9 / ln 3 = 2.
    predicted = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    scores = np.array([1.0, 1, 1, 0, 0, 0, 0, 1])
    assert calibration.fit_temperature(scores, predicted) == pytest.approx(2, abs=1e-4)
    assert calibration.scale(predicted, 2)[[0, 4]] == pytest.approx([0.75, 0.25])
    # The same with soft labels, and for predictions that are not sure enough.
    assert calibration.fit_temperature(np.array([0.75, 0.25]), np.array([0.9, 0.1])) == pytest.approx(2, abs=1e-4)
    assert calibration.fit_temperature(np.array([0.9, 0.1]), np.array([0.75, 0.25])) == pytest.approx(0.5, abs=1e-4)
    certain = calibration.scale(np.array([0.0, 1.0]), 1)
    assert certain == pytest.approx([calibration.CLIP, 1 - calibration.CLIP])


def test_conformal_sets_by_hand() -> None:
    # Nine queries whose best candidate lies 0, 0.05, ..., 0.4 below the highest prediction.
    predicted = np.column_stack([np.full(9, 0.5), 0.5 - np.arange(9) / 20])
    scores = np.tile([0.0, 1], (9, 1))
    assert calibration.conformal_threshold(scores, predicted, 0.8) == pytest.approx(0.35)
    assert calibration.conformal_threshold(scores, predicted, 0.9) == pytest.approx(0.4)
    assert calibration.conformal_threshold(scores, predicted, 0.95) == np.inf
    # Where all candidates are best, none of them is missed.
    assert calibration.conformal_threshold(np.ones((9, 2)), predicted, 0.8) == 0
    sets = calibration.conformal_sets(predicted, 0.22)
    assert sets[:, 1].tolist() == [True] * 5 + [False] * 4
    assert sets[:, 0].all()
    assert calibration.holds_best(scores, sets).sum() == 5
    with pytest.raises(ValueError, match=r"level must .* between 0 and 1, got 1"):
        calibration.conformal_threshold(scores, predicted, 1)


def test_conformal_sets_hold_a_best_candidate_as_often_as_promised() -> None:
    random = np.random.default_rng(3)
    coverages = []
    for _ in range(200):
        predicted = random.random((240, 4))
        scores = (random.random((240, 4)) < predicted).astype(float)
        threshold = calibration.conformal_threshold(scores[:40], predicted[:40], 0.9)
        sets = calibration.conformal_sets(predicted[40:], threshold)
        coverages.append(calibration.holds_best(scores[40:], sets).mean())
    # The promise is on average over validations of 40: at least 0.9, at most 1 / 41 more but for ties.
    assert 0.895 <= np.mean(coverages) <= 0.9 + 1 / 41 + 0.01


def test_concentration_by_hand() -> None:
    called = np.eye(3)[[0, 0, 0, 1]]
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert calibration.route_entropy(called) == pytest.approx(entropy)
    assert calibration.normalised_entropy(called) == pytest.approx(entropy / np.log(3))
    assert calibration.top_share(called) == 0.75
    # A query on which nothing is called is no route.
    assert calibration.top_share(np.vstack([called, np.zeros(3)])) == 0.75
    assert str(calibration.route_entropy(np.eye(3)[[1, 1]])) == "0.0"
    assert calibration.normalised_entropy(np.full((2, 3), 1 / 3)) == pytest.approx(1)
    assert np.isnan(calibration.route_entropy(np.zeros((2, 3))))


def make_table(num_queries: int, num_candidates: int, seed: int, **changes: Any) -> OutcomeTable:
    """Predictions that are calibrated: each is the chance of a score of 1. Each route is the highest one."""
    random = np.random.default_rng(seed)
    predicted = random.random((num_queries, num_candidates))
    fields = {
        "candidate_names": tuple(f"candidate-{number}" for number in range(num_candidates)),
        "tasks": ("task",) * num_queries,
        "routes": predicted.argmax(axis=1),
        "scores": (random.random(predicted.shape) < predicted).astype(float),
        "costs": random.random(predicted.shape) * np.arange(1, num_candidates + 1) / 1000,
        "predicted": predicted,
        "called": predicted.argmax(axis=1),
        "expected": None,
    }
    return OutcomeTable(**fields | changes)


def report_on(test: OutcomeTable, validation: OutcomeTable | None, best_single: str) -> PredictionReport:
    report = report_predictions(test, validation, best_single)
    assert report is not None
    return report


@pytest.fixture(scope="module")
def report() -> PredictionReport:
    return report_on(make_table(300, 3, 5), make_table(200, 3, 6), "candidate-1")


def test_report_of_a_calibrated_router(report: PredictionReport) -> None:
    test = make_table(300, 3, 5)
    estimate = report.auroc["candidate-2"]
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    predicted = test.predicted
    assert predicted is not None
    assert estimate.value == calibration.auroc(test.scores[:, 2], predicted[:, 2])
    assert estimate.low < 0.83 < estimate.high, "5 / 6 is the AUROC of uniform chances"
    assert report.temperature == pytest.approx(1, abs=0.15)
    for described in (report.ece, report.ece_scaled, report.route_entropy, report.top_route_share):
        assert described is not None
        assert described.low is None and described.note is not None and "no interval holds" in described.note
    assert report.ece_scaled is not None and report.ece_scaled.value < 0.08
    assert report.brier.value == pytest.approx(brier_score_loss(test.scores.ravel(), predicted.ravel()))
    assert report.brier.value == pytest.approx(1 / 6, abs=0.02)
    assert report.normalised_route_entropy is not None and report.normalised_route_entropy.value > 0.99
    assert report.two_candidates is None
    assert report.conformal is not None
    assert report.conformal.coverage.value == pytest.approx(0.9, abs=0.05)
    assert 1 < report.conformal.set_size.value < 3


def test_report_on_costs(report: PredictionReport) -> None:
    assert report.cost_quality is not None
    frontier = report.cost_quality.frontier
    test = make_table(300, 3, 5)
    assert test.costs is not None
    assert frontier[0].trade_off == 0
    assert frontier[0].score == pytest.approx(test.score.mean())
    assert frontier[-1].trade_off is None
    assert frontier[-1].cost == pytest.approx(test.costs[:, 0].mean())
    assert frontier[0].cost > frontier[-1].cost
    gain = report.cost_quality.aiq_gain
    assert gain is not None and gain.value > 0, "the predictions are worth something"
    for name in ("aiq", "zero_router_aiq", "aiq_gain", "perf_gain", "cost_save", "pareto_dist", "arena_score"):
        estimate = getattr(report.cost_quality, name)
        assert (estimate.low, estimate.note) == (None, OF_FRONTIER)
    assert report.cost_quality.aiq is not None and report.cost_quality.zero_router_aiq is not None
    assert gain.value == pytest.approx(report.cost_quality.aiq.value - report.cost_quality.zero_router_aiq.value)
    assert report.cost_quality.perf_gain is not None
    single = test.scores[:, 1].mean()
    assert report.cost_quality.perf_gain.value == pytest.approx(max(p.score for p in frontier) / single - 1)
    assert report.cost_quality.cost_save is not None
    cheapest = min(point.cost for point in frontier if point.score >= single)
    assert report.cost_quality.cost_save.value == pytest.approx(1 - cheapest / test.costs[:, 1].mean())


def test_report_survives_json(report: PredictionReport) -> None:
    for one in (report, report_on(make_table(50, 2, 7, costs=None), None, "candidate-1")):
        text = json.dumps(_encode(dataclasses.asdict(one)), allow_nan=False)
        assert _decode(PredictionReport, json.loads(text), "predictions") == one


def test_report_without_validation_costs_or_contrast() -> None:
    scores = np.column_stack([np.zeros(40), np.ones(40)])
    report = report_on(make_table(40, 2, 8, scores=scores, costs=None), None, "candidate-1")
    assert report.auroc == {"candidate-0": None, "candidate-1": None}
    assert report.temperature is report.ece_scaled is report.brier_scaled is report.conformal is None
    assert report.cost_quality is None
    assert report.two_candidates is not None and report.two_candidates.strong == "candidate-1"
    # Every strong call gains the same, so that any order does as well as drawing at random.
    for key, value in {"apgr_paper": 0.5, "cpt50_paper": 0.5, "cpt80_paper": 0.8, "apgr_code": 0.5}.items():
        assert getattr(report.two_candidates, key).value == pytest.approx(value)
    weaker = report_on(make_table(40, 2, 8, scores=scores), None, "candidate-0")
    assert weaker.two_candidates is not None and weaker.two_candidates.apgr_paper is None
    silent = report_on(make_table(40, 2, 8, called=np.full(40, NOBODY)), None, "candidate-0")
    assert silent.route_entropy is None


def test_a_router_without_predictions_has_no_report() -> None:
    test = make_table(9, 2, 9)
    assert report_predictions(make_table(9, 2, 9, predicted=None), test, "candidate-0") is None
    by_itself = report_predictions(test, make_table(9, 2, 9, predicted=None), "candidate-0")
    assert by_itself is not None and by_itself.temperature is None


def test_tables_that_do_not_fit_are_errors() -> None:
    for changes, message in [
        ({"predicted": np.full((9, 2), 1.5)}, r"predicted .* 0\.\.1\.0, got 1\.5\.\.1\.5"),
        ({"costs": np.full((9, 2), np.nan)}, r"costs .* 0\.\.inf, got nan"),
        ({"scores": np.zeros((8, 2))}, r"scores .* shape \(9, 2\), got \(8, 2\)"),
        ({"tasks": ()}, "got 0 queries x 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_table(9, 2, 9, **changes)
    test = make_table(9, 2, 9)
    with pytest.raises(ValueError, match=r"best_single must .* got 'other'"):
        report_predictions(test, None, "other")
    with pytest.raises(ValueError, match="validation must be of the candidates"):
        report_predictions(test, make_table(9, 3, 9), "candidate-0")
