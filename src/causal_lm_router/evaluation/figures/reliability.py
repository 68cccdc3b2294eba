"""Reliability: mean score of the answers in each bin of predicted score."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, ORANGE
from causal_lm_router.evaluation.intervals import Z_95
from causal_lm_router.evaluation.measures.calibration import expected_calibration_error, reliability

NUM_BINS = 15


def draw_reliability(scores: Floats, predicted: Floats, calibrated: Floats | None = None) -> Figure:
    """Return a drawing of mean score against mean prediction in 15 bins, and of the sizes of the bins.

    All arrays have shape (queries, candidates); the answers of all candidates share the bins. `calibrated` are the same
    predictions after temperature scaling, drawn beside them. Vertical bars are normal 95% intervals of the mean score,
    which treat the answers of a bin as independent: too narrow where candidates fail on the same queries.
    """
    series = [("predicted" if calibrated is None else "as predicted", BLUE, predicted)]
    if calibrated is not None:
        series.append(("after temperature scaling", ORANGE, calibrated))
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
    for index, (name, colour, values) in enumerate(series):
        label = f"{name}: ECE {expected_calibration_error(scores, values, NUM_BINS):.3f}"
        _draw_means(axes, scores, values, label, colour)
        _draw_counts(below, scores, values, colour, index / len(series), 1 / len(series))
    axes.set_ylabel("mean score of the answers in a bin")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    num_queries, num_candidates = scores.shape
    axes.set_title(f"{scores.size:,} predictions ({num_queries:,} queries x {num_candidates} candidates)", fontsize=10)
    axes.legend(loc="best", fontsize=9)
    below.set_xlabel("predicted score")
    below.set_ylabel("predictions")
    for panel in (axes, below):
        panel.grid(alpha=0.3)
    return figure


def _draw_means(axes: Axes, scores: Floats, predicted: Floats, label: str, colour: str) -> None:
    bins = reliability(scores, predicted, NUM_BINS)
    axes.plot(*_known(bins.mean_predicted, bins.mean_score), "o-", color=colour, label=label, markersize=5)
    # Variance within a bin: mean of squares minus square of the mean, which rounding may leave below 0.
    squares = reliability(scores**2, predicted, NUM_BINS).mean_score
    # Bins of one answer divide by 0: their spread is NaN, and they are left out below.
    with np.errstate(divide="ignore", invalid="ignore"):
        halves = Z_95 * np.sqrt(np.maximum(0.0, squares - bins.mean_score**2) / (bins.num_pairs - 1))
    lows, highs = np.maximum(0.0, bins.mean_score - halves), np.minimum(1.0, bins.mean_score + halves)
    places, lows, highs = _known(bins.mean_predicted, lows, highs)
    axes.vlines(places, lows, highs, color=colour, alpha=0.5)


def _draw_counts(axes: Axes, scores: Floats, predicted: Floats, colour: str, offset: float, share: float) -> None:
    counts = reliability(scores, predicted, NUM_BINS).num_pairs
    # Bars of all series stand side by side within nine tenths of a bin.
    width = 0.9 * share / NUM_BINS
    lefts = (np.arange(NUM_BINS) + 0.05 + 0.9 * offset) / NUM_BINS
    axes.bar(lefts, counts, width, align="edge", color=colour, alpha=0.6)


def _known(*columns: Floats) -> list[Floats]:
    """The rows without NaN: empty bins have no mean, a single answer has no spread."""
    is_known = ~np.isnan(np.stack(columns)).any(axis=0)
    return [column[is_known] for column in columns]
