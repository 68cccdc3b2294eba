"""A comparison as plain rows for files, as Markdown, and on the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from causal_lm_router.evaluation.comparison.compare import Comparison, Pair
from causal_lm_router.evaluation.formatting import (
    COST_DIFFERENCE,
    PERCENT,
    POINTS,
    REFERENCE_NAMES,
    SCORE_DIFFERENCE,
    Row,
    count,
    difference_cells,
    difference_columns,
    escape_markdown,
    estimate_cells,
    estimate_columns,
    format_estimate,
    format_p,
    interval_columns,
    markdown,
    relative,
    two_lines,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import Reference, RoutingReport
from causal_lm_router.terminal import plain_text

METRICS = ("mean_score", "routing_accuracy", "parse_failure_rate", "mean_cost")
LEGEND = (
    "Differences are the run's mean minus the first run's on the same queries, with 95% intervals. "
    "Right alone: number of queries on which only the run is right : on which only the first run is right."
)
HOLM = "Holm p: the larger of a metric's p-values, corrected for the number of runs compared."


def comparison_rows(comparison: Comparison, base: Path) -> list[Row]:
    """Return a plain row per run, then per reference; costs are USD per query, folders relative to `base`.

    A run's row holds its differences from the first run; they are None for the first run and the references.
    """
    # The first run is in no pair.
    pairs = {pair.run.name: pair for pair in comparison.pairs}
    rows = []
    for run in comparison.runs:
        report = run.evaluation.report
        row: Row = {"run": run.name, "kind": "run" if run.name in pairs else "first", "queries": report.num_queries}
        row |= estimate_columns(_estimates(report), METRICS)
        row |= _pair_columns(pairs.get(run.name)) | {"best_single": report.best_single}
        rows.append(row | {"folder": relative(run.folder, base)})
    for name, reference in references(comparison).items():
        row = {"run": name, "kind": "reference", "queries": comparison.first.evaluation.report.num_queries}
        row |= estimate_columns(_estimates(reference), METRICS)
        rows.append(row | _pair_columns(None) | {"best_single": None, "folder": None})
    return rows


def references(comparison: Comparison) -> dict[str, Reference]:
    """Return the references by name; best single once for each candidate that is best on a run's training queries."""
    found: dict[str, Reference] = {}
    # Runs trained on other queries may have another best single.
    singles = {run.evaluation.report.best_single for run in comparison.runs}
    for run in comparison.runs:
        report = run.evaluation.report
        for key, reference in report.references.items():
            name = REFERENCE_NAMES[key]
            if key == "best_single" and len(singles) > 1:
                name = f"{name}: {report.best_single}"
            found.setdefault(name, reference)
    return found


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison as a page: the runs with the references, then the pairs."""
    runs = [{"run": name, **estimate_cells(estimates, METRICS)} for name, estimates in _compared(comparison)]
    pairs = [{"run": pair.run.name, **_pair_cells(pair)} for pair in comparison.pairs]
    title = f"# {len(comparison.runs)} runs on {_queries(comparison)}"
    # A single comparison needs no correction.
    sentences = [LEGEND, *([HOLM] if len(comparison.pairs) > 1 else [])]
    parts = [
        title,
        markdown(runs),
        f"## Compared with {escape_markdown(comparison.first.name)}",
        markdown(pairs),
        " ".join(sentences),
    ]
    return "\n\n".join(parts) + "\n"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the runs with the references, then what differs pair by pair; 80 columns are enough."""
    title = f"{len(comparison.runs)} runs on {_queries(comparison)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    table.add_column("Run", overflow="fold")
    for heading in ("Mean\nscore", "Routing\naccuracy", "Parse\nfailures", "USD per\n1,000 queries"):
        table.add_column(heading, justify="right")
    for index, (name, estimates) in enumerate(_compared(comparison)):
        # The interval stands below its estimate.
        cells = [two_lines(*text.partition(" ")[::2]) for text in estimate_cells(estimates, METRICS).values()]
        table.add_row(plain_text(name), *cells, style="" if index < len(comparison.runs) else "dim")
    console.print(table)
    # A pair has too many cells for a row of 80 columns: a line each.
    for pair in comparison.pairs:
        console.print(plain_text(f"{pair.run.name} against {comparison.first.name}", style="bold"))
        lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        lines.add_column(style="dim", no_wrap=True)
        lines.add_column(overflow="fold")
        for heading, text in _pair_cells(pair).items():
            # A single comparison needs no correction.
            if "Holm" not in heading or len(comparison.pairs) > 1:
                lines.add_row(plain_text(heading), plain_text(text))
        console.print(lines)
        console.print()
    console.print(plain_text(" ".join([LEGEND, *([HOLM] if len(comparison.pairs) > 1 else [])]), style="dim"))


def _compared(comparison: Comparison) -> list[tuple[str, dict[str, Estimate | None]]]:
    """Name and estimates of the runs, then of the references."""
    shown = []
    for run in comparison.runs:
        mark = " (first)" if run is comparison.first else ""
        shown.append((run.name + mark, _estimates(run.evaluation.report)))
    return shown + [(name, _estimates(reference)) for name, reference in references(comparison).items()]


def _estimates(holder: RoutingReport | Reference) -> dict[str, Estimate | None]:
    """The estimates of METRICS; a reference has no parse failures."""
    return {name: getattr(holder, name, None) for name in METRICS}


def _pair_cells(pair: Pair) -> dict[str, str]:
    """Everything about a pair, as texts under headings."""
    return {
        **difference_cells("score", pair.score, SCORE_DIFFERENCE),
        **difference_cells("accuracy", pair.accuracy, POINTS),
        "right alone": f"{pair.only_run_right:,} : {pair.only_first_right:,}",
        "McNemar p": format_p(pair.accuracy.mcnemar_p),
        "USD per 1,000 queries": format_estimate(pair.cost, COST_DIFFERENCE),
        "routes differ": format_estimate(pair.routes_differ, PERCENT),
    }


def _queries(comparison: Comparison) -> str:
    evaluation = comparison.first.evaluation
    number = count(evaluation.report.num_queries, "query", "queries")
    return f"the same {number} of the {evaluation.split} split"


def _pair_columns(pair: Pair | None) -> Row:
    row = difference_columns("mean_score", pair.score if pair else None)
    row |= difference_columns("routing_accuracy", pair.accuracy if pair else None)
    row |= {"mcnemar_p": pair.accuracy.mcnemar_p if pair else None}
    row |= {"only_run_right": pair.only_run_right if pair else None}
    row |= {"only_first_right": pair.only_first_right if pair else None}
    row |= interval_columns("mean_cost_difference", pair.cost if pair else None)
    return row | interval_columns("routes_differ", pair.routes_differ if pair else None)
