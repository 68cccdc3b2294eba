"""The printed report: what a reader must find in it, at 80 columns."""

import dataclasses
import io
from dataclasses import replace
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from rich.console import Console

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.measures.prediction_report import report_predictions
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.missing import _WHY, explain_missing
from causal_lm_router.evaluation.outcome_table import OutcomeTable
from causal_lm_router.evaluation.report import RoutingReport, _encode
from causal_lm_router.evaluation.report_table import print_report
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample


def make_report(
    names: tuple[str, ...] = ("cheap", "strong"),
    *,
    num_tasks: int = 2,
    known: bool = True,
    num_failed: int = 1,
    prefix: str = "[i]task",
) -> RoutingReport:
    """40 queries of which the first name wins the even ones and the second the odd ones; the router is always right."""
    outcomes = []
    for index in range(40):
        best = names[index % 2]
        scores = {name: float(name == best) for name in names}
        costs = {name: 0.001 * (place + 1) for place, name in enumerate(names)}
        expected = {name: 0.8 if name == best else 0.1 for name in names}
        task = f"{prefix} {index % num_tasks:02}"
        example = RoutingExample(
            str(index), "text", task, scores, costs if known else None, expected if known else None
        )
        route = ParsedRoute(None, ParseFailure.ambiguous) if index < num_failed else ParsedRoute(best)
        outcomes.append(
            RouteOutcome(
                example=example, label=best, generation=Generation("text", "stop"), route=route, called=route.candidate
            )
        )
    return evaluate_outcomes(outcomes, names, names[1], queries_per_second=12.34 if known else None).report


TABLE = OutcomeTable(
    candidate_names=("cheap", "strong"),
    tasks=("task",) * 40,
    routes=np.arange(40) % 2,
    called=np.arange(40) % 2,
    scores=np.eye(2)[np.arange(40) % 2],
    costs=None,
    expected=None,
    predicted=np.eye(2)[np.arange(40) % 2],
)
"""Two candidates, each best on every other of 40 queries."""


def printed(report: RoutingReport, width: int = 80, max_tasks: int = 20) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(report, console, max_tasks)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


def row(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip("│ ").startswith(start)]
    return " ".join(line.replace("│", " ").split())


def test_router_and_references_stand_side_by_side() -> None:
    text = printed(make_report())
    # 39 of 40 right; the costs are 19 or 20 times 0.001 and 20 times 0.002 USD: 0.059 / 40 * 1000
    assert row(text, "the router") == "the router 0.975 97.5% 1.475"
    assert row(text, "random") == "random 0.500 50.0% 1.500"
    assert row(text, "best single ") == "best single 0.500 50.0% 2.000"
    assert row(text, "oracle") == "oracle 1.000 100.0% 1.500"
    assert row(text, "best possible") == "best possible 1.000 100.0% 1.500"
    assert "a random LLM" in text
    assert row(text, "always strong") == "always strong [0.338, 0.662] [33.8%, 66.2%] [2.000, 2.149]"


def test_details_have_their_intervals() -> None:
    text = printed(make_report())
    assert row(text, "Parse failures ") == "Parse failures 2.5% [0.1%, 13.2%]: 1 ambiguous"
    assert row(text, "Score over best single").startswith("Score over best single +0.475 [+0.")
    assert row(text, "Accuracy over best single").startswith("Accuracy over best single +47.5 points [+")
    assert row(text, "Best single to oracle").startswith("Best single to oracle 95% of the way [")
    # (0.975 - 0.5) / (0.8 - 0.5)
    assert row(text, "Best single to best possible").startswith("Best single to best possible 158% of the way [")
    assert row(text, "Best possible, expected score") == "Best possible, expected score 0.800"
    assert row(text, "Accuracy where scores differ").endswith("over 40 queries")
    assert row(text, "Same LLM as the label").startswith("Same LLM as the label 97.5% [")
    assert row(text, "Routes") == "Routes strong 50%, cheap 48%"
    assert row(text, "Speed") == "Speed 12.3 queries/s"


def test_legend_explains_the_words() -> None:
    text = " ".join(printed(make_report()).split())
    assert "Routing accuracy: share of queries" in text
    assert "Parse failure: the generated text names no LLM" in text
    assert "95% interval" in text


def test_unknown_estimates_are_left_out_or_called_unknown() -> None:
    text = printed(make_report(known=False, num_failed=0))
    assert row(text, "the router") == "the router 1.000 100.0% unknown"
    assert "best possible" not in text
    assert "Speed" not in text
    assert "fit the prompt" not in text
    assert "by similarity" not in text
    assert row(text, "Parse failures ") == "Parse failures 0.0% [0.0%, 8.8%]"


def test_many_tasks_are_cut_and_the_rest_is_counted() -> None:
    text = printed(make_report(num_tasks=5), max_tasks=3)
    assert row(text, "[i]task 00") == "[i]task 00 8 88% [47%, 100%] 0.875 0.500 1.000 1"
    assert "[i]task 02" in text
    assert "[i]task 03" not in text
    assert row(text, "2 more tasks") == "2 more tasks, 16 queries"


def test_a_long_name_of_a_task_is_whole() -> None:
    prefix = "reading-comprehension/very-long-" * 3
    for width in (60, 80):
        text = printed(make_report(num_tasks=2, prefix=prefix), width)
        # The name goes on in the lines below, each indented by two spaces.
        column = [line[2:].split(" ")[0] for line in text[text.index("By task") :].splitlines()]
        assert prefix in "".join(column)


def test_a_share_of_a_way_is_never_negative() -> None:
    report = make_report()
    for estimate, shown in (
        (Estimate(value=-2.95, low=-4.0, high=-2.0), "below best single"),
        (Estimate(value=0.12, low=-2.95, high=0.8), "12% of the way [below best single, 80%]"),
        (Estimate(value=0.12), "12% of the way"),
    ):
        text = printed(dataclasses.replace(report, gap_recovered=estimate, bayes_gap_recovered=estimate))
        assert row(text, "Best single to oracle") == f"Best single to oracle {shown}"
        assert row(text, "Best single to best possible") == f"Best single to best possible {shown}"


def test_a_single_task_needs_no_table() -> None:
    assert "By task" not in printed(make_report(num_tasks=1))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_are_printed_as_they_are(width: int) -> None:
    text = printed(make_report(("[red]名前[/red]", "[/]$x")), width)
    assert "[red]名前[/red]" in text
    assert "[/]$x" in text


def test_escape_sequences_in_names_and_tasks_are_shown_not_obeyed() -> None:
    text = printed(make_report(("a\x1b[2Jb", "c\u202ed"), prefix="\x1b[31mred"), 100)
    for shown in ("a\\x1b[2Jb", "always c\\u202ed", "\\x1b[31mred 00"):
        assert shown in text
    assert text.replace("\n", "").isprintable()


def test_many_routes_are_summed_up() -> None:
    names = tuple(f"llm-{index}" for index in range(8))
    report = make_report(names)
    assert row(printed(report, width=120), "Routes") == "Routes llm-1 50%, llm-0 48%, 6 never"
    spread = dict.fromkeys(names[:4], 0.2) | dict.fromkeys(names[4:7], 0.066) | {names[7]: 0.002}
    report = dataclasses.replace(report, route_distribution=spread)
    assert row(printed(report, width=120), "Routes").endswith("llm-3 20%, llm-4 7%, 3 others 13%")
    report = dataclasses.replace(report, route_distribution=spread | {"llm-5": 0.0, "llm-6": 0.0})
    assert row(printed(report, width=120), "Routes").endswith("llm-4 7%, 1 other under 1%, 2 never")


def test_warnings_come_first() -> None:
    report = dataclasses.replace(make_report(), warnings=("all [bold]is[/bold] lost", "and more\x1b[2J"))
    lines = printed(report).splitlines()
    assert lines[0] == "warning: all [bold]is[/bold] lost"
    assert lines[2] == "warning: and more\\x1b[2J"


@pytest.mark.parametrize(("num_failed", "shown"), [(3, None), (4, "after"), (20, "after"), (21, "before")])
def test_failures_are_shown_where_there_are_many_and_first_where_they_are_most(
    num_failed: int, shown: str | None
) -> None:
    text = printed(make_report(num_failed=num_failed))
    heading = f"Parse failures: 3 of {num_failed}"
    assert (heading in text) == (shown is not None)
    if shown is not None:
        assert (text.index(heading) < text.index("Who chooses")) == (shown == "before")
        assert len([line for line in text.splitlines() if line.split() == ["'text'", "'text'", "ambiguous"]]) == 3
    # A table of zeros by task says nothing.
    assert ("By task" in text) == (shown != "before")
    assert ("Routes" in text) == (shown != "before")


def test_probabilities_to_choose_are_no_predicted_scores() -> None:
    report = make_report()
    for share, is_said in ((0.5, True), (0.4, False)):
        table = replace(TABLE, predicted=np.full((40, 2), share))
        predictions = report_predictions(table, None, "strong")
        text = " ".join(printed(replace(report, predictions=predictions)).split())
        assert ("probabilities to choose an LLM: they predict no scores" in text) is is_said


def test_a_measure_that_is_not_defined_says_why() -> None:
    weak = replace(TABLE, scores=TABLE.scores[:, ::-1] * [1.0, 0.5])
    text = printed(replace(make_report(), predictions=report_predictions(weak, None, "strong")))
    assert row(text, "APGR (RouteLLM's paper)").startswith("APGR (RouteLLM's paper) none: best single, the strong")


def test_cpt_is_shown_with_its_interval() -> None:
    scores = np.column_stack([np.tile([0.0, 0.0, 1.0], 14), np.tile([0.0, 1.0, 1.0], 14)])[:40]
    table = replace(TABLE, scores=scores, predicted=np.column_stack([np.tile([0.4, 0.1], 20), np.full(40, 0.5)]))
    report = replace(make_report(), predictions=report_predictions(table, None, "strong"))
    assert row(printed(report), "CPT(50%)").endswith("to strong")
    assert "[" in row(printed(report), "CPT(80%)")
    assert 0 < report.to_metrics()["predictions/two_candidates/cpt50_paper"] < 1


def test_every_null_of_a_report_says_why() -> None:
    plain = make_report(known=False).to_dict()
    reasons = explain_missing(plain)
    assert set(reasons) >= {"mean_cost", "references.random.mean_cost", "bayes_score", "predictions", "decoding"}
    same = replace(TABLE, scores=np.ones((40, 2)), predicted=np.full((40, 2), 0.4))
    plain["predictions"] = _encode(dataclasses.asdict(report_predictions(same, None, "strong")))
    reasons = explain_missing(plain)
    assert reasons["predictions.auroc.cheap"] == "all answers of this candidate score the same"
    # Where strong is better, equal win shares leave the code without thresholds.
    better = replace(TABLE, scores=np.tile([0.0, 1.0], (40, 1)), predicted=np.full((40, 2), 0.4))
    plain["predictions"] = _encode(dataclasses.asdict(report_predictions(better, None, "strong")))
    assert "eleven thresholds" in explain_missing(plain)["predictions.two_candidates.apgr_code"]


def test_all_that_may_be_null_has_a_reason() -> None:
    pending: list[Any] = [RoutingReport]
    while pending:
        kind = pending.pop()
        for name, annotated in get_type_hints(kind).items():
            inner = [one for one in (annotated, *get_args(annotated)) if dataclasses.is_dataclass(one)]
            pending += [one for one in inner if one is not Estimate]
            if NoneType in get_args(annotated):
                assert name in _WHY, f"{kind.__name__}.{name}"
