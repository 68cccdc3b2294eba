"""How estimates are shown: one set of words, forms and file formats for every table, page and drawing."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.terminal import visible

if TYPE_CHECKING:
    from causal_lm_router.evaluation.statistics import Difference

Row = dict[str, Any]

REFERENCE_NAMES = {
    "random": "random",
    "best_single": "best single",
    "per_task_best": "per-task table",
    "same_cost_mixture": "same-cost mixture",
    "oracle": "oracle",
    "bayes": "best possible",
}
"""Key of a report's reference -> its name in tables and legends."""

HEADINGS = {
    "routing_accuracy": "routing accuracy",
    "parse_failure_rate": "parse failures",
    "mean_score": "mean score",
    "regret": "regret",
    "mean_cost": "USD per 1,000 queries",
}
"""Metric of a report -> its heading."""


@dataclass(frozen=True)
class Form:
    """How a number is written: a format spec, the factor the number is multiplied by first, and its unit."""

    spec: str
    scale: float = 1
    unit: str = ""
    small_spec: str | None = None
    """The spec of scaled values below 0.1, where three decimals show little but zeros; None for the same one."""


PERCENT = Form(".1%")
WHOLE_PERCENT = Form(".0%")
SCORE = Form(".3f")
COST = Form(",.3f", 1000, small_spec=".3g")
"""USD per query, shown per 1,000 queries."""
SCORE_DIFFERENCE = Form("+.3f")
POINTS = Form("+.1f", 100)
"""A difference of two shares, in percentage points; the unit stands in the heading."""
POINTS_WITH_UNIT = Form("+.1f", 100, " points")
COST_DIFFERENCE = Form("+,.3f", 1000, small_spec="+.3g")
# Brackets and underscores are left alone where they make no link and no emphasis: estimates and keys are full of them.
# "://" would make a link by itself.
_MARKUP = re.compile(r"[\\`*<|$&~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|://")
_FORMS = {"mean_score": SCORE, "regret": SCORE, "mean_cost": COST}


def form_of(name: str) -> Form:
    """Return the form of a metric; metrics that are neither scores nor costs are shares."""
    return _FORMS.get(name, PERCENT)


def format_estimate(estimate: Estimate | float | None, form: Form) -> str:
    """Return an estimate in one line: `0.512 [0.498, 0.526]`, or its value alone where it has no interval."""
    value, interval = _parts(estimate, form)
    return f"{value} {interval}".rstrip()


def format_two_lines(estimate: Estimate | float | None, form: Form) -> Text:
    """Return an estimate for a table's cell on the terminal, its interval in a second, dimmed line."""
    return two_lines(*_parts(estimate, form))


def two_lines(first: str, second: str) -> Text:
    """Return a table's cell with a dimmed second line; "" is no line."""
    return Text.assemble(visible(first), (f"\n{visible(second)}" if second else "", "dim not bold"))


def _parts(estimate: Estimate | float | None, form: Form) -> tuple[str, str]:
    """The value with its unit, and its interval in brackets: empty where there is none."""
    if estimate is None:
        return "unknown", ""
    # A bare number is shown as an estimate without an interval.
    value, low, high = (estimate, None, None) if isinstance(estimate, float) else _numbers(estimate)
    # The bounds have the digits of the value.
    spec = form.small_spec if form.small_spec and abs(form.scale * value) < 0.1 else form.spec
    text = format(form.scale * value, spec) + form.unit
    if low is None or high is None:
        return text, ""
    return text, f"[{form.scale * low:{spec}}, {form.scale * high:{spec}}]"


def _numbers(estimate: Estimate) -> tuple[float, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def format_p(value: float | None) -> str:
    """Return a p-value; "" where there is none."""
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def count(number: int, one: str, several: str) -> str:
    """Return `1 query` or `1,200 queries`."""
    return f"{number:,} {one if number == 1 else several}"


def explain_reference(name: str, best_single: str) -> str:
    """Return whom a reference sends the queries to."""
    return {
        "random": "a random LLM",
        "best_single": f"always {best_single}",
        "per_task_best": "best LLM of each task",
        "same_cost_mixture": "LLMs drawn at its cost",
        "oracle": "best LLM in hindsight",
        "bayes": "highest expected score",
    }[name]


def value_of(estimate: Estimate | None) -> float | None:
    """Return an estimate's value; None for none."""
    return None if estimate is None else estimate.value


def interval_columns(name: str, estimate: Estimate | None) -> Row:
    """Return the columns `name`, `name_low` and `name_high` of a row; None where the estimate lacks them."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def estimate_columns(estimates: Mapping[str, Estimate | None], names: Sequence[str]) -> Row:
    """Return the columns of the named metrics; None where an estimate is missing."""
    columns: Row = {}
    for name in names:
        columns |= interval_columns(name, estimates.get(name))
    return columns


def difference_columns(name: str, difference: "Difference | None") -> Row:
    """Return the columns of a difference in the metric `name`, with its p-values and verdict; None for none."""
    columns = interval_columns(f"{name}_difference", difference.estimate if difference else None)
    columns |= {f"{name}_p": difference.p if difference else None}
    columns |= {f"{name}_holm_p": difference.adjusted_p if difference else None}
    return columns | {f"{name}_verdict": difference.verdict if difference else None}


def estimate_cells(estimates: Mapping[str, Estimate | None], names: Sequence[str] = tuple(HEADINGS)) -> dict[str, str]:
    """Return the named metrics as texts under their headings."""
    cells = {}
    for name in names:
        estimate = estimates.get(name)
        # References generate no text, so they have no parse failures, rather than unknown ones.
        is_reference = name == "parse_failure_rate" and estimate is None
        cells[HEADINGS[name]] = "" if is_reference else format_estimate(estimate, form_of(name))
    return cells


def difference_cells(name: str, difference: "Difference | None", form: Form, note: str = "") -> dict[str, str]:
    """Return a difference and its tests as texts under headings; `note` follows the verdict, or stands for it."""
    heading = f"{name} difference" + (" (points)" if form is POINTS else "")
    cells = dict.fromkeys((heading, f"{name}: p", f"{name}: Holm p"), "") | {f"{name}: verdict": note}
    if difference is None:
        return cells
    return {
        heading: format_estimate(difference.estimate, form),
        f"{name}: p": format_p(difference.p),
        f"{name}: Holm p": format_p(difference.adjusted_p),
        f"{name}: verdict": difference.verdict + (f" ({note})" if note else ""),
    }


def shorten_names(names: Sequence[str], max_chars: int = 32) -> list[str]:
    """Return the names, the middle of longer ones replaced by `…`; all unchanged where that makes two of them equal."""
    head, tail = (max_chars - 1) // 2, max_chars // 2
    shortened = [name if len(name) <= max_chars else f"{name[:head]}…{name[-tail:]}" for name in names]
    return shortened if len(set(shortened)) == len(names) else list(names)


def write_csv(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """Write rows under a header; without rows the header of `columns` alone. None is an empty cell."""
    # Imported here: whoever shows numbers need not wait for it.
    import pandas as pd

    pd.DataFrame(list(rows), columns=None if rows else list(columns), dtype=object).to_csv(path, index=False)


def escape_markdown(text: str) -> str:
    """Return a text in one line in which nothing is Markdown: no cell, emphasis, code, link, image, HTML or formula."""
    return _MARKUP.sub(lambda match: "\\" + match[0], visible(" ".join(text.splitlines())))


def markdown(rows: Sequence[Row]) -> str:
    """Return rows of texts as a Markdown table; characters that Markdown would read as its own are escaped."""
    # Header, rule, rows.
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*row.values()] for row in rows)] if rows else []
    return "\n".join("| " + " | ".join(map(escape_markdown, line)) + " |" for line in lines)


def relative(folder: Path, base: Path) -> str:
    """Return the path from `base` to `folder`, with slashes."""
    return Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()
