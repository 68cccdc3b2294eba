"""Frontier: the scores that routers, references and candidates get at their costs."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.drawing import (
    GREY,
    ORANGE,
    USD,
    bar_lengths,
    plain_label,
    reference_style,
)
from causal_lm_router.evaluation.formatting import shorten_names
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.measures.cost_quality import Points, candidate_points, convex_hull, trade_offs
from causal_lm_router.evaluation.outcome_table import OutcomeTable
from causal_lm_router.evaluation.report import Reference, RoutingReport

_COLOURS = [colormaps["tab10"](index) for index in (0, 2, 4, 5, 6, 8, 9)]
_MARKERS = "oPX*<>p"
# More names than these leave no room for the drawing; the corners of the hull come first.
_MAX_NAMED = 20
# Where a number may stand beside its point, in points of print, and at which distance from others it can be read.
_FREE = 11.0
_PLACES = [(6, 7), (-6, 7), (9, -3), (-9, -3), (0, 9), (0, -9), (7, -8), (-7, -8), (17, 0), (-17, 0), (0, 18), (0, -18)]


@dataclass(frozen=True, kw_only=True)
class RouterPoint:
    """A router in the drawing."""

    name: str
    """Its entry in the legend; routers of one name share entry and colour."""
    cost: Estimate
    """USD per query."""
    score: Estimate
    number: int | None = None
    """Written beside the point."""
    trade_off: Points | None = None
    """Costs and scores that the router reaches by weighing predictions against costs, drawn as a line."""


def run_point(name: str, report: RoutingReport, table: OutcomeTable | None = None) -> RouterPoint:
    """Return the point of an evaluated router, with its trade-off where `table` holds costs and predictions.

    Raises:
        ValueError: the report has no costs.
    """
    if report.mean_cost is None:
        raise ValueError(f"{name}: the costs of its queries must be known for a frontier")
    trade_off = None
    if table is not None and table.costs is not None and table.predicted is not None:
        # The router is told what a call of each candidate costs on average over these queries.
        trade_off = trade_offs(table.scores, table.costs, table.predicted, table.costs.mean(axis=0)).points()
    return RouterPoint(name=name, cost=report.mean_cost, score=report.mean_score, trade_off=trade_off)


def draw_frontier(
    routers: Sequence[RouterPoint],
    references: Mapping[str, Reference],
    *,
    candidates: OutcomeTable | None = None,
    front: Points | None = None,
) -> Figure:
    """Return a drawing of mean score against mean cost, the cost on a logarithmic scale where it spans over a decade.

    Routers have 95% intervals. References without costs are left out. `candidates` adds the point of always calling
    each candidate, and their non-decreasing convex hull, which choosing between two of them at random reaches. `front`
    is a line through the points that no other beats.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots()
    priced = {name: reference for name, reference in references.items() if reference.mean_cost is not None}
    singles = None
    if candidates is not None and candidates.costs is not None:
        singles = candidate_points(candidates.scores, candidates.costs)
    costs = _all_costs(routers, priced, singles)
    _set_scale(axes, costs)
    handles = [*_draw_routers(axes, routers), *_draw_references(axes, priced)]
    if front is not None:
        handles += axes.plot(USD * front.cost, front.score, color=GREY, zorder=1, label="Pareto front")
    if candidates is not None and singles is not None:
        handles += _draw_singles(axes, candidates.candidate_names, singles, max(costs))
    # Numbers come last: which places are free depends on the limits of the axes.
    places = np.array([_place(router) for router in routers])
    numbers = {index: router.number for index, router in enumerate(routers) if router.number is not None}
    _draw_numbers(axes, places[:, 0], places[:, 1], numbers)
    axes.set_xlabel("mean cost, USD per 1,000 queries")
    axes.set_ylabel("mean score")
    axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure


def _all_costs(
    routers: Sequence[RouterPoint], references: Mapping[str, Reference], singles: Points | None
) -> list[float]:
    estimates = [router.cost for router in routers] + [reference.mean_cost for reference in references.values()]
    lines = [router.trade_off for router in routers] + [singles]
    costs = [estimate.value for estimate in estimates if estimate is not None]
    return costs + [float(cost) for line in lines if line is not None for cost in line.cost]


def _set_scale(axes: Axes, costs: Sequence[float]) -> None:
    above_zero = [cost for cost in costs if cost > 0]
    if not above_zero or max(above_zero) <= 10 * min(above_zero):
        return
    if len(above_zero) == len(costs):
        axes.set_xscale("log")
    else:
        # A router that calls no LLM at all costs nothing, which has no logarithm.
        axes.set_xscale("symlog", linthresh=USD * min(above_zero), linscale=0.3)
    # Where the costs span few decades, the numbers between them help; labels of all ten steps would run together.
    if len(above_zero) == len(costs) and max(above_zero) <= 1000 * min(above_zero):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_routers(axes: Axes, routers: Sequence[RouterPoint]) -> list[Line2D]:
    """Points with intervals; returns an entry of the legend per name, and one for the trade-offs."""
    names = list(dict.fromkeys(router.name for router in routers))
    # Every colour comes once before markers change.
    looks = zip([marker for marker in _MARKERS for _ in _COLOURS], _COLOURS * len(_MARKERS), strict=True)
    styles = dict(zip(names, itertools.cycle(looks), strict=False))
    for router in routers:
        marker, colour = styles[router.name]
        if router.trade_off:
            axes.plot(USD * router.trade_off.cost, router.trade_off.score, color=colour, alpha=0.7, linewidth=1.5)
        place, bars = _place(router), (bar_lengths([router.score]), bar_lengths([router.cost], USD))
        axes.errorbar(*place, *bars, color=colour, alpha=0.4, zorder=4)
        axes.plot(*place, marker, color=colour, markersize=8, markeredgecolor="white", zorder=5)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=plain_label(shown))
        for shown, (marker, colour) in zip(shorten_names(names), styles.values(), strict=True)
    ]
    if any(router.trade_off for router in routers):
        line_colour = _COLOURS[0] if len(names) == 1 else GREY
        handles.append(Line2D([], [], color=line_colour, label="highest predicted score - λ x mean cost"))
    return handles


def _place(router: RouterPoint) -> tuple[float, float]:
    return USD * router.cost.value, router.score.value


def _draw_references(axes: Axes, references: Mapping[str, Reference]) -> list[Line2D]:
    handles = []
    for name, reference in references.items():
        style = reference_style(name)
        assert reference.mean_cost is not None
        place = (USD * reference.mean_cost.value, reference.mean_score.value)
        axes.plot(*place, style.marker, color=ORANGE, zorder=3)
        handles.append(Line2D([], [], color=ORANGE, marker=style.marker, linestyle="", label=style.label))
    return handles


def _draw_singles(axes: Axes, names: Sequence[str], singles: Points, dearest: float) -> list[Line2D]:
    """Grey points, numbered from the cheapest up, and their hull; the legend has the names."""
    hull = convex_hull(singles)
    axes.plot(*_hull_line(hull, dearest), color=GREY, linestyle=":", linewidth=1.2, zorder=1)
    axes.plot(USD * singles.cost, singles.score, "o", color=GREY, markersize=4, zorder=2)
    # Corners of the hull are named first, then the highest scores.
    corners = set(zip(hull.cost.tolist(), hull.score.tolist(), strict=True))
    by_cost = np.lexsort((singles.score, singles.cost)).tolist()
    is_corner = {column: (singles.cost[column], singles.score[column]) in corners for column in by_cost}
    first = sorted(by_cost, key=lambda column: (not is_corner[column], -singles.score[column]))[:_MAX_NAMED]
    named = [column for column in by_cost if column in first]
    _draw_numbers(axes, USD * singles.cost, singles.score, dict(zip(named, range(1, len(named) + 1), strict=True)))
    handles = [Line2D([], [], color=GREY, linestyle=":", label="mixing two candidates at random")]
    for number, name in enumerate(shorten_names([names[column] for column in named]), start=1):
        label = f"{number} always {plain_label(name)}"
        handles.append(Line2D([], [], color=GREY, marker="o", markersize=4, linestyle="", label=label))
    return handles


def _hull_line(hull: Points, dearest: float) -> tuple[Floats, Floats]:
    """The hull on to the dearest point, in small steps: its straight lines are curves on a logarithmic scale."""
    low, high = float(hull.cost[0]), max(dearest, float(hull.cost[-1]))
    steps = [hull.cost, np.linspace(low, high, 100)] + ([np.geomspace(low, high, 100)] if low > 0 else [])
    costs = np.unique(np.concatenate(steps))
    return USD * costs, np.interp(costs, hull.cost, hull.score)


def _draw_numbers(axes: Axes, costs: Floats, scores: Floats, numbers: Mapping[int, int]) -> None:
    """Write numbers beside the points with these indices, each in the first place that is free, else in the freest."""
    axes.autoscale_view()
    points = _in_print(axes, np.column_stack([costs, scores]))
    taken = _taken_places(axes)
    for index, number in numbers.items():
        places = points[index] + _PLACES
        # Distance of each place from the nearest mark or number, the numbered point itself left out.
        others = taken[np.abs(taken - points[index]).max(axis=1) > 0.01]
        gaps = np.linalg.norm(places[:, None] - others, axis=2).min(axis=1, initial=_FREE)
        # What lies below the axis is its labels.
        gaps[places[:, 1] < axes.bbox.y0 * 72 / axes.figure.dpi + 4] = 0
        best = int(gaps.argmax())
        taken = np.vstack([taken, places[best]])
        at = (costs[index], scores[index])
        text = axes.annotate(str(number), at, _PLACES[best], textcoords="offset points", fontsize=8)
        # The white edge keeps a number readable on a line.
        text.set(ha="center", va="center", zorder=6, path_effects=[withStroke(linewidth=2, foreground="white")])


def _taken_places(axes: Axes) -> Floats:
    """Where marks and numbers are on the axes: a number drawn over one of them would hide it."""
    marks = [line.get_xydata() for line in axes.get_lines() if line.get_marker() not in ("", "None", None)]
    written = [_in_print(axes, np.array([text.xy])) + text.xyann for text in axes.texts if isinstance(text, Annotation)]
    return np.vstack([*(_in_print(axes, np.asarray(mark)) for mark in marks), *written])


def _in_print(axes: Axes, places: Floats) -> Floats:
    """Places in points of print: what a reader sees does not depend on the scales of the axes."""
    return np.asarray(axes.transData.transform(places) * 72 / axes.figure.dpi)
