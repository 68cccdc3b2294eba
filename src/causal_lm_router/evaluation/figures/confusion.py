"""Confusion matrix: queries by label and route."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from causal_lm_router.data.arrays import Floats, Integers
from causal_lm_router.evaluation.figures.drawing import GREY, ORANGE
from causal_lm_router.evaluation.formatting import shorten_names


def draw_confusion(names: Sequence[str], counts: Integers, route_label: str = "route") -> Figure:
    """Return a drawing of how many queries of each label (rows) got each route (columns, parse failures last).

    `counts` has shape (candidates, candidates + 1), candidates in the order of `names`. The darker a cell, the larger
    its share of the row. Outlined cells are the routes that equal the label.
    """
    totals = counts.sum(axis=1)
    # A label without queries has an empty row.
    shares = counts / np.maximum(totals, 1)[:, None]
    size = len(counts)
    cell_inches = 0.6 if size <= 12 else 0.42
    # The cells fill the figure, so that their size is fixed; names and colour bar lie outside, and saving widens it.
    figure = Figure(figsize=(cell_inches * (size + 1), cell_inches * size))
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    _write_counts(axes, counts, shares)
    for index in range(size):
        # Above the grid, which would hide parts of the outline.
        axes.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=GREY, zorder=3))
    # The line sets parse failures apart from the candidates.
    axes.axvline(size - 0.5, color=ORANGE, linewidth=2)
    _label_cells(axes, shorten_names(names), [int(total) for total in totals])
    axes.set_xlabel(route_label)
    axes.set_ylabel("label (queries)")
    # The colour bar stands 0.3 inches right of the cells and is 0.2 inches wide; positions are shares of the figure.
    beside = figure.add_axes((1 + 0.3 / figure.get_figwidth(), 0, 0.2 / figure.get_figwidth(), 1))
    figure.colorbar(image, cax=beside, label="share of the label's queries", format=PercentFormatter(1))
    return figure


def _write_counts(axes: Axes, counts: Integers, shares: Floats) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)


def _label_cells(axes: Axes, names: Sequence[str], totals: Sequence[int]) -> None:
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    # With parse_math a dollar sign in a name would begin a formula.
    columns = [*names, "parse failure"]
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left", rotation_mode="anchor", parse_math=False)
    rows = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    # Minor ticks lie between the cells and carry the grid.
    axes.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
