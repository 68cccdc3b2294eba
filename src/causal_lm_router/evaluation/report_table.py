"""A report as tables on the terminal, to be understood without further reading; 80 columns are enough."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.evaluation.formatting import (
    COST,
    PERCENT,
    POINTS_WITH_UNIT,
    REFERENCE_NAMES,
    SCORE,
    SCORE_DIFFERENCE,
    WHOLE_PERCENT,
    Form,
    count,
    explain_reference,
    format_estimate,
    format_two_lines,
    two_lines,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.latency import latency_table
from causal_lm_router.evaluation.missing import explain_missing
from causal_lm_router.evaluation.report import DecodingReport, Reference, RoutingReport
from causal_lm_router.evaluation.report_warnings import mostly_fails
from causal_lm_router.terminal import plain_text

LEGEND = (
    "Routing accuracy: share of queries sent to an LLM that no other LLM beats on them. Mean score: quality of the "
    "answers of the LLMs called, 0 to 1. Parse failure: the generated text names no LLM; it always counts as wrong. "
    "In brackets: 95% interval, left out where the data say too little."
)
OF_THE_WAY = Form(".0%", unit=" of the way")
MAX_ROUTES = 5
"""Candidates whose share of the routes is shown."""
SHOWN_FAILURES = 0.1
"""Share of parse failures from which some of them are shown."""


def print_report(report: RoutingReport, console: Console, max_tasks: int = 20) -> None:
    """Print how the router did beside its references, how sure that is, and the `max_tasks` tasks with most queries.

    Warnings come first. Where most generations fail, examples follow them, and there is no table of zeros by task.
    """
    for warning in report.warnings:
        console.print(plain_text(f"warning: {warning}\n", "bold"))
    tables = [_reference_table(report), _details_table(report)]
    failures = [_failure_table(report)] if report.parse_failure_rate.value >= SHOWN_FAILURES else []
    tables = [*failures, *tables] if mostly_fails(report) else [*tables, *failures]
    # One decoding alone has nothing to be compared with, and one task is the whole.
    if report.decoding is not None and len(report.decoding.mean_scores) > 1:
        tables.append(_decoding_table(report.decoding))
    if len(report.per_task) > 1 and not mostly_fails(report):
        tables.append(_task_table(report, max_tasks))
    if report.latency:
        tables.append(latency_table(report.latency))
    for table in tables:
        console.print(table)
        console.print()
    console.print(plain_text(LEGEND, style="dim"))


def _reference_table(report: RoutingReport) -> Table:
    title = f"{_count_queries(report.num_queries)}, {len(report.candidate_names)} LLMs to choose from"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("Who chooses", overflow="fold")
    for heading in ("Mean score", "Routing\naccuracy", "USD per\n1,000 queries"):
        table.add_column(heading, justify="right", overflow="fold")
    # The router first and set apart; it has the same measures as a reference.
    table.add_row(plain_text("the router"), *_reference_cells(report), style="bold", end_section=True)
    for name, reference in report.references.items():
        who = two_lines(REFERENCE_NAMES[name], explain_reference(name, report.best_single))
        table.add_row(who, *_reference_cells(reference))
    return table


def _reference_cells(shown: RoutingReport | Reference) -> list[Text]:
    return [
        format_two_lines(shown.mean_score, SCORE),
        format_two_lines(shown.routing_accuracy, PERCENT),
        format_two_lines(shown.mean_cost, COST),
    ]


def _failure_table(report: RoutingReport) -> Table:
    """Examples of what was generated in the place of a name; older reports have none."""
    shown, number = len(report.failed_generations), sum(report.parse_failures.values())
    title = f"Parse failures: {shown} of {number:,}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("Query", "Generated text", "Failure"):
        table.add_column(heading, overflow="fold")
    for example in report.failed_generations:
        # Quoted: what is wrong with a text may be white space alone.
        table.add_row(plain_text(repr(example.query)), plain_text(repr(example.generation)), example.failure)
    return table


def _details_table(report: RoutingReport) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    details = [*_route_details(report), *_decoding_details(report), *_prediction_details(report)]
    if report.queries_per_second is not None:
        details.append(("Speed", f"{report.queries_per_second:,.1f} queries/s"))
    for name, value in details:
        table.add_row(plain_text(name), plain_text(value))
    return table


def _route_details(report: RoutingReport) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in report.parse_failures.items() if number)
    decisive = "no such queries"
    if report.num_decisive:
        decisive = f"{format_estimate(report.decisive_accuracy, PERCENT)} over {_count_queries(report.num_decisive)}"
    details = [
        ("Parse failures", format_estimate(report.parse_failure_rate, PERCENT) + (f": {kinds}" if kinds else "")),
        ("Score over best single", format_estimate(report.score_gain, SCORE_DIFFERENCE)),
        *(
            (f"Score over {REFERENCE_NAMES[name]}", format_estimate(gain, SCORE_DIFFERENCE))
            for name, gain in report.score_gains.items()
        ),
        ("Accuracy over best single", format_estimate(report.accuracy_gain, POINTS_WITH_UNIT)),
        ("Best single to oracle", _way(report.gap_recovered)),
    ]
    # What else there is to say is about routes, of which there are few or none.
    if mostly_fails(report):
        return details[:2]
    if report.bayes_score is not None:
        details.append(("Best single to best possible", _way(report.bayes_gap_recovered)))
        details.append(("Best possible, expected score", format_estimate(report.bayes_score, SCORE)))
    details += [
        ("Accuracy where scores differ", decisive),
        ("Same LLM as the label", format_estimate(report.label_accuracy, PERCENT)),
        ("Routes", _most_routed(report)),
    ]
    # These two are 0 in most reports.
    if report.fuzzy_rate.value:
        details.append(("Routes found by similarity", format_estimate(report.fuzzy_rate, PERCENT)))
    if report.truncation_rate.value:
        details.append(("Queries cut to fit the prompt", format_estimate(report.truncation_rate, PERCENT)))
    return details


def _decoding_details(report: RoutingReport) -> list[tuple[str, str]]:
    decoding = report.decoding
    if decoding is None:
        return []
    details = [("Decoding", decoding.method)]
    # Free decoding's own failures stand above already.
    if decoding.method != "free":
        details.append(("Parse failures, if free", format_estimate(decoding.free_parse_failure_rate, PERCENT)))
    if decoding.off_list_rate.value:
        details.append(("Free text that is no target", format_estimate(decoding.off_list_rate, PERCENT)))
    if decoding.valid_mass is not None:
        details.append(("Probability of any target", format_estimate(decoding.valid_mass, SCORE)))
    return details


def _prediction_details(report: RoutingReport) -> list[tuple[str, str]]:
    predictions = report.predictions
    if predictions is None:
        return []
    # A candidate whose scores are all equal has no order to predict.
    orders = [estimate.value for estimate in predictions.auroc.values() if estimate is not None]
    kind = "" if not predictions.are_choices else ", of probabilities to choose an LLM: they predict no scores"
    details = [("Calibration error of predictions", format_estimate(predictions.ece, SCORE) + kind)]
    if predictions.ece_scaled is not None:
        details.append(("  after temperature scaling", format_estimate(predictions.ece_scaled, SCORE)))
    if orders:
        details.append(("AUROC of predictions", f"{min(orders):.2f} to {max(orders):.2f} over the LLMs{kind}"))
    return details + _two_candidate_details(report)


def _two_candidate_details(report: RoutingReport) -> list[tuple[str, str]]:
    measures = None if report.predictions is None else report.predictions.two_candidates
    if measures is None:
        return []
    if measures.apgr_paper is None:
        why = explain_missing(report.to_dict()).get("predictions.two_candidates.apgr_paper")
        return [("APGR (RouteLLM's paper)", f"none: {why}")]
    details = [("APGR (RouteLLM's paper)", format_estimate(measures.apgr_paper, SCORE))]
    for target, share in (("50%", measures.cpt50_paper), ("80%", measures.cpt80_paper)):
        details.append((f"CPT({target}): least calls", f"{format_estimate(share, PERCENT)} to {measures.strong}"))
    return details


def _decoding_table(decoding: DecodingReport) -> Table:
    table = Table(title="By decoding", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("Decoding")
    table.add_column("Mean score", justify="right")
    table.add_column("Routes that differ", overflow="fold")
    for method, mean_score in decoding.mean_scores.items():
        # Every pair stands once, under `one~other`.
        pairs = [(pair.split("~"), share) for pair, share in decoding.differing_routes.items()]
        differing = [
            f"{share.value:.1%} from {one if other == method else other}"
            for (one, other), share in pairs
            if method in (one, other)
        ]
        table.add_row(*map(plain_text, [method, format_estimate(mean_score, SCORE), ", ".join(differing)]))
    return table


def _task_table(report: RoutingReport, max_tasks: int) -> Table:
    table = Table(title="By task", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.caption_justify = "left"
    # A long name goes on in the next line: one that is cut names no task.
    table.add_column("Task", overflow="fold")
    for heading in ("Queries", "Routing\naccuracy", "Mean\nscore", "Best\nsingle", "Oracle", "Parse\nfailures"):
        table.add_column(heading, justify="right", overflow="fold")
    # The largest tasks, whose estimates are the surest.
    by_size = sorted(report.per_task.items(), key=lambda item: (-item[1].num_queries, item[0]))
    for task, shown in by_size[:max_tasks]:
        means = (shown.mean_score, shown.best_single_mean_score, shown.oracle_mean_score)
        table.add_row(
            plain_text(task),
            f"{shown.num_queries:,}",
            plain_text(format_estimate(shown.routing_accuracy, WHOLE_PERCENT)),
            *(f"{mean.value:.3f}" for mean in means),
            f"{shown.num_parse_failures:,}",
        )
    if left_out := by_size[max_tasks:]:
        num_queries = sum(shown.num_queries for _, shown in left_out)
        table.caption = f"{count(len(left_out), 'more task', 'more tasks')}, {_count_queries(num_queries)}"
    return table


def _most_routed(report: RoutingReport) -> str:
    """`dorado-24b 14%, borealis-large 9%, 1 other 4%, 2 never`."""
    # Parse failures stand in their own line.
    shares = sorted(report.route_distribution.items(), key=lambda item: -item[1])
    routed = [(name, share) for name, share in shares if share > 0]
    shown = [f"{name} {_percent(share)}" for name, share in routed[:MAX_ROUTES]]
    if others := routed[MAX_ROUTES:]:
        shown.append(f"{count(len(others), 'other', 'others')} {_percent(sum(share for _, share in others))}")
    if num_never := len(shares) - len(routed):
        shown.append(f"{num_never:,} never")
    return ", ".join(shown)


def _percent(share: float) -> str:
    """A share above 0 as a whole percentage; one that would round to nothing is said to be small."""
    return f"{share:.0%}" if share >= 0.005 else "under 1%"


def _way(recovered: Estimate | None) -> str:
    """How far the router comes on the way from best single to something better."""
    if recovered is None:
        return "nothing to gain"
    # A share of a way that leads the other way says nothing: the score over best single says how much is lost.
    if recovered.value < 0:
        return "below best single"
    if recovered.low is None or recovered.high is None or recovered.low >= 0:
        return format_estimate(recovered, OF_THE_WAY)
    return f"{recovered.value:.0%} of the way [below best single, {recovered.high:.0%}]"


def _count_queries(number: int) -> str:
    return count(number, "query", "queries")
