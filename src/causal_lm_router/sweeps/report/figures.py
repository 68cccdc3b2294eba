"""The report's figures but for those of swept settings: frontier, confusion, learning curves; saved as PNG and PDF."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal_lm_router.evaluation import intervals
from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, ORANGE, plain_label, shorten_names
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.summary import ReferenceEstimates, Selection, Summary

# More lines than this cannot be told apart by colour.
MAX_COLOURS = 8
_BASELINE_STYLES = {"best_single": (":", "D"), "random": ("-.", "v"), "oracle": ("--", "^"), "bayes": ("--", "s")}


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `<name>.png` and `<name>.pdf` into the folder."""
    with warnings.catch_warnings():
        # Characters the font lacks are drawn as boxes: no reason to fail, or to write to the terminal, over a drawing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        # Without the date equal reports are equal files.
        figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})


def baseline_style(name: str) -> tuple[str, str]:
    """Return line style and marker of a baseline."""
    return _BASELINE_STYLES[name.split(" ")[0]]


def line_colours(number: int) -> list[tuple[float, float, float, float]]:
    """Return as many colours, dark to light, that differ in print too."""
    return [colormaps["viridis"](position) for position in np.linspace(0, 0.88, number)]


def draw_frontier(summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure | None:
    """Return mean score against mean cost, a numbered point per configuration; None where no cost is known.

    The line is the Pareto front of configurations, oracles left out, and best single: no other of them scores higher
    for as little.
    """
    priced = [one for one in summaries if "mean_cost" in one.figures]
    points = [(one.figures["mean_cost"], one.figures["mean_score"]) for one in priced]
    numbers = [one.configuration.number for one in priced]
    if not points:
        return None
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    reachable = [
        (cost.value, score.value)
        for one, (cost, score) in zip(priced, points, strict=True)
        if not one.configuration.is_oracle
    ]
    names = [reference.name for reference in references]
    for reference in references:
        if (cost := reference.figures.mean_cost) is None:
            continue
        place = (cost.value, reference.figures.mean_score.value)
        label = plain_label(shorten_names([reference.name])[0])
        axes.plot(1000 * place[0], place[1], baseline_style(reference.name)[1], color=GREY, label=label, markersize=8)
        # Best single on other queries is no point of the same front.
        reachable += [place] if reference.name.startswith("best_single") and names.count(reference.name) == 1 else []
    front = pareto_front(reachable)
    axes.plot([1000 * x for x, _ in front], [y for _, y in front], color=ORANGE, label="Pareto front", zorder=1)
    _draw_configurations(axes, numbers, points, front)
    _finish_frontier(axes, [x for x, _ in reachable])
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, score) points that no other beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def draw_confusion(chosen: Configuration) -> Figure:
    """Return how many queries of each label (rows) got each route (columns), summed over seeds with the same pool."""
    tests = [run.test for run in chosen.runs if run.test]
    names = tests[0].report.candidate_names
    counts = np.sum([test.report.confusion for test in tests if test.report.candidate_names == names], axis=0)
    shares = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    shown = shorten_names(names)
    figure = Figure(figsize=(2.5 + 0.6 * len(names), 2.2 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    columns = [*shown, "parse failure"]
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    axes.axvline(len(shown) - 0.5, color=ORANGE)
    axes.set_xlabel(f"route (queries, summed over {len(tests)} seed{'s' * (len(tests) > 1)})")
    axes.set_ylabel("label")
    return figure


def draw_curves(configurations: Sequence[Configuration], selection: Selection | None) -> Figure | None:
    """Return training loss and validation metric by optimizer step, a line per configuration, mean over its seeds.

    With many configurations the first and the chosen one stand out from the others. None where nothing was logged.
    """
    metric = f"validation/{selection.metric if selection else 'mean_score'}"
    panels = [name for name in ("train/loss", metric) if any(_mean_curve(one, name) for one in configurations)]
    if not panels:
        return None
    chosen = selection.chosen.configuration if selection and selection.chosen else None
    figure = Figure(figsize=(8, 1.2 + 2.8 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for name, axes in zip(panels, column, strict=True):
        _draw_panel(axes, name, configurations, chosen)
        axes.set_ylabel("training loss" if name == "train/loss" else metric.replace("/", " ").replace("_", " "))
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    column[-1].set_xlabel("optimizer step")
    handles, labels = column[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if _are_long(labels) else 2, fontsize=8)
    return figure


def _draw_configurations(
    axes: Axes,
    numbers: Sequence[int],
    points: Sequence[tuple[intervals.Estimate, intervals.Estimate]],
    front: Sequence[tuple[float, float]],
) -> None:
    """Points with intervals and numbers, right and left in turn by score; of many points the front alone has them."""
    in_order = sorted(zip(numbers, points, strict=True), key=lambda item: item[1][1].value)
    for index, (number, (cost, score)) in enumerate(in_order):
        place = (1000 * cost.value, score.value)
        axes.plot(*place, "o", color=BLUE, zorder=3, label="" if index else "a configuration")
        if len(points) > MAX_COLOURS and (cost.value, score.value) not in front:
            continue
        axes.errorbar(*place, _bar(score, 1), _bar(cost, 1000), color=BLUE, alpha=0.35)
        offset, side = ((5, 3), "left") if index % 2 else ((-5, 3), "right")
        axes.annotate(str(number), place, offset, textcoords="offset points", ha=side, fontsize=9)


def _bar(figure: intervals.Estimate, scale: float) -> list[list[float]] | None:
    if figure.low is None or figure.high is None:
        return None
    return [[scale * max(0.0, figure.value - figure.low)], [scale * max(0.0, figure.high - figure.value)]]


def _finish_frontier(axes: Axes, costs: Sequence[float]) -> None:
    known = [cost for cost in costs if cost > 0]
    if len(known) == len(costs) and max(known) > 10 * min(known):
        axes.set_xscale("log")
    axes.set_xlabel("mean cost, USD per 1,000 queries")
    axes.set_ylabel("mean score")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), loc="best", fontsize=8)


def _draw_panel(axes: Axes, name: str, configurations: Sequence[Configuration], chosen: Configuration | None) -> None:
    is_crowded = len(configurations) > MAX_COLOURS
    marked = {id(configurations[0]): GREY, id(chosen): ORANGE}
    colours = line_colours(len(configurations))
    for one, colour in zip(configurations, colours, strict=True):
        if not (curve := _mean_curve(one, name)):
            continue
        steps = sorted(curve)
        values = _smooth([curve[step] for step in steps]) if name == "train/loss" else [curve[step] for step in steps]
        is_marked = id(one) in marked
        style: dict[str, Any] = {"color": colour, "label": plain_label(f"{one.number}: {one.name}"), "linewidth": 1.6}
        if is_crowded:
            style |= {"color": marked.get(id(one), "#cccccc"), "zorder": 3 if is_marked else 1}
            style |= {} if is_marked else {"linewidth": 0.8, "label": "_"}
        axes.plot(steps, values, marker="" if len(steps) > 20 else "o", markersize=3, **style)


def _mean_curve(configuration: Configuration, name: str) -> Mapping[int, float]:
    """Mean over seeds at the steps that all seeds have."""
    curves = [run.curves[name] for run in configuration.runs if name in run.curves]
    steps = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {step: float(np.mean([curve[step] for curve in curves])) for step in steps}


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over a twentieth of the values up to each: a single batch's loss says little."""
    window = max(1, len(values) // 20)
    return [float(np.mean(values[max(0, index + 1 - window) : index + 1])) for index in range(len(values))]


def _are_long(labels: Sequence[str]) -> bool:
    return max((len(label) for label in labels), default=0) > 45
