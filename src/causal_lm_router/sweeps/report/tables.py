"""The report's tables: plain rows for CSV and trackers, and the same as Markdown and LaTeX."""

from collections.abc import Collection, Sequence
from pathlib import Path

from causal_lm_router.evaluation.formatting import (
    HEADINGS,
    POINTS,
    SCORE_DIFFERENCE,
    Row,
    difference_cells,
    difference_columns,
    estimate_cells,
    estimate_columns,
    form_of,
    format_estimate,
    format_p,
    relative,
    value_of,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.stored import METRICS
from causal_lm_router.sweeps.report.comparisons import Comparison
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.runs import Run
from causal_lm_router.sweeps.report.summary import CHOICE_METRICS, ReferenceEstimates, Selection, Summary


def configuration_rows(
    summaries: Sequence[Summary], references: Sequence[ReferenceEstimates], selection: Selection | None, base: Path
) -> list[Row]:
    """Return a plain row per configuration, then per reference; folders are relative to `base`, unknown values None."""
    swept = list(summaries[0].configuration.swept) if summaries else []
    chosen = selection.chosen if selection else None
    rows = []
    for one in summaries:
        row: Row = {"number": one.configuration.number, "who": one.configuration.name}
        row |= {key: _plain(one.configuration.swept[key]) for key in swept}
        row |= {"seeds": one.configuration.num_seeds, "queries": one.num_queries, "chosen": one is chosen}
        row |= {f"validation_{metric}": one.validation.get(metric) for metric in CHOICE_METRICS}
        row |= estimate_columns(one.estimates, METRICS)
        # The numbers of the row lead back to these folders.
        rows.append(row | {"runs": ";".join(relative(run.folder, base) for run in one.configuration.runs)})
    # References have no number, settings or seeds.
    for reference in references:
        row = {"number": None, "who": reference.name, **dict.fromkeys(swept)}
        row |= {"seeds": None, "queries": reference.num_queries, "chosen": False}
        row |= {f"validation_{metric}": None for metric in CHOICE_METRICS}
        row |= estimate_columns(_reference_estimates(reference), METRICS)
        rows.append(row | {"runs": relative(reference.run.folder, base)})
    return rows


def comparison_rows(comparisons: Sequence[Comparison], baseline: str, base: Path) -> list[Row]:
    """Return a plain row per comparison: both differences with intervals, every p-value, and the verdicts."""
    rows = []
    for one in comparisons:
        row: Row = {"number": one.configuration.number, "configuration": one.configuration.name, "baseline": baseline}
        row |= {"seeds": len(one.pairs), "queries": one.num_queries}
        row |= difference_columns("routing_accuracy", one.accuracy)
        row |= {"only_configuration_right": one.only_configuration_right}
        row |= {"only_baseline_right": one.only_baseline_right}
        row |= {"mcnemar_p": one.accuracy.mcnemar_p if one.accuracy else None}
        row |= difference_columns("mean_score", one.score)
        row |= {"note": one.note, "runs": ";".join(relative(run.folder, base) for run, _ in one.pairs)}
        # Best single has no runs of its own.
        theirs = (relative(other.folder, base) for _, other in one.pairs if other is not None)
        rows.append(row | {"baseline_runs": ";".join(theirs)})
    return rows


def run_rows(runs: Sequence[Run], configurations: Sequence[Configuration], base: Path) -> list[Row]:
    """Return a plain row per run with its own metrics, whose means the other tables hold."""
    numbers = {run.folder: one.number for one in configurations for run in one.runs}
    swept = list(configurations[0].swept) if configurations else []
    rows = []
    for run in runs:
        row: Row = {"run": relative(run.folder, base), "state": run.state, "configuration": numbers.get(run.folder)}
        row |= {"seed": run.seed, **{key: _plain(run.config.get(key)) for key in swept}}
        row |= {"split": run.test.split if run.test else None}
        row |= {"queries": run.test.report.num_queries if run.test else None}
        row |= {name: value_of(getattr(run.test.report, name)) if run.test else None for name in METRICS}
        for metric in CHOICE_METRICS:
            value = value_of(getattr(run.validation.report, metric)) if run.validation else None
            row[f"validation_{metric}"] = value
        rows.append(row | {"detail": run.detail})
    return rows


def printed_configurations(
    summaries: Sequence[Summary], references: Sequence[ReferenceEstimates], metric: str
) -> list[Row]:
    """Return the configurations and references as texts under printed headings, intervals in brackets."""
    swept = list(summaries[0].configuration.swept) if summaries else []
    rows = []
    for one in summaries:
        row = {"#": str(one.configuration.number)}
        row |= {key: one.configuration.texts[key] for key in swept}
        row |= {"seeds": str(one.configuration.num_seeds)}
        row |= {f"validation {HEADINGS[metric]}": format_estimate(one.validation.get(metric), form_of(metric))}
        rows.append(row | estimate_cells(one.estimates))
    for reference in references:
        # The first column that has room for a name.
        first = swept[0] if swept else "#"
        row = {"#": "", **dict.fromkeys(swept, ""), "seeds": "", f"validation {HEADINGS[metric]}": ""}
        row[first] = reference.name
        rows.append(row | estimate_cells(_reference_estimates(reference)))
    return rows


def printed_comparisons(comparisons: Sequence[Comparison]) -> list[Row]:
    """Return the comparisons as texts under printed headings; without differences the note stands for the verdict."""
    rows = []
    for one in comparisons:
        row = {"#": str(one.configuration.number), "configuration": one.configuration.name}
        row |= {"seeds": str(len(one.pairs))}
        row |= difference_cells("accuracy", one.accuracy, POINTS, one.note)
        row |= {"right alone": f"{one.only_configuration_right:,} : {one.only_baseline_right:,}"}
        row |= {"McNemar p": format_p(one.accuracy.mcnemar_p if one.accuracy else None)}
        rows.append(row | difference_cells("score", one.score, SCORE_DIFFERENCE, one.note))
    return rows


def latex(rows: Sequence[Row], best: Collection[tuple[int, str]], name: str) -> str:
    """Return rows of texts as a LaTeX table no wider or higher than a page, special characters escaped.

    Texts are aligned left and numbers right, cells of `best` (row, heading) are bold, and the label is
    `tab:<name>`. It needs the packages booktabs and adjustbox.
    """
    headings = list(rows[0]) if rows else []
    # Percent signs, underscores and the like would otherwise be commands.
    lines = [
        [_bold(latex_text(str(row[key])), (index, key) in best) for key in headings] for index, row in enumerate(rows)
    ]
    # The group of a setting would only make its column wide.
    shown = [latex_text(key.rpartition(".")[2]) for key in headings]
    body = [" & ".join(cells) + r" \\" for cells in lines]
    label = "".join(char if char.isalnum() else "-" for char in name)
    return "\n".join(
        [
            r"% \usepackage{booktabs,adjustbox}",
            r"\begin{table}[t]",
            r"\centering",
            r"\caption{Means over seeds, with 95\% intervals in brackets. Bold: the best configuration of a column.}",
            rf"\label{{tab:{label}}}",
            r"\begin{adjustbox}{max width=\linewidth,max totalheight=0.9\textheight}",
            rf"\begin{{tabular}}{{{''.join('r' if _is_numeric(rows, key) else 'l' for key in headings)}}}",
            r"\toprule",
            " & ".join(shown) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\end{table}",
            "",
        ]
    )


def best_cells(summaries: Sequence[Summary]) -> set[tuple[int, str]]:
    """Return row and heading of the best estimate of every metric, all of equal ones; oracles compete for none."""
    best = set()
    for metric, heading in HEADINGS.items():
        values = {
            row: one.estimates[metric].value
            for row, one in enumerate(summaries)
            if metric in one.estimates and not one.configuration.is_oracle
        }
        # The others are better the lower they are.
        target = (max if metric in CHOICE_METRICS else min)(values.values(), default=None)
        best |= {(row, heading) for row, value in values.items() if value == target}
    return best


def latex_text(text: str) -> str:
    """Return a text with the characters escaped that LaTeX reads as commands."""
    commands = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(commands.get(char, f"\\{char}" if char in "&%$#_{}" else char) for char in text)


def _bold(text: str, is_bold: bool) -> str:
    return rf"\textbf{{{text}}}" if is_bold else text


def _is_numeric(rows: Sequence[Row], heading: str) -> bool:
    """Whether the column holds numbers with units or intervals, and nothing else but empty cells."""
    cells = [str(row[heading]) for row in rows if row[heading]]
    return bool(cells) and all(cell[0] in "+-0123456789." for cell in cells)


def _reference_estimates(reference: ReferenceEstimates) -> dict[str, Estimate | None]:
    """Metric -> estimate; a reference has no parse failures."""
    return {name: getattr(reference.estimates, name, None) for name in METRICS}


def _plain(value: object) -> object:
    """The value of a setting as a table of numbers and texts can hold it."""
    return value if isinstance(value, int | float) else None if value is None else str(value)
