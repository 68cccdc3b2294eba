"""Learning curves over the optimizer step: of one run, and of the configurations of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, ORANGE, reference_style

MetricRow = tuple[int, str, float]
"""Optimizer step, name of the metric, value."""
Series = Mapping[int, float]
"""Optimizer step -> value."""


def draw_learning_curve(rows: Sequence[MetricRow], split: str = "validation") -> Figure:
    """Return a drawing of a run's training loss and, below it, of the evaluations on `split`, by optimizer step.

    Where nothing was evaluated during training, that is the evaluation of the whole split after it. Of several values
    of one name at one step (a resumed run) the last counts. Panels without values are left out.
    """
    prefix, title = f"{split}/", f"{split}, during training"
    if not any(name.startswith(prefix) for _, name, _ in rows):
        prefix, title = f"final_{prefix}", f"{split}, after training"
    series: dict[str, dict[int, float]] = {}
    for step, name, value in rows:
        series.setdefault(name.removeprefix(prefix), {})[step] = value
    panels = [_draw_loss]
    if "routing_accuracy" in series:
        panels.append(_draw_rates)
    if "mean_score" in series:
        panels.append(_draw_scores)
    figure, column = step_panels(len(panels))
    for draw, axes in zip(panels, column, strict=True):
        draw(axes, series)
    for axes in column[1:]:
        axes.set_title(title, loc="left", fontsize=10)
    # Around few steps the axis would go on to fractions of them.
    column[0].set_xlim(left=0)
    return figure


def step_panels(number: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels one below the other, all over the optimizer step."""
    figure = Figure(figsize=(8, 1 + 2.7 * number), layout="constrained")
    column = list(figure.subplots(number, 1, sharex=True, squeeze=False)[:, 0])
    for axes in column:
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    column[-1].set_xlabel("optimizer step")
    return figure, column


def draw_series(axes: Axes, series: Series, **style: Any) -> None:
    """Draw a line through the values by step; `style` is matplotlib's."""
    steps = sorted(series)
    axes.plot(steps, [series[step] for step in steps], **style)


def running_mean(series: Series) -> tuple[Series, int]:
    """Return the mean over a twentieth of the values around each step, and how many values that is.

    One batch's loss says little. The first and the last half window have no mean.
    """
    steps = sorted(series)
    window = max(1, len(steps) // 20)
    means = np.convolve([series[step] for step in steps], np.ones(window) / window, mode="valid")
    return dict(zip(steps[window // 2 :], means.tolist(), strict=False)), window


def _draw_loss(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("training loss")
    loss = series.get("train/loss", {})
    if not loss:
        axes.text(0.5, 0.5, "no loss was logged", transform=axes.transAxes, ha="center")
        return
    smooth, window = running_mean(loss)
    # A line through a single point would be invisible.
    marker = "o" if len(loss) == 1 else ""
    draw_series(axes, loss, color=BLUE, alpha=0.3 if window > 1 else 1, marker=marker, label="loss")
    if window > 1:
        draw_series(axes, smooth, color=BLUE, label=f"mean of {window} logged losses")
    # Room above for the legend.
    axes.set_ylim(0, 1.35 * max(loss.values()) or 1)
    lines = [*axes.get_lines()]
    if rate := series.get("train/learning_rate"):
        right = axes.twinx()
        draw_series(right, rate, color=GREY, linestyle=":", label="learning rate (right)")
        right.set_ylim(bottom=0)
        lines += right.get_lines()
    # One legend for both axes: that of `right` alone would cover this one.
    axes.legend(handles=lines, loc="upper right")


def _draw_rates(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("share of queries")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    for name, label, colour in (
        ("routing_accuracy", "routing accuracy", BLUE),
        ("parse_failure_rate", "parse failures", ORANGE),
    ):
        if name in series:
            draw_series(axes, series[name], marker="o", color=colour, label=label)
    _draw_reference(axes, series, "best_single/routing_accuracy", "best_single", "best single's accuracy")
    axes.set_ylim(-0.03, 1.03)
    _add_legend(axes)


def _draw_scores(axes: Axes, series: Mapping[str, Series]) -> None:
    axes.set_ylabel("mean score")
    draw_series(axes, series["mean_score"], marker="o", color=BLUE, label="router")
    _draw_reference(axes, series, "best_single/mean_score", "best_single")
    # What the best possible router gets by expected scores.
    _draw_reference(axes, series, "bayes_score", "bayes")
    _draw_reference(axes, series, "oracle/mean_score", "oracle")
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    # Beside the panel: level lines at several heights leave no place inside that covers none.
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False)


def _draw_reference(
    axes: Axes, series: Mapping[str, Series], metric: str, reference: str, label: str | None = None
) -> None:
    """Draw a level line at the metric's last value: every evaluation of a run asks the same queries."""
    if metric in series:
        style = reference_style(reference)
        last = series[metric][max(series[metric])]
        axes.axhline(last, color=GREY, linestyle=style.line, label=label or style.label)
