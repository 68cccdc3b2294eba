"""Drawings of one swept setting: routing accuracy and parse-failure rate against its values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from causal_lm_router.evaluation.figures.drawing import (
    BLUE,
    GREY,
    MAX_COLOURS,
    bar_lengths,
    line_colours,
    plain_label,
    reference_style,
)
from causal_lm_router.sweeps.report.configurations import format_value
from causal_lm_router.sweeps.report.summary import ReferenceEstimates, Summary

_PANELS = {"routing_accuracy": "routing accuracy", "parse_failure_rate": "parse-failure rate"}
_MAX_TICKS = 8


def draw_parameter(key: str, summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure | None:
    """Return both rates with their intervals against the setting `key`; None where the finished runs have one value.

    A line joins configurations that differ in nothing else. Where those are many (a random search), all points have
    one colour and the line is their mean at each value. A numeric axis is logarithmic where it spans over a decade.
    """
    # Settings may differ among unfinished runs alone: then there is nothing to draw.
    values = [summary.configuration.swept[key] for summary in summaries]
    if len({format_value(value) for value in values}) < 2:
        return None
    axis = _Axis(values, [summary.configuration.texts[key] for summary in summaries])
    series = _series(key, summaries)
    figure = Figure(figsize=(axis.width_inches, 6.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes, name in ((top, "routing_accuracy"), (bottom, "parse_failure_rate")):
        _draw_series(axes, axis, key, name, series)
        axes.set_ylabel(_PANELS[name])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    # A rate of 0 would otherwise lie on the frame.
    bottom.set_ylim(bottom=-0.002)
    _draw_references(top, references)
    axis.finish(bottom, key)
    # Both panels have the same lines; the references are on the upper one alone.
    handles, labels = top.get_legend_handles_labels()
    if handles:
        is_long = max(map(len, labels)) > 40
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if is_long else 2, fontsize=8)
    return figure


class _Axis:
    """Where a setting's values lie on the horizontal axis."""

    def __init__(self, values: Sequence[object], texts: Sequence[str]) -> None:
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        self.numbers = sorted({float(value) for value in values}) if is_number else []  # type: ignore[arg-type]
        self.names = {format_value(value): text for value, text in zip(values, texts, strict=True)}
        # A logarithm needs positive values; within one decade it helps little.
        low_high = (self.numbers[0], self.numbers[-1]) if self.numbers else (0.0, 0.0)
        self.is_log = low_high[0] > 0 and low_high[1] > 10 * low_high[0]

    @property
    def width_inches(self) -> float:
        """Width of a drawing in which names have room side by side."""
        return 6.5 if self.numbers else max(6.5, 0.7 * len(self.names) + 2)

    def place(self, value: object, offset: float) -> float:
        """Return the position of a value, moved by `offset`, a share of the axis, so that error bars stay apart."""
        if not self.numbers:
            return list(self.names).index(format_value(value)) + offset * len(self.names)
        # On a logarithmic axis equal distances are equal factors.
        number, low, high = float(value), self.numbers[0], self.numbers[-1]  # type: ignore[arg-type]
        return number * (high / low) ** offset if self.is_log else number + offset * (high - low)

    def finish(self, axes: Axes, key: str) -> None:
        """Label the axis: the values themselves where they are few."""
        axes.set_xlabel(key + (" (log scale)" if self.is_log else ""))
        if self.is_log:
            axes.set_xscale("log")
        if not self.numbers:
            # Names that do not fit side by side are turned.
            is_long = sum(map(len, self.names.values())) > 50
            rotation: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
            axes.set_xticks(range(len(self.names)), list(self.names.values()), parse_math=False, **rotation)
        # More values than these would not fit as ticks; matplotlib then chooses its own.
        elif len(self.numbers) <= _MAX_TICKS:
            # A logarithmic axis would add ticks of its own between the values.
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(self.numbers, [f"{number:g}" for number in self.numbers])


def _series(key: str, summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Label -> the summaries that differ in nothing but `key`; the label holds the values of the other settings."""
    series: dict[str, list[Summary]] = {}
    for summary in summaries:
        others = {name: text for name, text in summary.configuration.texts.items() if name != key}
        name = " ".join(f"{name}={text}" for name, text in others.items())
        series.setdefault(plain_label(name), []).append(summary)
    return series


def _draw_series(axes: Axes, axis: _Axis, key: str, name: str, series: Mapping[str, Sequence[Summary]]) -> None:
    if len(series) > MAX_COLOURS:
        everything = [summary for group in series.values() for summary in group]
        places = [axis.place(summary.configuration.swept[key], 0.0) for summary in everything]
        _draw_points(axes, places, name, everything, color=BLUE, label="a configuration", linestyle="")
        _draw_means(axes, places, name, everything)
        return
    # Lines are moved a little to the left and right of each other.
    offsets = (np.arange(len(series)) - (len(series) - 1) / 2) * 0.012
    for (label, group), colour, offset in zip(series.items(), line_colours(len(series)), offsets, strict=True):
        places = [axis.place(summary.configuration.swept[key], float(offset)) for summary in group]
        _draw_points(axes, places, name, group, color=colour, label=label or "_", linestyle="-")


def _draw_points(axes: Axes, places: Sequence[float], name: str, group: Sequence[Summary], **style: Any) -> None:
    """Draw the estimates `name` of the group with their intervals; `style` is matplotlib's."""
    # A line joins the points from left to right.
    order = np.argsort(places)
    estimates = [group[index].estimates[name] for index in order]
    axes.errorbar(
        np.array(places)[order],
        [estimate.value for estimate in estimates],
        bar_lengths(estimates),
        marker="o",
        markersize=4,
        capsize=2,
        elinewidth=1,
        **style,
    )


def _draw_means(axes: Axes, places: Sequence[float], name: str, group: Sequence[Summary]) -> None:
    """Draw a line through the means at each place, unless every place has a single configuration."""
    by_place: dict[float, list[float]] = {}
    for place, summary in zip(places, group, strict=True):
        by_place.setdefault(place, []).append(summary.estimates[name].value)
    if len(by_place) < len(group):
        in_order = sorted(by_place)
        means = [math.fsum(by_place[place]) / len(by_place[place]) for place in in_order]
        axes.plot(in_order, means, color=GREY, label="mean at this value")


def _draw_references(axes: Axes, references: Sequence[ReferenceEstimates]) -> None:
    # The oracle's accuracy is always 1. Lines for several sets of queries could not be told apart.
    shown = [reference for reference in references if reference.key != "oracle"]
    if len({reference.name for reference in shown}) < len(shown):
        return
    for reference in shown:
        style = reference_style(reference.style_name)
        value = reference.estimates.routing_accuracy.value
        axes.axhline(value, color=GREY, linestyle=style.line, label=style.label)
