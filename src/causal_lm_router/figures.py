"""Drawings of a run: the confusion of labels and routes, and the learning curve; each a PNG that appears whole."""

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal_lm_router.atomic import write_bytes
from causal_lm_router.routing_report import RoutingReport

MetricRow = tuple[int, str, float]
Series = Mapping[int, float]
BLUE, ORANGE, GREY = "#2166ac", "#d95f02", "#555555"


def save_confusion(report: RoutingReport, path: Path) -> None:
    """Write a PNG of how many queries of each label (rows) got each route (columns, parse failures last).

    A cell is the darker, the larger its share of the row; the outlined cells are the routes that equal the label.
    """
    counts = np.array(report.confusion)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    size = len(counts)
    cell_inches = 0.6 if size <= 12 else 0.42
    # The cells fill the figure, so that their size is fixed; names and colour bar hang outside and widen the PNG.
    figure = Figure(figsize=(cell_inches * (size + 1), cell_inches * size))
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    for index in range(size):
        axes.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=GREY))
    axes.axvline(size - 0.5, color=ORANGE, linewidth=2)
    _label_confusion(axes, shorten_names(report.candidates), [int(total) for total in totals])
    beside = figure.add_axes((1 + 0.3 / figure.get_figwidth(), 0, 0.2 / figure.get_figwidth(), 1))
    figure.colorbar(image, cax=beside, label="share of the label's queries", format=PercentFormatter(1))
    save_png(figure, path)


def _label_confusion(axes: Axes, names: Sequence[str], totals: Sequence[int]) -> None:
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    # With parse_math a dollar sign in a name would begin a formula.
    columns = [*names, "parse failure"]
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left", rotation_mode="anchor", parse_math=False)
    rows = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("route")
    axes.set_ylabel("label (queries)")


def shorten_names(names: Sequence[str], max_chars: int = 32) -> list[str]:
    """Return the names with the middle of longer ones left out, or the names as they are where that made two alike."""
    head, tail = (max_chars - 1) // 2, max_chars // 2
    shortened = [name if len(name) <= max_chars else f"{name[:head]}…{name[-tail:]}" for name in names]
    return shortened if len(set(shortened)) == len(names) else list(names)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, with room for what hangs over its edges."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Characters the font lacks are drawn as boxes: no reason to fail, or to write to the terminal, over a drawing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    write_bytes(path, content.getvalue())


def plain_label(text: str) -> str:
    """Return the text so that a legend shows it as it is: a dollar sign would begin a formula, `_` hide the entry."""
    return f" {text}".replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")


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
