"""Frontier: which score a router, a reference or a candidate gets for which cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation import intervals
from causal_lm_router.evaluation.figures.drawing import GREY, ORANGE, plain_label, save_png, shorten_names
from causal_lm_router.evaluation.measures.cost_quality import Points, candidate_points, convex_hull, trade_offs
from causal_lm_router.evaluation.outcome_table import OutcomeTable
from causal_lm_router.evaluation.report import RoutingReport

_BASELINES = {
    "random": ("v", "random"),
    "best_single": ("D", "best single"),
    "oracle": ("^", "oracle"),
    "bayes": ("s", "best possible"),
}
_COLOURS = [colormaps["tab10"](index) for index in (0, 2, 4, 5, 6, 8, 9)]
_MARKERS = "oPX*<>p"
# More names than these leave no room for the drawing; the corners of the hull come first.
_MAX_NAMED = 20
_USD = 1000
"""Costs are drawn per 1,000 queries."""
# Where a number may stand beside its point, in points of print, and from which distance to others it can be read.
_FREE = 11.0
_PLACES = [(6, 7), (-6, 7), (9, -3), (-9, -3), (0, 9), (0, -9), (7, -8), (-7, -8), (17, 0), (-17, 0), (0, 18), (0, -18)]


def router_trade_off(table: OutcomeTable) -> Points:
    """Return the points of routing to argmax(predicted - lambda * cost), lambda from 0 to where cost alone counts.

    A candidate's cost is its mean over these queries. Costs and predictions must be known.
    """
    assert table.costs is not None and table.predicted is not None
    return trade_offs(table.scores, table.costs, table.predicted, table.costs.mean(axis=0)).points()


def save_frontier(
    reports: Mapping[str, RoutingReport], curves: Mapping[str, Points], table: OutcomeTable | None, path: Path
) -> None:
    """Write a PNG of mean score against mean cost, the cost on a logarithmic scale where it spans more than ten times.

    `reports` are the routers by name, all on the same queries, drawn with 95% intervals; the references are those of
    the first. `curves` are the trade-offs of the routers that predict. `table` gives the point of always calling each
    candidate and their non-decreasing convex hull, which mixing two of them by lot reaches; without it, or its costs,
    both are left out. Raises ValueError for a report without costs.
    """
    if unknown := [name for name, report in reports.items() if report.mean_cost is None]:
        raise ValueError(f"{unknown[0]}: the costs of its queries are unknown, a frontier needs them")
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots()
    singles = None if table is None or table.costs is None else candidate_points(table.scores, table.costs)
    costs = [*(cost for report in reports.values() for cost in _costs(report))]
    costs += [cost for points in (*curves.values(), *([singles] if singles else [])) for cost in points.cost.tolist()]
    _set_scale(axes, costs)
    handles = [*_draw_routers(axes, reports, curves), *_draw_references(axes, next(iter(reports.values())))]
    if table is not None and singles is not None:
        handles += _draw_singles(axes, table.candidate_names, singles, max(costs))
    axes.set_xlabel("mean cost, USD per 1,000 queries")
    axes.set_ylabel("mean score")
    axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    save_png(figure, path)


def _costs(report: RoutingReport) -> list[float]:
    figures = [report.mean_cost, *(reference.mean_cost for reference in report.references.values())]
    return [figure.value for figure in figures if figure is not None]


def _set_scale(axes: Axes, costs: Sequence[float]) -> None:
    above_zero = [cost for cost in costs if cost > 0]
    if not above_zero or max(above_zero) <= 10 * min(above_zero):
        return
    if len(above_zero) == len(costs):
        axes.set_xscale("log")
    else:
        # A router that calls no LLM at all costs nothing, which has no logarithm.
        axes.set_xscale("symlog", linthresh=_USD * min(above_zero), linscale=0.3)


def _draw_routers(axes: Axes, reports: Mapping[str, RoutingReport], curves: Mapping[str, Points]) -> list[Line2D]:
    handles = []
    for index, (name, shown) in enumerate(zip(reports, shorten_names(list(reports)), strict=True)):
        report, colour = reports[name], _COLOURS[index % len(_COLOURS)]
        marker = _MARKERS[index // len(_COLOURS) % len(_MARKERS)]
        assert report.mean_cost is not None
        if curve := curves.get(name):
            axes.plot(_USD * curve.cost, curve.score, color=colour, alpha=0.7, linewidth=1.5)
        place = (_USD * report.mean_cost.value, report.mean_score.value)
        axes.errorbar(
            *place, _bar(report.mean_score, 1), _bar(report.mean_cost, _USD), color=colour, alpha=0.6, zorder=4
        )
        axes.plot(*place, marker, color=colour, markersize=8, markeredgecolor="white", zorder=5)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=plain_label(shown)))
    if curves:
        line_colour = _COLOURS[0] if len(reports) == 1 else GREY
        handles.append(Line2D([], [], color=line_colour, label="highest predicted - λ mean cost"))
    return handles


def _draw_references(axes: Axes, report: RoutingReport) -> list[Line2D]:
    handles = []
    for name, reference in report.references.items():
        if reference.mean_cost is not None:
            marker, text = _BASELINES[name]
            axes.plot(_USD * reference.mean_cost.value, reference.mean_score.value, marker, color=ORANGE, zorder=3)
            handles.append(Line2D([], [], color=ORANGE, marker=marker, linestyle="", label=text))
    return handles


def _draw_singles(axes: Axes, names: Sequence[str], singles: Points, dearest: float) -> list[Line2D]:
    """Grey points, numbered from the cheapest up, and their hull; the legend has the names."""
    hull = convex_hull(singles)
    axes.plot(*_hull_line(hull, dearest), color=GREY, linestyle=":", linewidth=1.2, zorder=1)
    axes.plot(_USD * singles.cost, singles.score, "o", color=GREY, markersize=4, zorder=2)
    corners = set(zip(hull.cost.tolist(), hull.score.tolist(), strict=True))
    by_cost = np.lexsort((singles.score, singles.cost)).tolist()
    is_corner = {column: (singles.cost[column], singles.score[column]) in corners for column in by_cost}
    first = sorted(by_cost, key=lambda column: (not is_corner[column], -singles.score[column]))[:_MAX_NAMED]
    named = [column for column in by_cost if column in first]
    _draw_numbers(axes, _USD * singles.cost, singles.score, named)
    handles = [Line2D([], [], color=GREY, linestyle=":", label="mixing two candidates")]
    for number, name in enumerate(shorten_names([names[column] for column in named]), start=1):
        label = f"{number} always {plain_label(name)}"
        handles.append(Line2D([], [], color=GREY, marker="o", markersize=4, linestyle="", label=label))
    return handles


def _hull_line(hull: Points, dearest: float) -> tuple[Floats, Floats]:
    """The hull on to the dearest point, in small steps: its straight lines are curves on a logarithmic scale."""
    low, high = float(hull.cost[0]), max(dearest, float(hull.cost[-1]))
    steps = [hull.cost, np.linspace(low, high, 100)] + ([np.geomspace(low, high, 100)] if low > 0 else [])
    costs = np.unique(np.concatenate(steps))
    return _USD * costs, np.interp(costs, hull.cost, hull.score)


def _draw_numbers(axes: Axes, costs: Floats, scores: Floats, named: Sequence[int]) -> None:
    """Write 1, 2, ... beside the named points, each in the first place that is free, or else in the freest."""
    axes.autoscale_view()
    points = axes.transData.transform(np.column_stack([costs, scores])) * 72 / axes.figure.dpi
    taken = points
    for number, column in enumerate(named, start=1):
        places = points[column] + _PLACES
        gaps = np.linalg.norm(places[:, None] - np.delete(taken, column, axis=0), axis=2).min(axis=1, initial=_FREE)
        # What lies below the axis is its labels.
        gaps[places[:, 1] < axes.bbox.y0 * 72 / axes.figure.dpi + 4] = 0
        best = int(gaps.argmax())
        taken = np.vstack([taken, places[best]])
        at = (costs[column], scores[column])
        text = axes.annotate(str(number), at, _PLACES[best], textcoords="offset points", fontsize=8)
        text.set(ha="center", va="center")


def _bar(figure: intervals.Estimate, scale: float) -> list[list[float]] | None:
    if figure.low is None or figure.high is None:
        return None
    return [[scale * (figure.value - figure.low)], [scale * (figure.high - figure.value)]]
