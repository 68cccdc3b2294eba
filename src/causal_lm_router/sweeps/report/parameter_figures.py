"""Drawings of one swept setting: routing accuracy and parse-failure rate against its values.

Numbers are an axis, and lines join them. Options without an order, such as methods, are rows of dots, the best on top.
"""

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
    ReferenceStyle,
    bar_lengths,
    line_colours,
    plain_label,
    reference_style,
)
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.sweeps.report.configurations import format_value
from causal_lm_router.sweeps.report.summary import ReferenceEstimates, Summary

_PANELS = {"routing_accuracy": "routing accuracy", "parse_failure_rate": "parse-failure rate"}
_MAX_TICKS = 8
_AXIS_INCHES, _CHAR_INCHES = 4.8, 0.085
"""Width of the numeric axis, and of a character of its tick labels."""


def draw_parameter(key: str, summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure | None:
    """Return both rates with their intervals against the setting `key`; None where the finished runs have one value.

    Configurations that differ in nothing else have one colour. Where those are many (a random search), all points have
    one colour, and grey marks their mean at each value. A numeric axis is logarithmic where it spans over a decade.
    """
    values = [summary.configuration.swept[key] for summary in summaries]
    is_ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    # Settings may differ among unfinished runs alone: then there is nothing to draw. 1 and 1.0 are one number.
    if len({float(value) if is_ordered else format_value(value) for value in values}) < 2:
        return None
    figure = _draw_numbers(key, summaries, references) if is_ordered else _draw_options(key, summaries, references)
    # Both panels have the same marks; the references are in the first one alone.
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        is_long = max(map(len, labels)) > 40
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if is_long else 2, fontsize=8)
    return figure


def _draw_numbers(key: str, summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure:
    axis = _NumberAxis([float(summary.configuration.swept[key]) for summary in summaries])
    figure = Figure(figsize=(6.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    series = _series(key, summaries)
    for axes, (name, title) in zip(panels, _PANELS.items(), strict=True):
        _draw_lines(axes, axis, key, name, series)
        axes.set_ylabel(title)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    # A rate of 0 would otherwise lie on the frame.
    panels[1].set_ylim(bottom=-0.002)
    for value, style in _reference_lines(references):
        panels[0].axhline(value, color=GREY, linestyle=style.line, label=style.label)
    axis.finish(panels[1], key)
    return figure


def _draw_options(key: str, summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure:
    """Rows of dots: an option's accuracy on the left, its parse failures on the right."""
    rows = _rank_options(key, summaries)
    series = _series(key, summaries)
    is_crowded = len(series) > MAX_COLOURS
    height = max(0.32, 0.13 * (1 if is_crowded else len(series)))
    figure = Figure(figsize=(9, 1.7 + height * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for axes, (name, title) in zip(panels, _PANELS.items(), strict=True):
        colours = [BLUE] * len(series) if is_crowded else line_colours(len(series))
        # Dots of one row are moved a little up and down, so that their intervals stay apart.
        offsets = np.zeros(len(series)) if is_crowded else np.linspace(-0.3, 0.3, len(series) + 2)[1:-1]
        for number, (label, group) in enumerate(series.items()):
            places = [rows[format_value(one.configuration.swept[key])][0] + offsets[number] for one in group]
            shown = "a configuration" if is_crowded and number == 0 else "_" if is_crowded else label or "_"
            _draw_dots(axes, places, [one.estimates[name] for one in group], color=colours[number], label=shown)
        if is_crowded:
            means = [np.mean([one.estimates[name].value for one in group]) for _, group in rows.values()]
            axes.plot(means, range(len(rows)), "D", color=GREY, label="mean of this option", zorder=3)
        axes.set_xlabel(title)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
    panels[1].set_xlim(left=-0.002)
    for value, style in _reference_lines(references):
        panels[0].axvline(value, color=GREY, linestyle=style.line, label=style.label)
    texts = {format_value(one.configuration.swept[key]): one.configuration.texts[key] for one in summaries}
    panels[0].set_yticks(range(len(rows)), [texts[name] for name in rows], parse_math=False)
    # The best is the first row.
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    panels[0].set_ylabel(key)
    return figure


def _rank_options(key: str, summaries: Sequence[Summary]) -> dict[str, tuple[int, list[Summary]]]:
    """Option -> its row and its configurations, the highest mean accuracy first."""
    groups: dict[str, list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(format_value(summary.configuration.swept[key]), []).append(summary)

    def mean_accuracy(name: str) -> float:
        return math.fsum(one.estimates["routing_accuracy"].value for one in groups[name]) / len(groups[name])

    ranked = sorted(groups, key=mean_accuracy, reverse=True)
    return {name: (row, groups[name]) for row, name in enumerate(ranked)}


class _NumberAxis:
    """Where numbers lie on the horizontal axis."""

    def __init__(self, values: Sequence[float]) -> None:
        self.numbers = sorted(set(values))
        low, high = self.numbers[0], self.numbers[-1]
        # A logarithm needs positive values; within one decade it helps little.
        self.is_log = low > 0 and high > 10 * low

    def place(self, number: float, offset: float) -> float:
        """Return the position of a number, moved by `offset`, a share of the axis, so that error bars stay apart."""
        low, high = self.numbers[0], self.numbers[-1]
        # On a logarithmic axis equal distances are equal factors.
        return number * (high / low) ** offset if self.is_log else number + offset * (high - low)

    def finish(self, axes: Axes, key: str) -> None:
        """Label the axis: the values themselves where they are few."""
        axes.set_xlabel(key + (" (log scale)" if self.is_log else ""))
        if self.is_log:
            axes.set_xscale("log")
        # More values than these would not fit as ticks; matplotlib then chooses its own.
        if len(self.numbers) <= _MAX_TICKS:
            # A logarithmic axis would add ticks of its own between the values.
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(self.numbers, self._labels())

    def _labels(self) -> list[str]:
        """The numbers as texts; one that would touch another stands a line lower."""
        scaled = np.log(self.numbers) if self.is_log else np.array(self.numbers)
        inches = _AXIS_INCHES * (scaled - scaled[0]) / (scaled[-1] - scaled[0])
        labels, ends = [], [-math.inf] * len(self.numbers)
        for number, centre in zip(self.numbers, inches, strict=True):
            text = f"{number:g}"
            width = _CHAR_INCHES * (len(text) + 1)
            line = next(index for index, end in enumerate(ends) if centre - width / 2 >= end)
            ends[line] = centre + width / 2
            labels.append("\n" * line + text)
        return labels


def _series(key: str, summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Label -> the summaries that differ in nothing but `key`; the label holds the values of the other settings."""
    series: dict[str, list[Summary]] = {}
    for summary in summaries:
        others = {name: text for name, text in summary.configuration.texts.items() if name != key}
        name = " ".join(f"{name}={text}" for name, text in others.items())
        series.setdefault(plain_label(name), []).append(summary)
    return series


def _draw_lines(axes: Axes, axis: _NumberAxis, key: str, name: str, series: Mapping[str, Sequence[Summary]]) -> None:
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


def _draw_dots(axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], **style: Any) -> None:
    """Draw estimates with their intervals along horizontal rows; nothing joins them."""
    axes.errorbar(
        [estimate.value for estimate in estimates],
        places,
        xerr=bar_lengths(estimates),
        linestyle="",
        marker="o",
        markersize=4,
        capsize=2,
        elinewidth=1,
        **style,
    )


def _reference_lines(references: Sequence[ReferenceEstimates]) -> list[tuple[float, ReferenceStyle]]:
    """Routing accuracy and style of the references that are drawn as lines."""
    # The oracle's accuracy is always 1. Lines for several sets of queries could not be told apart.
    shown = [reference for reference in references if reference.key != "oracle"]
    if len({reference.name for reference in shown}) < len(shown):
        return []
    return [(one.estimates.routing_accuracy.value, reference_style(one.style_name)) for one in shown]
