"""How numbers with their intervals are shown, in tables, files and figures."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from causal_lm_router.evaluation.intervals import Estimate

Row = dict[str, Any]


def write_csv(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """Write rows under a header; without rows the header of `columns` alone. None is an empty cell."""
    pd.DataFrame(list(rows), columns=None if rows else list(columns), dtype=object).to_csv(path, index=False)


def markdown(rows: Sequence[Row]) -> str:
    """Return rows of texts as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*row.values()] for row in rows)] if rows else []
    escaped = (["".join(f"\\{char}" if char in "|<_*" else char for char in cell) for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def relative(folder: Path, base: Path) -> str:
    """Return the path from `base` to `folder`, with slashes."""
    return Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()


def value_of(figure: Estimate | None) -> float | None:
    """Return a figure's value."""
    return None if figure is None else figure.value


def format_estimate(name: str, figure: Estimate | float | None) -> str:
    """Return a figure as it is printed, with its interval where it has one."""
    if figure is None:
        return "unknown"
    spec, scale = {"mean_score": (".3f", 1), "regret": (".3f", 1), "mean_cost": (".3g", 1000)}.get(name, (".1%", 1))
    if isinstance(figure, float):
        return format(scale * figure, spec)
    if figure.low is None or figure.high is None:
        return format(scale * figure.value, spec)
    return f"{scale * figure.value:{spec}} [{scale * figure.low:{spec}}, {scale * figure.high:{spec}}]"


def format_difference(figure: Estimate, scale: float, spec: str, unit: str = "") -> str:
    """Return a difference, times `scale`, as it is printed, with its interval where it has one."""
    text = f"{scale * figure.value:{spec}}{unit}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{scale * figure.low:{spec}}, {scale * figure.high:{spec}}]"


def format_p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
