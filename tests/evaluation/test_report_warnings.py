"""What a report warns of, in words: generations that name no LLM, and routes that are all the same."""

import dataclasses

import pytest

from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.report_warnings import warn_of_failures, warn_of_one_route
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample

NAMES = ("small", "large")


def report_of(*routes: str | ParseFailure) -> RoutingReport:
    """A report on a query per route; each LLM is the best one on half of the queries."""
    outcomes = []
    for index, route in enumerate(routes):
        best = NAMES[index % 2]
        query = f"query {index} " + "x" * 100
        example = RoutingExample(str(index), query, "task", {name: float(name == best) for name in NAMES})
        failed = isinstance(route, ParseFailure)
        parsed = ParsedRoute(None, route) if isinstance(route, ParseFailure) else ParsedRoute(route)
        text = f"nothing {index}" if failed else str(route)
        outcomes.append(
            RouteOutcome(
                example=example, label=best, generation=Generation(text, "stop"), route=parsed, called=parsed.candidate
            )
        )
    return evaluate_outcomes(outcomes, NAMES, "large").report


def test_half_of_the_generations_may_fail_and_more_are_warned_of() -> None:
    assert warn_of_failures(report_of(*["small"] * 5, *[ParseFailure.unknown] * 5)) is None
    text = warn_of_failures(report_of(*["small"] * 4, *[ParseFailure.unknown] * 5, ParseFailure.empty))
    assert text is not None
    assert text.startswith("6 of 10 generations name no LLM (1 empty, 5 unknown), so the numbers below say little")
    for key in ("trainer.num_epochs", "optim.learning_rate", "decoding=constrained", "decoding=scored"):
        assert key in text


def test_what_to_try_follows_the_router_and_the_failure() -> None:
    report = report_of(*[ParseFailure.truncated] * 10)
    cut, prompted = warn_of_failures(report), warn_of_failures(report, is_trained=False)
    assert cut is not None
    assert prompted is not None
    assert "inference.max_new_tokens" in cut
    # A base model that was only prompted has no training to change.
    assert "optim.learning_rate" in cut
    assert "optim.learning_rate" not in prompted
    assert "inference.max_new_tokens" not in str(warn_of_failures(report_of(*[ParseFailure.unknown] * 10)))


@pytest.mark.parametrize(
    ("routes", "start"),
    [
        (["small"] * 12, "100% of the queries go to one LLM, small: this router equals always calling it."),
        (["small"] * 99 + ["large"], "99% of the queries go to one LLM, small: this router equals always calling it."),
        (["small"] * 98 + ["large"] * 2, None),
        # Too few to tell.
        (["small"] * 9, None),
        (["small"] * 12 + [ParseFailure.empty] * 12, "100% of the routes go to one LLM, small"),
        ([ParseFailure.empty] * 12, None),
    ],
)
def test_a_router_that_always_calls_one_llm_is_called_so(routes: list[str | ParseFailure], start: str | None) -> None:
    text = warn_of_one_route(report_of(*routes))
    if start is None:
        assert text is None
    else:
        assert text is not None
        assert text.startswith(start)
        assert "data.task_shrinkage=1" in text
        assert str(warn_of_one_route(report_of(*routes), is_trained=False)).endswith("always calling it.")


def test_where_one_llm_is_always_best_calling_it_is_right() -> None:
    report = dataclasses.replace(report_of(*["large"] * 12), gap_recovered=None)
    assert str(warn_of_one_route(report)).endswith("No other LLM scores higher on any of these queries.")


def test_examples_of_failures_are_of_all_kinds_the_most_frequent_first() -> None:
    kinds = [ParseFailure.empty, *[ParseFailure.unknown] * 4, ParseFailure.truncated]
    report = report_of("small", *kinds)
    shown = report.failed_generations
    assert [(example.query_id, example.failure) for example in shown] == [
        ("2", "unknown"),
        ("1", "empty"),
        ("6", "truncated"),
    ]
    assert shown[0].generation == "nothing 2"
    assert shown[0].query.startswith("query 2 xxx")
    assert shown[0].query.endswith("x…")
    assert len(shown[0].query) == 80
    assert [example.query_id for example in report_of(*[ParseFailure.empty] * 9).failed_generations] == ["0", "1", "2"]
    assert report_of("small").failed_generations == ()
    # Written and read again, and a report from before there were any.
    plain = report.to_dict()
    assert RoutingReport.from_dict(plain) == report
    del plain["failed_generations"], plain["warnings"]
    assert RoutingReport.from_dict(plain) == dataclasses.replace(report, failed_generations=())
