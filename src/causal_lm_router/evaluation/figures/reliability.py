"""Reliability: mean score of the answers in each bin of predicted score."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, ORANGE
from causal_lm_router.evaluation.interval_formulas import LEVEL, share_interval
from causal_lm_router.evaluation.measures.calibration import (
    are_choices,
    bin_numbers,
    expected_calibration_error,
    reliability,
)

NUM_BINS = 15


def draw_reliability(scores: Floats, predicted: Floats, calibrated: Floats | None = None) -> Figure:
    """Return a drawing of mean score against mean prediction in 15 bins, and of the sizes of the bins.

    All arrays have shape (queries, candidates); the answers of all candidates share the bins. `calibrated` are the same
    predictions after temperature scaling, drawn beside them. Vertical bars are 95% intervals of the mean score over
    queries.
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
    below.set_xlabel("probability to choose, no predicted score" if are_choices(predicted) else "predicted score")
    below.set_ylabel("predictions")
    for panel in (axes, below):
        panel.grid(alpha=0.3)
    return figure


def _draw_means(axes: Axes, scores: Floats, predicted: Floats, label: str, colour: str) -> None:
    bins = reliability(scores, predicted, NUM_BINS)
    axes.plot(*_known(bins.mean_predicted, bins.mean_score), "o-", color=colour, label=label, markersize=5)
    bounds = [_bin_interval(scores, predicted, number) for number in range(NUM_BINS)]
    places, lows, highs = _known(bins.mean_predicted, *np.array(bounds).T)
    axes.vlines(places, lows, highs, color=colour, alpha=0.5)


def _bin_interval(scores: Floats, predicted: Floats, number: int) -> tuple[float, float]:
    """The interval of a bin's mean score; NaN where fewer than two queries are in it."""
    is_in = bin_numbers(predicted, NUM_BINS) == number
    # A query's answers count together: candidates fail on the same queries.
    sizes = is_in.sum(axis=1)
    num_queries = int((sizes > 0).sum())
    if num_queries < 2:
        return np.nan, np.nan
    mean = scores[is_in].mean()
    residuals = np.where(is_in, scores - mean, 0.0).sum(axis=1)
    variance = (residuals**2).sum() / sizes.sum() ** 2 * num_queries / (num_queries - 1)
    low, high = share_interval(np.array(mean), np.array(variance), num_queries)(LEVEL)
    return float(low), float(high)


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
