"""Estimates of a report against values worked out by hand."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.prompting.parse import called_candidate
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample

NAMES = ["a", "b", "c"]
COSTS = {"a": 0.01, "b": 0.02, "c": 0.03}
# query: task, scores, expected scores, label, route (None: the generation names nobody)
QUERIES = {
    "right": ("x", (1.0, 0.0, 0.0), (0.9, 0.5, 0.1), "a", "a"),
    "tie": ("x", (1.0, 1.0, 0.0), (0.6, 0.7, 0.1), "a", "b"),
    "undecided": ("x", (0.0, 0.0, 0.0), (0.1, 0.2, 0.3), "a", "c"),
    "wrong": ("y", (0.5, 1.0, 0.0), (0.5, 0.9, 0.1), "b", "a"),
    "failed": ("y", (0.0, 1.0, 1.0), (0.2, 0.8, 0.9), "b", None),
}


def by_name(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


def outcome(
    query_id: str, *, fallback: str | None = None, costs: Mapping[str, float] | None = COSTS, expected: bool = True
) -> RouteOutcome:
    task, scores, expected_scores, label, candidate = QUERIES[query_id]
    example = RoutingExample(
        query_id, "text", task, by_name(scores), costs, by_name(expected_scores) if expected else None
    )
    route = ParsedRoute(None, ParseFailure.unknown) if candidate is None else ParsedRoute(candidate)
    return RouteOutcome(
        example=example,
        label=label,
        generation=Generation("text", "stop"),
        route=route,
        called=called_candidate(route, fallback),
    )


def report_of(*outcomes: RouteOutcome, best_single: str = "b") -> RoutingReport:
    return evaluate_outcomes(outcomes, NAMES, best_single, queries_per_second=8.0).report


@pytest.fixture
def report() -> RoutingReport:
    return report_of(*(outcome(query_id) for query_id in QUERIES))


def test_accuracies_count_ties_as_right_and_failures_as_wrong(report: RoutingReport) -> None:
    assert report.num_queries == 5
    assert report.routing_accuracy.value == 3 / 5  # right, tie, undecided
    assert report.label_accuracy.value == 1 / 5  # right
    assert report.num_decisive == 4  # all but undecided
    assert report.decisive_accuracy is not None
    assert report.decisive_accuracy.value == 2 / 4  # right, tie


def test_scores_regret_and_cost_without_fallback(report: RoutingReport) -> None:
    assert report.mean_score.value == pytest.approx((1 + 1 + 0 + 0.5 + 0) / 5)
    assert report.regret.value == pytest.approx((0 + 0 + 0 + 0.5 + 1) / 5)
    assert report.mean_cost is not None
    assert report.mean_cost.value == pytest.approx((0.01 + 0.02 + 0.03 + 0.01 + 0) / 5)


def test_fallback_changes_score_and_cost_but_no_accuracy() -> None:
    report = report_of(*(outcome(query_id, fallback="c") for query_id in QUERIES))
    assert report.routing_accuracy.value == 3 / 5
    assert report.label_accuracy.value == 1 / 5
    assert report.decisive_accuracy is not None
    assert report.decisive_accuracy.value == 2 / 4
    assert report.parse_failure_rate.value == 1 / 5
    assert report.mean_score.value == pytest.approx((1 + 1 + 0 + 0.5 + 1) / 5)
    assert report.regret.value == pytest.approx((0 + 0 + 0 + 0.5 + 0) / 5)
    assert report.mean_cost is not None
    assert report.mean_cost.value == pytest.approx((0.01 + 0.02 + 0.03 + 0.01 + 0.03) / 5)


def test_random_is_the_expectation_over_candidates(report: RoutingReport) -> None:
    random = report.references["random"]
    assert random.mean_score.value == pytest.approx((1 / 3 + 2 / 3 + 0 + 1.5 / 3 + 2 / 3) / 5)
    assert random.routing_accuracy.value == pytest.approx((1 / 3 + 2 / 3 + 1 + 1 / 3 + 2 / 3) / 5)
    assert random.regret.value == pytest.approx((2 / 3 + 1 / 3 + 0 + 1.5 / 3 + 1 / 3) / 5)
    assert random.mean_cost is not None
    assert random.mean_cost.value == pytest.approx(0.02)


def test_best_single_is_the_candidate_given(report: RoutingReport) -> None:
    single = report.references["best_single"]
    assert report.best_single == "b"
    assert single.mean_score.value == pytest.approx((0 + 1 + 0 + 1 + 1) / 5)
    assert single.routing_accuracy.value == 4 / 5
    assert single.regret.value == pytest.approx(1 / 5)
    assert single.mean_cost is not None
    assert single.mean_cost.value == pytest.approx(0.02)


def test_oracle_takes_the_cheapest_of_the_best(report: RoutingReport) -> None:
    oracle = report.references["oracle"]
    assert oracle.mean_score.value == pytest.approx((1 + 1 + 0 + 1 + 1) / 5)
    assert oracle.routing_accuracy.value == 1
    assert oracle.regret.value == 0
    assert oracle.mean_cost is not None
    assert oracle.mean_cost.value == pytest.approx((0.01 + 0.01 + 0.01 + 0.02 + 0.02) / 5)


def test_bayes_takes_the_highest_expected_score(report: RoutingReport) -> None:
    bayes = report.references["bayes"]  # a, b, c, b, c
    assert bayes.mean_score.value == pytest.approx((1 + 1 + 0 + 1 + 1) / 5)
    assert bayes.mean_cost is not None
    assert bayes.mean_cost.value == pytest.approx((0.01 + 0.02 + 0.03 + 0.02 + 0.03) / 5)
    assert report.bayes_score is not None
    assert report.bayes_score.value == pytest.approx((0.9 + 0.7 + 0.3 + 0.9 + 0.9) / 5)


def test_gains_over_best_single_are_paired_by_query(report: RoutingReport) -> None:
    # Score differences 1, 0, 0, -0.5, -1: mean -0.1, squared deviations 1.21 + 0.01 + 0.01 + 0.16 + 0.81 = 2.2,
    # variance 2.2 / 4 = 0.55, standard error sqrt(0.55 / 5) = 0.331662; three differing queries give no interval.
    assert report.score_gain.value == pytest.approx(-0.1)
    assert report.score_gain.standard_error == pytest.approx(0.331662, abs=1e-6)
    assert (report.score_gain.low, report.score_gain.note) == (None, "needs at least 5 queries that differ")
    assert report.accuracy_gain.value == pytest.approx((1 + 0 + 0 - 1 - 1) / 5)


def test_shares_of_the_way_from_best_single(report: RoutingReport) -> None:
    assert report.gap_recovered is not None
    assert report.gap_recovered.value == pytest.approx((0.5 - 0.6) / (0.8 - 0.6))
    assert report.bayes_gap_recovered is not None
    assert report.bayes_gap_recovered.value == pytest.approx((0.5 - 0.6) / (0.74 - 0.6))
    # Expected scores of the router's 0.9, 0.7, 0.3, 0.5, none and of b's 0.5, 0.7, 0.2, 0.9, 0.8: 0.48 and 0.62.
    assert report.expected_gap_recovered is not None
    assert report.expected_gap_recovered.value == pytest.approx((0.48 - 0.62) / (0.74 - 0.62))


def test_no_way_to_go_is_none() -> None:
    report = report_of(outcome("tie"), outcome("undecided"))
    assert report.references["oracle"].mean_score == report.references["best_single"].mean_score
    assert report.gap_recovered is None


def test_perfect_router_goes_all_the_way() -> None:
    outcomes = [
        replace(one, route=ParsedRoute(best), called=best)
        for one in map(outcome, QUERIES)
        for best in one.example.best_candidates()[:1]
    ]
    report = report_of(*outcomes)
    assert report.gap_recovered is not None
    assert (report.gap_recovered.value, report.gap_recovered.low) == (1, None)
    assert report.regret.value == 0


def test_kinds_of_failure_and_distribution_of_routes(report: RoutingReport) -> None:
    assert report.parse_failures == {"empty": 0, "unknown": 1, "ambiguous": 0, "truncated": 0}
    assert report.parse_failure_rate.value == 1 / 5
    assert report.route_distribution == {"a": 2 / 5, "b": 1 / 5, "c": 1 / 5}


def test_fuzzy_and_cut_queries_are_counted_apart() -> None:
    fuzzy = replace(outcome("right"), route=ParsedRoute("a", fuzzy=True))
    cut = replace(outcome("tie"), truncated_query=True)
    report = report_of(fuzzy, cut, outcome("wrong"), outcome("failed"))
    assert report.fuzzy_rate.value == 1 / 4
    assert report.truncation_rate.value == 1 / 4
    assert report.parse_failure_rate.value == 1 / 4


def test_confusion_has_labels_by_routes_and_failures_last(report: RoutingReport) -> None:
    assert report.confusion == ((1, 1, 1, 0), (1, 0, 0, 1), (0, 0, 0, 0))


def test_every_task_has_its_estimates(report: RoutingReport) -> None:
    assert list(report.per_task) == ["x", "y"]
    x, y = report.per_task["x"], report.per_task["y"]
    assert (x.num_queries, x.routing_accuracy.value, x.num_parse_failures) == (3, 1, 0)
    assert x.mean_score.value == pytest.approx(2 / 3)
    assert x.best_single_mean_score.value == pytest.approx(1 / 3)
    assert x.oracle_mean_score.value == pytest.approx(2 / 3)
    assert (y.num_queries, y.routing_accuracy.value, y.num_parse_failures) == (2, 0, 1)
    assert (y.mean_score.value, y.best_single_mean_score.value, y.oracle_mean_score.value) == (0.25, 1, 1)


def test_one_query_of_unknown_cost_makes_all_costs_unknown() -> None:
    report = report_of(outcome("right"), outcome("tie", costs=None))
    assert report.mean_cost is None
    assert all(reference.mean_cost is None for reference in report.references.values())


def test_without_expected_scores_there_is_no_bayes() -> None:
    report = report_of(outcome("right"), outcome("tie", expected=False))
    assert "bayes" not in report.references
    assert report.bayes_score is report.bayes_gap_recovered is report.expected_gap_recovered is None


def test_only_undecided_queries_leave_decisive_accuracy_unknown() -> None:
    report = report_of(outcome("undecided"))
    assert report.decisive_accuracy is None
    assert report.num_decisive == 0
    assert report.routing_accuracy.value == 1


def test_order_of_scores_does_not_matter() -> None:
    one = outcome("wrong")
    turned = replace(one, example=replace(one.example, scores=dict(reversed(one.example.scores.items()))))
    assert report_of(turned, outcome("tie")) == report_of(one, outcome("tie"))


def test_zero_queries_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        report_of()


def test_best_single_outside_the_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"best_single must be a \| b \| c, got 'd'"):
        report_of(outcome("right"), best_single="d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "d"}, "query 'right': label .* got 'd'"),
        ({"called": "d"}, "query 'right': called .* got 'd'"),
        ({"route": ParsedRoute("d")}, "query 'right': route .* got 'd'"),
        ({"example": RoutingExample("right", "text", "x", {"a": 1.0, "b": 0.0})}, "query 'right': scores must"),
        ({"example": replace(outcome("right").example, costs={"a": 0.0})}, "query 'right': costs must"),
    ],
)
def test_an_outcome_that_does_not_fit_the_pool_is_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_of(replace(outcome("right"), **changes))  # type: ignore[arg-type]


def test_report_survives_json(report: RoutingReport) -> None:
    single_query = report_of(outcome("failed", costs=None, expected=False))
    for one in (report, single_query, replace(report, queries_per_second=None)):
        text = json.dumps(one.to_dict(), allow_nan=False)
        assert RoutingReport.from_dict(json.loads(text)) == one


def test_reading_a_report_names_what_is_wrong(report: RoutingReport) -> None:
    plain = report.to_dict()
    with pytest.raises(ValueError, match=r"report: missing or unknown keys \['num_queries'\]"):
        RoutingReport.from_dict({key: value for key, value in plain.items() if key != "num_queries"})
    with pytest.raises(ValueError, match=r"report: missing or unknown keys \['typo'\]"):
        RoutingReport.from_dict({**plain, "typo": 1})
    with pytest.raises(ValueError, match=r"report\.regret\.value must be float, got 'low'"):
        RoutingReport.from_dict({**plain, "regret": {**plain["regret"], "value": "low"}})


def test_metrics_are_flat_and_known(report: RoutingReport) -> None:
    metrics = report.to_metrics()
    assert metrics["routing_accuracy"] == 0.6
    assert metrics["best_single/mean_score"] == pytest.approx(0.6)
    assert metrics["oracle/mean_score"] == pytest.approx(0.8)
    assert metrics["bayes_score"] == pytest.approx(0.74)
    assert metrics["parse_failures/unknown"] == 1
    assert metrics["queries_per_second"] == 8
    assert all(type(value) is float for value in metrics.values())
    assert "mean_cost" not in report_of(outcome("right", costs=None)).to_metrics()


def test_a_router_that_is_best_single_has_the_intervals_of_that_reference() -> None:
    rows = [
        ({"a": 1.0, "b": 0.0}, {"a": 0.001, "b": 0.002}),
        ({"a": 0.3, "b": 0.9}, {"a": 0.004, "b": 0.001}),
        ({"a": 0.6, "b": 0.2}, {"a": 0.002, "b": 0.007}),
    ]
    outcomes = [
        RouteOutcome(
            example=RoutingExample(f"{number}", "text", "task", *rows[number % 3]),
            label="a",
            generation=Generation("a", "stop"),
            route=ParsedRoute("a"),
            called="a",
        )
        for number in range(20)
    ]
    report = evaluate_outcomes(outcomes, ["a", "b"], "a").report
    reference = report.references["best_single"]
    for metric in ("mean_score", "routing_accuracy", "regret", "mean_cost"):
        assert getattr(report, metric) == getattr(reference, metric), metric
