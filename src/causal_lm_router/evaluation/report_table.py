"""A report as tables on the terminal, to be understood without further reading; 80 columns are enough."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import DecodingReport, Reference, RoutingReport

LEGEND = (
    "Routing accuracy: share of queries sent to an LLM that no other LLM beats on them. Mean score: quality of the "
    "answers of the LLMs called, 0 to 1. Parse failure: the generated text names no LLM; it always counts as wrong. "
    "In brackets: 95% interval."
)


def print_report(report: RoutingReport, console: Console, max_tasks: int = 20) -> None:
    """Print how the router did beside its references, how sure that is, and the `max_tasks` tasks with most queries."""
    tables = [_comparison_table(report), _details_table(report)]
    if report.decoding is not None and len(report.decoding.mean_scores) > 1:
        tables.append(_decoding_table(report.decoding))
    if len(report.per_task) > 1:
        tables.append(_task_table(report, max_tasks))
    for table in tables:
        console.print(table)
        console.print()
    console.print(Text(LEGEND, style="dim"))


def _comparison_table(report: RoutingReport) -> Table:
    title = f"{_count_queries(report.num_queries)}, {len(report.candidate_names)} LLMs to choose from"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("Who chooses", overflow="fold")
    for heading in ("Mean score", "Routing\naccuracy", "USD per\n1,000 queries"):
        table.add_column(heading, justify="right", overflow="fold")
    router = Reference(report.mean_score, report.routing_accuracy, report.regret, report.mean_cost)
    table.add_row(*_comparison_cells("the router", "", router), style="bold", end_section=True)
    explanations = {
        "random": ("random", "any LLM, by lot"),
        "best_single": ("best single", f"always {report.best_single}"),
        "oracle": ("oracle", "best LLM, in hindsight"),
        "bayes": ("best possible", "highest expected score"),
    }
    for name, reference in report.references.items():
        table.add_row(*_comparison_cells(*explanations[name], reference))
    return table


def _comparison_cells(name: str, explanation: str, reference: Reference) -> list[Text]:
    # Three decimals say nothing of cheap LLMs: below 0.1 the digits that count follow the zeros.
    is_cheap = reference.mean_cost is not None and reference.mean_cost.value < 1e-4
    return [
        Text.assemble(name, ("\n" + explanation, "dim not bold")),
        _two_lines(reference.mean_score, ".3f"),
        _two_lines(reference.routing_accuracy, ".1%"),
        _two_lines(reference.mean_cost, ".3g" if is_cheap else ",.3f", scale=1000),
    ]


def _details_table(report: RoutingReport) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _details(report):
        table.add_row(Text(name), Text(value))
    return table


def _details(report: RoutingReport) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.parse_failures.items() if count)
    accuracy = _one_line(report.decisive_accuracy, ".1%") + f" over {_count_queries(report.num_decisive)}"
    details = [
        ("Parse failures", _one_line(report.parse_failure_rate, ".1%") + (f": {kinds}" if kinds else "")),
        ("Score over best single", _one_line(report.score_gain, "+.3f")),
        ("Accuracy over best single", _one_line(report.accuracy_gain, "+.1f", scale=100, unit=" points")),
        ("Best single to oracle", _way(report.gap_recovered)),
    ]
    if report.bayes_score is not None:
        details.append(("Best single to best possible", _way(report.bayes_gap_recovered)))
        details.append(("Best possible, expected score", _one_line(report.bayes_score, ".3f")))
    details += [
        ("Accuracy where scores differ", accuracy if report.num_decisive else "no such queries"),
        ("Same LLM as the label", _one_line(report.label_accuracy, ".1%")),
        ("Routes", _most_routed(report)),
    ]
    if report.fuzzy_rate.value:
        details.append(("Routes found by similarity", _one_line(report.fuzzy_rate, ".1%")))
    if report.truncation_rate.value:
        details.append(("Queries cut to fit the prompt", _one_line(report.truncation_rate, ".1%")))
    details += _decoding_details(report) + _prediction_details(report)
    if report.queries_per_second is not None:
        details.append(("Speed", f"{report.queries_per_second:,.1f} queries/s"))
    return details


def _decoding_details(report: RoutingReport) -> list[tuple[str, str]]:
    decoding = report.decoding
    if decoding is None:
        return []
    details = [("Decoding", decoding.method)]
    if decoding.method != "free":
        details.append(("Parse failures, if free", _one_line(decoding.free_parse_failure_rate, ".1%")))
    if decoding.off_list_rate.value:
        details.append(("Free text off the list", _one_line(decoding.off_list_rate, ".1%")))
    if decoding.valid_mass is not None:
        details.append(("Probability of any target", _one_line(decoding.valid_mass, ".3f")))
    return details


def _prediction_details(report: RoutingReport) -> list[tuple[str, str]]:
    predictions = report.predictions
    if predictions is None:
        return []
    orders = [figure.value for figure in predictions.auroc.values() if figure is not None]
    details = [("Calibration error of predictions", _one_line(predictions.ece, ".3f"))]
    if predictions.ece_scaled is not None:
        details.append(("  after temperature scaling", _one_line(predictions.ece_scaled, ".3f")))
    if orders:
        details.append(("AUROC of predictions", f"{min(orders):.2f} to {max(orders):.2f} over the LLMs"))
    pair = predictions.two_candidates
    if pair is not None:
        details.append(("APGR (RouteLLM's paper)", _one_line(pair.apgr_paper, ".3f")))
    return details


def _decoding_table(decoding: DecodingReport) -> Table:
    table = Table(title="By decoding", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("Decoding")
    table.add_column("Mean score", justify="right")
    table.add_column("Routes that differ", overflow="fold")
    for method, figure in decoding.mean_scores.items():
        pairs = [(pair.split("~"), share) for pair, share in decoding.differing_routes.items()]
        differing = [
            f"{share.value:.1%} from {one if other == method else other}"
            for (one, other), share in pairs
            if method in (one, other)
        ]
        table.add_row(method, Text(_one_line(figure, ".3f")), ", ".join(differing))
    return table


def _most_routed(report: RoutingReport, max_names: int = 5) -> str:
    shares = sorted(report.route_distribution.items(), key=lambda item: -item[1])
    shown = [f"{name} {share:.0%}" for name, share in shares[:max_names]]
    rest = sum(share for _, share in shares[max_names:])
    return ", ".join([*shown, f"{len(shares) - max_names} others {rest:.0%}"] if len(shares) > max_names else shown)


def _way(figure: Estimate | None) -> str:
    return "nothing to gain" if figure is None else _one_line(figure, ".0%", unit=" of the way")


def _count_queries(number: int) -> str:
    return f"{number:,} {'query' if number == 1 else 'queries'}"


def _task_table(report: RoutingReport, max_tasks: int) -> Table:
    table = Table(title="By task", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("Task", overflow="fold")
    for heading in ("Queries", "Routing\naccuracy", "Mean\nscore", "Best\nsingle", "Oracle", "Parse\nfailures"):
        table.add_column(heading, justify="right", no_wrap=True)
    by_size = sorted(report.per_task.items(), key=lambda item: (-item[1].num_queries, item[0]))
    for task, figures in by_size[:max_tasks]:
        means = (figures.mean_score, figures.best_single_mean_score, figures.oracle_mean_score)
        table.add_row(
            Text(task),
            f"{figures.num_queries:,}",
            Text(_one_line(figures.routing_accuracy, ".0%")),
            *(f"{mean.value:.3f}" for mean in means),
            f"{figures.num_parse_failures:,}",
        )
    if len(by_size) > max_tasks:
        table.add_section()
        hidden = sum(figures.num_queries for _, figures in by_size[max_tasks:])
        table.add_row(f"{len(by_size) - max_tasks:,} more tasks", f"{hidden:,}", style="dim")
    return table


def _parts(figure: Estimate | None, spec: str, scale: float) -> tuple[str, str]:
    """The value and its bracketed interval (empty where there is none)."""
    if figure is None:
        return "unknown", ""
    if figure.low is None or figure.high is None:
        return format(scale * figure.value, spec), ""
    return format(scale * figure.value, spec), f"[{scale * figure.low:{spec}}, {scale * figure.high:{spec}}]"


def _one_line(figure: Estimate | None, spec: str, scale: float = 1, unit: str = "") -> str:
    value, interval = _parts(figure, spec, scale)
    return f"{value}{unit} {interval}".rstrip()


def _two_lines(figure: Estimate | None, spec: str, scale: float = 1) -> Text:
    value, interval = _parts(figure, spec, scale)
    return Text.assemble(value, (f"\n{interval}", "dim not bold"))
