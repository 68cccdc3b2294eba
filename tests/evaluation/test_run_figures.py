"""Confusion matrix and learning curve: the numbers and names drawn, and that any pool and any log can be drawn."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from causal_lm_router.evaluation.figures.confusion import draw_confusion
from causal_lm_router.evaluation.figures.drawing import (
    bar_lengths,
    reference_style,
    save_figure,
)
from causal_lm_router.evaluation.figures.learning_curve import MetricRow, draw_learning_curve, running_mean
from causal_lm_router.evaluation.formatting import shorten_names
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CURVE = [
    *((step, "train/loss", 2.0 / step) for step in range(1, 61)),
    *((step, "train/learning_rate", 1e-4) for step in range(1, 61)),
    (30, "validation/routing_accuracy", 0.5),
    (60, "validation/routing_accuracy", 0.6),
    (30, "validation/parse_failure_rate", 0.2),
    (60, "validation/parse_failure_rate", 0.0),
    (30, "validation/mean_score", 0.4),
    (60, "validation/mean_score", 0.55),
    (60, "validation/best_single/mean_score", 0.45),
    (60, "validation/oracle/mean_score", 0.8),
]


def confusion_of(names: list[str]) -> Figure:
    """Per name three queries: two routed to their label, one that failed to parse."""
    outcomes = []
    for index in range(3 * len(names)):
        label = names[index % len(names)]
        example = RoutingExample(str(index), "text", "task", {name: float(name == label) for name in names})
        route = ParsedRoute(label) if index < 2 * len(names) else ParsedRoute(None, ParseFailure.empty)
        outcomes.append(
            RouteOutcome(
                example=example, label=label, generation=Generation("text", "stop"), route=route, called=route.candidate
            )
        )
    return draw_confusion(names, np.array(evaluate_outcomes(outcomes, names, names[0], None).report.confusion))


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(PNG_SIGNATURE)
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@pytest.mark.parametrize("size", [2, 3, 9, 30])
@pytest.mark.slow
def test_confusion_is_a_png_for_any_pool(size: int, tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    save_figure(confusion_of([f"vendor/some-long-candidate-name-{index}-instruct" for index in range(size)]), path)
    width, height = png_size(path)
    assert 300 < width < 3000
    assert 150 < height < 3000
    assert list(tmp_path.iterdir()) == [path]


def test_confusion_shows_counts_names_and_failures() -> None:
    axes = confusion_of(["a", "b"]).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (1, 1): "2", (2, 0): "1", (2, 1): "1"}  # (column, row)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "parse failure"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (3)", "b (3)"]


def test_a_name_is_neither_formula_nor_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(confusion_of(["$\\frac{$", "名前", "🤖_x^2"]), tmp_path / "confusion.png")
    png_size(tmp_path / "confusion.png")


def test_long_names_lose_their_middle_unless_that_makes_two_alike() -> None:
    assert shorten_names(["abcdefghijkl", "short"], max_chars=9) == ["abcd…ijkl", "short"]
    alike = ["abcdXXXefgh", "abcdYYYefgh"]
    assert shorten_names(alike, max_chars=9) == alike


def test_interval_bars_reach_from_the_estimate_to_its_bounds() -> None:
    estimates = [
        Estimate(value=0.5, low=0.3, high=0.6),
        Estimate(value=0.5),
        Estimate(value=1.0, low=0.9, high=1.0 - 1e-16),
    ]
    assert bar_lengths(estimates, 1000) == pytest.approx(np.array([[200, 0, 100], [100, 0, 0]]))


def test_a_reference_looks_the_same_everywhere_and_keeps_the_name_of_its_candidate() -> None:
    plain, named = reference_style("best_single"), reference_style("best_single (large_$5)")
    assert (plain.label, named.label) == ("best single", r"best single (large_\$5)")
    assert (plain.marker, plain.line) == (named.marker, named.line)
    names = ("random", "best_single", "oracle", "bayes")
    assert (
        len({reference_style(name).marker for name in names})
        == len({reference_style(name).line for name in names})
        == 4
    )


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    for ending, signature in ((".png", PNG_SIGNATURE), (".pdf", b"%PDF")):
        paths = [tmp_path / f"{name}{ending}" for name in ("one", "other")]
        for path in paths:
            save_figure(confusion_of(["a", "b"]), path)
        one, other = (path.read_bytes() for path in paths)
        assert one.startswith(signature)
        assert one == other


def test_running_mean_by_hand() -> None:
    few = {step: float(step) for step in (3, 1, 2)}
    assert running_mean(few) == ({1: 1.0, 2: 2.0, 3: 3.0}, 1)
    # 60 values: means of 3, each at the middle step.
    means, window = running_mean({step: float(step**2) for step in range(60)})
    assert (window, len(means), means[1]) == (3, 58, pytest.approx((0 + 1 + 4) / 3))


def test_learning_curve_draws_loss_rates_and_scores() -> None:
    loss, rates, scores, learning_rate = draw_learning_curve(CURVE).axes
    raw, smooth = loss.get_lines()
    assert list(raw.get_xdata())[:2] == [1, 2]
    assert list(raw.get_ydata())[:2] == [2.0, 1.0]
    assert next(iter(smooth.get_ydata())) == pytest.approx((2 + 1 + 2 / 3) / 3)
    assert next(iter(smooth.get_xdata())) == 2
    assert learning_rate.get_lines()[0].get_label() == "learning rate (right)"
    by_label = {line.get_label(): list(line.get_ydata()) for axes in (rates, scores) for line in axes.get_lines()}
    assert by_label == {
        "routing accuracy": [0.5, 0.6],
        "parse failures": [0.2, 0.0],
        "router": [0.4, 0.55],
        "best single": [0.45, 0.45],
        "oracle": [0.8, 0.8],
    }


def test_the_legends_of_a_learning_curve_cover_no_line() -> None:
    figure = draw_learning_curve([*CURVE, (4, "validation/bayes_score", 0.79)])
    figure.draw_without_rendering()
    for axes in figure.axes[1:3]:
        legend = axes.get_legend().get_window_extent()
        assert axes.get_window_extent().x1 < legend.x0 < legend.x1 <= figure.bbox.x1
        lines = [line.get_window_extent() for line in axes.get_lines()]
        assert all(axes.bbox.y0 < line.y0 and line.y1 < axes.bbox.y1 for line in lines), "inside the border"


def test_without_evaluations_during_training_the_one_after_it_is_drawn() -> None:
    rows = [(1, "train/loss", 3.0), (6, "train/loss", 2.0), (6, "final_validation/routing_accuracy", 0.4)]
    loss, rates = draw_learning_curve(rows).axes
    assert [line.get_xydata().tolist() for line in rates.get_lines()] == [[[6.0, 0.4]]]
    assert rates.get_title(loc="left") == "validation, after training"
    assert loss.get_xlim()[0] == 0
    # Evaluations during training ask other queries, so the two make no line.
    rows += [(3, "validation/routing_accuracy", 0.3), (6, "validation/routing_accuracy", 0.5)]
    rates = draw_learning_curve(rows).axes[1]
    assert [list(line.get_ydata()) for line in rates.get_lines()] == [[0.3, 0.5]]
    assert rates.get_title(loc="left") == "validation, during training"


def test_of_repeated_steps_the_last_counts() -> None:
    figure = draw_learning_curve([(1, "train/loss", 3.0), (2, "train/loss", 9.0), (2, "train/loss", 1.0)])
    (line,) = figure.axes[0].get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [3.0, 1.0])


@pytest.mark.parametrize("rows", [CURVE, CURVE[:1], CURVE[:60], CURVE[-8:], []])
@pytest.mark.slow
def test_learning_curve_is_a_png_for_any_log(rows: list[MetricRow], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(draw_learning_curve(rows), tmp_path / "curve.png")
    assert png_size(tmp_path / "curve.png")[0] > 800


@pytest.mark.slow
def test_no_global_plotting_state_is_touched() -> None:
    code = "import sys, causal_lm_router.evaluation.figures.drawing; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
