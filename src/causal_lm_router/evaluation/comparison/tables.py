"""A comparison as plain rows for files, as Markdown, and on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.evaluation.comparison.compare import Comparison, Pair
from causal_lm_router.evaluation.formatting import (
    COST_DIFFERENCE,
    PERCENT,
    POINTS,
    POINTS_WITH_UNIT,
    SCORE_DIFFERENCE,
    count,
    form_of,
    format_estimate,
    format_p,
    interval_columns,
    markdown,
    relative,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import Reference
from causal_lm_router.evaluation.statistics import Difference

Row = dict[str, Any]
FIGURES = {
    "mean_score": "mean score",
    "routing_accuracy": "routing accuracy",
    "parse_failure_rate": "parse failures",
    "mean_cost": "USD per 1,000 queries",
}
LEGEND = (
    "Differences are the run's mean minus the first run's on the same queries, with 95% bootstrap intervals. "
    "Right alone: number of queries on which only the run is right : on which only the first run is right."
)
HOLM = "p (Holm): the larger of a metric's p-values, corrected for the number of runs compared."


def comparison_rows(comparison: Comparison, base: Path) -> list[Row]:
    """Return a plain row per run, then per reference; costs are USD per query, folders relative to `base`.

    A run's row holds its differences from the first run; they are None for the first run and the references.
    """
    pairs = {pair.run.name: pair for pair in comparison.pairs}
    rows = []
    for run in comparison.runs:
        report = run.evaluation.report
        row: Row = {"run": run.name, "kind": "run" if run.name in pairs else "first", "queries": report.num_queries}
        row |= _figure_columns({name: getattr(report, name) for name in FIGURES})
        row |= _pair_columns(pairs.get(run.name)) | {"best_single": report.best_single}
        rows.append(row | {"folder": relative(run.folder, base)})
    for name, reference in references(comparison).items():
        row = {"run": name, "kind": "reference", "queries": comparison.first.evaluation.report.num_queries}
        row |= _figure_columns({figure: getattr(reference, figure, None) for figure in FIGURES})
        rows.append(row | _pair_columns(None) | {"best_single": None, "folder": None})
    return rows


def references(comparison: Comparison) -> dict[str, Reference]:
    """Return the references by name; best single once for each candidate that is best on a run's training queries."""
    found: dict[str, Reference] = {}
    singles = {run.evaluation.report.best_single for run in comparison.runs}
    for run in comparison.runs:
        report = run.evaluation.report
        single = "best single" if len(singles) == 1 else f"best single: {report.best_single}"
        names = {"best_single": single, "bayes": "best possible"}
        for name, reference in report.references.items():
            found.setdefault(names.get(name, name), reference)
    return found


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison as a page: the runs with the references, then the pairs."""
    runs = [{"run": name, **_printed(figures)} for name, figures in _compared(comparison)]
    pairs = [{"run": pair.run.name, **dict(_lines(pair, is_short=True))} for pair in comparison.pairs]
    title = f"# {len(comparison.runs)} runs on {_queries(comparison)}"
    sentences = [LEGEND, *([HOLM] if len(comparison.pairs) > 1 else []), _said_of_resampling(comparison)]
    parts = [
        title,
        markdown(runs),
        f"## Compared with {comparison.first.name}",
        markdown(pairs),
        " ".join(sentences),
    ]
    return "\n\n".join(parts) + "\n"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the runs with the references, then what differs pair by pair; 80 columns are enough."""
    title = f"{len(comparison.runs)} runs on {_queries(comparison)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("Run", overflow="fold")
    for heading in ("Mean\nscore", "Routing\naccuracy", "Parse\nfailures", "USD per\n1,000 queries"):
        table.add_column(heading, justify="right")
    for index, (name, figures) in enumerate(_compared(comparison)):
        cells = [text.replace(" [", "\n[") for text in _printed(figures).values()]
        table.add_row(*map(Text, [name, *cells]), style="" if index < len(comparison.runs) else "dim")
    console.print(table)
    for pair in comparison.pairs:
        console.print(Text(f"{pair.run.name} against {comparison.first.name}", style="bold"))
        lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        lines.add_column(style="dim", no_wrap=True)
        lines.add_column(overflow="fold")
        for heading, text in _lines(pair, is_short=False):
            if "Holm" not in heading or len(comparison.pairs) > 1:
                lines.add_row(Text(heading), Text(text))
        console.print(lines)
        console.print()
    console.print(Text(" ".join([LEGEND, *([HOLM] if len(comparison.pairs) > 1 else [])]), style="dim"))


def _compared(comparison: Comparison) -> list[tuple[str, Mapping[str, Estimate | None]]]:
    """Name and figures of the runs, then of the references."""
    shown: list[tuple[str, Mapping[str, Estimate | None]]] = []
    for run in comparison.runs:
        mark = " (first)" if run is comparison.first else ""
        shown.append((run.name + mark, {name: getattr(run.evaluation.report, name) for name in FIGURES}))
    for name, reference in references(comparison).items():
        shown.append((name, {figure: getattr(reference, figure, None) for figure in FIGURES}))
    return shown


def _printed(figures: Mapping[str, Estimate | None]) -> Row:
    # What needs no text of a router has no parse failures, rather than unknown ones.
    return {
        text: ""
        if name == "parse_failure_rate" and figures[name] is None
        else format_estimate(figures[name], form_of(name))
        for name, text in FIGURES.items()
    }


def _lines(pair: Pair, is_short: bool) -> list[tuple[str, str]]:
    """Headings and texts of a pair's differences and tests."""
    score, accuracy = pair.score, pair.accuracy
    alone = f"{pair.only_run_right:,} : {pair.only_first_right:,}"
    return [
        ("mean score", format_estimate(score.estimate, SCORE_DIFFERENCE)),
        ("mean score: p", format_p(score.bootstrap_p)),
        ("mean score: p (Holm)", format_p(score.adjusted_p)),
        ("mean score: verdict", score.verdict),
        (
            "accuracy" + " (points)" * is_short,
            format_estimate(accuracy.estimate, POINTS if is_short else POINTS_WITH_UNIT),
        ),
        ("accuracy: right alone", alone),
        ("accuracy: p", format_p(accuracy.bootstrap_p)),
        ("accuracy: McNemar p", format_p(accuracy.mcnemar_p)),
        ("accuracy: p (Holm)", format_p(accuracy.adjusted_p)),
        ("accuracy: verdict", accuracy.verdict),
        ("USD per 1,000 queries", format_estimate(pair.cost, COST_DIFFERENCE)),
        ("routes differ", format_estimate(pair.routes_differ, PERCENT)),
    ]


def _queries(comparison: Comparison) -> str:
    evaluation = comparison.first.evaluation
    number = count(evaluation.report.num_queries, "query", "queries")
    return f"the same {number} of the {evaluation.split} split"


def _said_of_resampling(comparison: Comparison) -> str:
    return f"{comparison.resampling.resamples:,} bootstrap resamples, random seed {comparison.resampling.seed}."


def _figure_columns(figures: Mapping[str, Estimate | None]) -> Row:
    columns: Row = {}
    for name, figure in figures.items():
        columns |= interval_columns(name, figure)
    return columns


def _pair_columns(pair: Pair | None) -> Row:
    row = _difference_columns("mean_score", pair.score if pair else None)
    row |= _difference_columns("routing_accuracy", pair.accuracy if pair else None)
    row |= {"mcnemar_p": pair.accuracy.mcnemar_p if pair else None}
    row |= {"only_run_right": pair.only_run_right if pair else None}
    row |= {"only_first_right": pair.only_first_right if pair else None}
    row |= interval_columns("mean_cost_difference", pair.cost if pair else None)
    return row | interval_columns("routes_differ", pair.routes_differ if pair else None)


def _difference_columns(name: str, difference: Difference | None) -> Row:
    row = interval_columns(f"{name}_difference", difference.estimate if difference else None)
    row |= {f"{name}_bootstrap_p": difference.bootstrap_p if difference else None}
    row |= {f"{name}_holm_p": difference.adjusted_p if difference else None}
    return row | {f"{name}_verdict": difference.verdict if difference else None}
