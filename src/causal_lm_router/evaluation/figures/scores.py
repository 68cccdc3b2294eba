"""Distribution of scores of the router, best single and the oracle, and of the scores predicted per candidate."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.drawing import (
    BLUE,
    GREY,
    LIGHT_GREY,
    ORANGE,
    reference_style,
)
from causal_lm_router.evaluation.formatting import shorten_names
from causal_lm_router.evaluation.outcome_table import OutcomeTable

# More candidates than these make the drawing too tall to be read beside the other.
MAX_CANDIDATES = 20


def draw_score_distribution(table: OutcomeTable, best_single: str) -> Figure:
    """Return a drawing of the share of queries (height) with at least a score (across): router, best single, oracle.

    The area under a line is the mean score. The bar below is the share of queries on which the router's LLM scores
    higher than best single, as high, and lower. Where the router predicts, a second column shows per candidate the
    quartiles (box) and the 5% and 95% quantiles (line) of the predicted scores, and the mean score it got; of more than
    MAX_CANDIDATES it shows those with the highest predictions.
    """
    if table.predicted is None:
        figure = Figure(figsize=(5.8, 5), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(7, 1))
    else:
        # A line of text per candidate.
        height = max(5, 1.6 + 0.27 * min(len(table.candidate_names), MAX_CANDIDATES))
        figure = Figure(figsize=(11.6, height), layout="constrained")
        panels = figure.subplot_mosaic([["above", "beside"], ["below", "beside"]], height_ratios=(7, 1))
        above, below = panels["above"], panels["below"]
        _draw_predicted(panels["beside"], table, table.predicted)
    single = table.scores[:, table.candidate_names.index(best_single)]
    _draw_scores(above, table, single)
    _draw_gains(below, table.score - single)
    return figure


def survival(values: Floats) -> tuple[Floats, Floats]:
    """Return steps (x, share) over 0..1: between x[i - 1] and x[i] the share of values that are at least x[i]."""
    levels = np.unique(np.concatenate([[0.0], values, [1.0]]))
    # Values below a level come before it in sorted order.
    at_least = 1 - np.searchsorted(np.sort(values), levels, side="left") / len(values)
    return levels, np.asarray(at_least)


def _draw_scores(axes: Axes, table: OutcomeTable, single: Floats) -> None:
    oracle_style, single_style = reference_style("oracle"), reference_style("best_single")
    lines = (
        (oracle_style.label, table.scores.max(axis=1), {"color": GREY, "linestyle": oracle_style.line}),
        ("router", table.score, {"color": BLUE, "linewidth": 2.2}),
        (single_style.label, single, {"color": ORANGE, "linestyle": single_style.line}),
    )
    for name, values, style in lines:
        axes.step(*survival(values), where="pre", label=f"{name}, mean {values.mean():.3f}", **style)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("score")
    axes.set_ylabel("share of queries with at least this score")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9)


def _draw_gains(axes: Axes, gains: Floats) -> None:
    left = 0.0
    for text, share, colour in (
        ("higher", float((gains > 0).mean()), BLUE),
        ("equal", float((gains == 0).mean()), LIGHT_GREY),
        ("lower", float((gains < 0).mean()), ORANGE),
    ):
        axes.barh(0, share, left=left, color=colour)
        # The words do not fit into a narrower bar.
        if share > 0.12:
            text_colour = "black" if colour == LIGHT_GREY else "white"
            label = f"{text}\n{share:.0%}"
            axes.text(left + share / 2, 0, label, ha="center", va="center", fontsize=9, color=text_colour)
        left += share
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks([])
    axes.set_xlabel("share of queries by the router's score against best single's")


def _draw_predicted(axes: Axes, table: OutcomeTable, predicted: Floats) -> None:
    """Draw the candidates from the highest mean prediction down."""
    order = np.argsort(-predicted.mean(axis=0), kind="stable")[:MAX_CANDIDATES]
    places = np.arange(len(order))
    # Line, box and median from the outside in; each has a value per candidate.
    low, first, middle, third, high = np.quantile(predicted[:, order], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    axes.hlines(places, low, high, color=BLUE, alpha=0.5)
    axes.barh(places, third - first, 0.5, left=first, color=BLUE, alpha=0.45)
    axes.plot(middle, places, "|", color=BLUE, markersize=11, markeredgewidth=2, label="predicted score, median")
    axes.plot(table.scores[:, order].mean(axis=0), places, "D", color=ORANGE, markersize=5, label="mean score")
    axes.set_yticks(places, shorten_names([table.candidate_names[index] for index in order]), parse_math=False)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("predicted score (box: quartiles, line: 5% to 95%)")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=9, frameon=False)
