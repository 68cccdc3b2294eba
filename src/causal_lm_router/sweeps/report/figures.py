"""The report's frontier, confusion matrix and learning curves: what is drawn of the configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal_lm_router.evaluation.figures.confusion import draw_confusion
from causal_lm_router.evaluation.figures.drawing import (
    GREY,
    LIGHT_GREY,
    MAX_COLOURS,
    ORANGE,
    line_colours,
    plain_label,
)
from causal_lm_router.evaluation.figures.frontier import RouterPoint, draw_frontier
from causal_lm_router.evaluation.figures.learning_curve import draw_series, running_mean, step_panels
from causal_lm_router.evaluation.measures.cost_quality import Points, pareto_front
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.summary import ReferenceEstimates, Selection, Summary


def draw_configurations(summaries: Sequence[Summary], references: Sequence[ReferenceEstimates]) -> Figure | None:
    """Return mean score against mean cost, a numbered point per configuration; None where no cost is known.

    The line is the Pareto front of best single and the configurations that are neither oracles nor silent: who calls
    nobody on most queries is cheap, but routes nothing. Of more than MAX_COLOURS configurations only those on the front
    have numbers and intervals.
    """
    priced = [one for one in summaries if "mean_cost" in one.estimates]
    if not priced:
        return None
    reachable = [_place(one.estimates) for one in priced if not (one.configuration.is_oracle or one.is_silent)]
    # Best single on other queries is no point of the same front.
    singles = [one.estimates for one in references if one.key == "best_single"]
    if len(singles) == 1 and singles[0].mean_cost is not None:
        reachable.append((singles[0].mean_cost.value, singles[0].mean_score.value))
    front = pareto_front(Points(*np.array(reachable).reshape(-1, 2).T)) if reachable else None
    on_front = set(zip(front.cost.tolist(), front.score.tolist(), strict=True)) if front else set()
    points = []
    for one in priced:
        point = RouterPoint(
            name="a configuration",
            cost=one.estimates["mean_cost"],
            score=one.estimates["mean_score"],
            number=one.configuration.number,
        )
        # An estimate without bounds is drawn without its interval.
        if len(priced) > MAX_COLOURS and _place(one.estimates) not in on_front:
            plain = {name: replace(estimate, low=None, high=None) for name, estimate in one.estimates.items()}
            point = replace(point, cost=plain["mean_cost"], score=plain["mean_score"], number=None)
        points.append(point)
    return draw_frontier(points, {one.style_name: one.estimates for one in references}, front=front)


def draw_chosen_confusion(chosen: Configuration) -> Figure:
    """Return the confusion matrix of the configuration, summed over its seeds with the same pool."""
    reports = [run.test.report for run in chosen.runs if run.test]
    # Seeds with other candidates have rows and columns that do not match.
    names = reports[0].candidate_names
    counts = [report.confusion for report in reports if report.candidate_names == names]
    summed = f"route (summed over {len(counts)} seeds)" if len(counts) > 1 else "route"
    return draw_confusion(names, np.sum(counts, axis=0), summed)


def draw_curves(configurations: Sequence[Configuration], selection: Selection | None) -> Figure | None:
    """Return training loss and validation metric by optimizer step, a line per configuration, mean over its seeds.

    With many configurations the first and the chosen one stand out from the others. None where nothing was logged.
    """
    metric = f"validation/{selection.metric if selection else 'mean_score'}"
    names = [name for name in ("train/loss", metric) if any(_mean_curve(one, name) for one in configurations)]
    if not names:
        return None
    chosen = selection.chosen.configuration if selection and selection.chosen else None
    figure, column = step_panels(len(names))
    for name, axes in zip(names, column, strict=True):
        _draw_panel(axes, name, configurations, chosen)
        axes.set_ylabel("training loss" if name == "train/loss" else metric.replace("/", " ").replace("_", " "))
        if name.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    # All panels have the same lines, so one legend below them is enough.
    handles, labels = column[0].get_legend_handles_labels()
    is_long = max(map(len, labels), default=0) > 45
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if is_long else 2, fontsize=8)
    return figure


def _place(estimates: Mapping[str, Any]) -> tuple[float, float]:
    return estimates["mean_cost"].value, estimates["mean_score"].value


def _draw_panel(axes: Axes, name: str, configurations: Sequence[Configuration], chosen: Configuration | None) -> None:
    is_crowded = len(configurations) > MAX_COLOURS
    # The chosen configuration stays orange where it is also the first.
    marked = {configurations[0].number: GREY} | ({chosen.number: ORANGE} if chosen else {})
    for one, colour in zip(configurations, line_colours(len(configurations)), strict=True):
        if not (curve := _mean_curve(one, name)):
            continue
        style: dict[str, Any] = {"color": colour, "label": plain_label(f"{one.number}: {one.name}"), "linewidth": 1.6}
        if is_crowded and one.number in marked:
            style |= {"color": marked[one.number], "zorder": 3}
        elif is_crowded:
            # A label that begins with `_` is left out of the legend.
            style |= {"color": LIGHT_GREY, "zorder": 1, "linewidth": 0.8, "label": "_"}
        shown = running_mean(curve)[0] if name == "train/loss" else curve
        draw_series(axes, shown, marker="" if len(shown) > 20 else "o", markersize=3, **style)


def _mean_curve(configuration: Configuration, name: str) -> Mapping[int, float]:
    """Mean over seeds at the steps that all seeds have."""
    curves = [run.curves[name] for run in configuration.runs if name in run.curves]
    steps = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {step: float(np.mean([curve[step] for curve in curves])) for step in steps}
