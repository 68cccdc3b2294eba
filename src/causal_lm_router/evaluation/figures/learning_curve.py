"""Learning curve: training loss and evaluations by optimizer step."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, ORANGE, save_png

MetricRow = tuple[int, str, float]
Series = Mapping[int, float]


def read_metrics(path: Path) -> list[MetricRow]:
    """Return (optimizer step, name, value) per row of a metrics.csv with the columns step, epoch, name, value.

    Raises ValueError with file and line for a missing column or a value that is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := sorted({"step", "name", "value"} - set(reader.fieldnames or ())):
            raise ValueError(f"{path}:1: columns {missing} are missing, got {reader.fieldnames}")
        rows = []
        for row in reader:
            try:
                rows.append((int(row["step"]), row["name"], float(row["value"])))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{reader.line_num}: step and value must be numbers, got {row}") from error
    return rows


def save_learning_curve(rows: Sequence[MetricRow], path: Path, split: str = "validation") -> None:
    """Write a PNG of the training loss and, below it, the evaluations on `split`, all by optimizer step.

    Of several values of one name at one step (a resumed run) the last counts. Panels without values are left out.
    """
    series: dict[str, dict[int, float]] = {}
    for step, name, value in rows:
        series.setdefault(name.removeprefix(f"{split}/"), {})[step] = value
    panels = [_draw_loss]
    if "routing_accuracy" in series:
        panels.append(_draw_rates)
    if "mean_score" in series:
        panels.append(_draw_scores)
    figure = Figure(figsize=(8, 1 + 2.6 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for draw, axes in zip(panels, column, strict=True):
        draw(axes, series)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    column[-1].set_xlabel("optimizer step")
    save_png(figure, path)


def _draw_loss(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("training loss")
    loss = series.get("train/loss", {})
    if not loss:
        axes.text(0.5, 0.5, "no loss was logged", transform=axes.transAxes, ha="center")
        return
    steps, values = _points(loss)
    window = len(values) // 20
    marker = "o" if len(values) == 1 else ""
    axes.plot(steps, values, color=BLUE, alpha=0.3 if window > 1 else 1, marker=marker, label="loss")
    if window > 1:
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps[window // 2 :][: len(smooth)], smooth, color=BLUE, label=f"mean of {window} logged losses")
    axes.set_ylim(bottom=0)
    lines = axes.get_lines()
    if rate := series.get("train/learning_rate"):
        right = axes.twinx()
        lines = [*lines, *right.plot(*_points(rate), color=GREY, linestyle=":", label="learning rate (right)")]
        right.set_ylim(bottom=0)
    axes.legend(handles=lines, loc="upper right")


def _draw_rates(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("share of queries")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _draw_figure(axes, series, "routing_accuracy", "routing accuracy", BLUE)
    _draw_figure(axes, series, "parse_failure_rate", "parse failures", ORANGE)
    _draw_reference(axes, series, "best_single/routing_accuracy", "best single's accuracy", ":")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(loc="best")


def _draw_scores(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("mean score")
    _draw_figure(axes, series, "mean_score", "router", BLUE)
    _draw_reference(axes, series, "best_single/mean_score", "best single", ":")
    _draw_reference(axes, series, "bayes_score", "best possible", "-.")
    _draw_reference(axes, series, "oracle/mean_score", "oracle", "--")
    axes.legend(loc="best")


def _draw_figure(axes: Axes, series: Mapping[str, Series], name: str, label: str, colour: str) -> None:
    if name in series:
        axes.plot(*_points(series[name]), marker="o", color=colour, label=label)


def _draw_reference(axes: Axes, series: Mapping[str, Series], name: str, label: str, style: str) -> None:
    # Every evaluation of a run asks the same queries, so the last value stands for all.
    if name in series:
        axes.axhline(_points(series[name])[1][-1], color=GREY, linestyle=style, label=label)


def _points(series: Series) -> tuple[list[int], list[float]]:
    steps = sorted(series)
    return steps, [series[step] for step in steps]
