"""Routes by task: the candidates that a router chose on each task, beside the best candidates there."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from causal_lm_router.data.arrays import Bools, Floats
from causal_lm_router.evaluation.figures.drawing import LIGHT_GREY, ORANGE, Colour, plain_label
from causal_lm_router.evaluation.formatting import count, shorten_names
from causal_lm_router.evaluation.outcome_table import NOBODY, OutcomeTable

# More colours than these cannot be told apart. Parse failures are orange and all other candidates grey.
_COLOURS = [colormaps["tab20"](index) for index in (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19)]


def draw_routes_by_task(table: OutcomeTable, best_single: str, max_tasks: int = 40) -> Figure:
    """Return a drawing of the shares of routes: over all queries, then for each task.

    Of more than `max_tasks` tasks those with most queries have a row each, and the others one together; the title says
    so. The wide bar is the router's; parse failures are its orange end. The narrow bar below shows the best candidates
    of each query, a query with several of them split evenly. The legend marks best single. Of more than 16 candidates
    those with the smallest shares are drawn as one.
    """
    routed, best = _route_weights(table), _best_weights(table)
    groups = _task_rows(table.tasks, max_tasks)
    colours = dict(zip(_coloured(routed, best), _COLOURS, strict=False))
    figure = Figure(figsize=(10.5, 1.6 + 0.46 * len(groups)), layout="constrained")
    axes = figure.subplots()
    # The two bars of a group share the space around its tick.
    places = np.arange(len(groups), dtype=np.float64)
    _draw_bars(axes, places - 0.14, 0.5, _mean_rows(routed, groups), colours)
    _draw_bars(axes, places + 0.27, 0.22, _mean_rows(best, groups), colours)
    _label_groups(axes, groups, len(set(table.tasks)), max_tasks)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of queries")
    handles = _legend(table.candidate_names, best_single, colours, bool(routed[:, -1].any()))
    title = "wide bar: routes\nnarrow bar: best candidates (ties split)"
    figure.legend(handles=handles, title=title, alignment="left", loc="outside right upper", fontsize=9)
    return figure


def _label_groups(axes: Axes, groups: Sequence[tuple[str, Bools]], num_tasks: int, max_tasks: int) -> None:
    names = shorten_names([task for task, _ in groups], 36)
    ticks = [f"{name} ({rows.sum():,})" for name, (_, rows) in zip(names, groups, strict=True)]
    axes.set_yticks(range(len(groups)), ticks, parse_math=False)
    # The first group is at the top.
    axes.set_ylim(len(groups) - 0.5, -0.5)
    if len(groups) > 1:
        axes.axhline(0.5, color="black", linewidth=0.8)
        axes.set_ylabel("tasks (number of queries)")
        all_shown = f"all {num_tasks:,} tasks"
        largest = f"{count(max_tasks, 'task', 'tasks')} with most queries, of {num_tasks:,}"
        axes.set_title(all_shown if num_tasks <= max_tasks else largest, loc="left", fontsize=10)


def _route_weights(table: OutcomeTable) -> Floats:
    """A row per query with a 1 in the column of its route, parse failures last."""
    num_queries, num_candidates = table.scores.shape
    weights = np.zeros((num_queries, num_candidates + 1))
    weights[np.arange(num_queries), np.where(table.routes == NOBODY, num_candidates, table.routes)] = 1
    return weights


def _best_weights(table: OutcomeTable) -> Floats:
    """A row per query with equal weights, 1 together, in the columns of its best candidates; no parse failures."""
    shares = table.is_best / table.is_best.sum(axis=1, keepdims=True)
    return np.column_stack([shares, np.zeros(len(shares))])


def _task_rows(tasks: Sequence[str], max_tasks: int) -> list[tuple[str, Bools]]:
    """Name and rows of all queries, then of each task, the largest first, then of all smaller ones together.

    A single task is all queries.
    """
    by_size = sorted(Counter(tasks).items(), key=lambda item: (-item[1], item[0]))
    of_query = np.array(tasks, dtype=object)
    groups = [("all queries", np.ones(len(tasks), dtype=bool))]
    if len(by_size) > 1:
        groups += [(task, of_query == task) for task, _ in by_size[:max_tasks]]
    if others := [task for task, _ in by_size[max_tasks:]]:
        groups.append((count(len(others), "other task", "other tasks"), np.isin(of_query, others)))
    return groups


def _mean_rows(weights: Floats, groups: Sequence[tuple[str, Bools]]) -> Floats:
    return np.array([weights[rows].mean(axis=0) for _, rows in groups], dtype=np.float64)


def _coloured(routed: Floats, best: Floats) -> list[int]:
    """Columns, in pool order, of the candidates with their own colour: most often routed to, then most often best."""
    ranked = sorted(range(routed.shape[1] - 1), key=lambda column: (-routed[:, column].sum(), -best[:, column].sum()))
    return sorted(ranked[: len(_COLOURS)])


def _draw_bars(axes: Axes, places: Floats, height: float, shares: Floats, colours: Mapping[int, Colour]) -> None:
    """A bar per row of `shares`: candidates with a colour, then the others together, then parse failures."""
    own = [(shares[:, column], colour) for column, colour in colours.items()]
    rest = shares[:, [column for column in range(shares.shape[1] - 1) if column not in colours]].sum(axis=1)
    left = np.zeros(len(shares))
    # Every segment starts where the one before it ends.
    for widths, colour in [*own, (rest, LIGHT_GREY), (shares[:, -1], ORANGE)]:
        seen = widths > 0
        bars = axes.barh(places[seen], widths[seen], height, left=left[seen], color=colour)
        for bar in bars:
            bar.set(edgecolor="white", linewidth=0.5)
        left = left + widths


def _legend(names: Sequence[str], best_single: str, colours: Mapping[int, Colour], has_failures: bool) -> list[Patch]:
    shown = [plain_label(name) for name in shorten_names(names)]
    marks = [" (best single)" if name == best_single else "" for name in names]
    handles = [Patch(color=colour, label=shown[column] + marks[column]) for column, colour in colours.items()]
    if len(names) > len(colours):
        handles.append(Patch(color=LIGHT_GREY, label=f"{len(names) - len(colours)} more"))
    return [*handles, Patch(color=ORANGE, label="parse failure")] if has_failures else handles
