"""Drawings: written as PNG for every size of pool, with the numbers and names where they belong."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from causal_lm_router.evaluation.figures import confusion, learning_curve
from causal_lm_router.evaluation.figures.confusion import save_confusion
from causal_lm_router.evaluation.figures.drawing import shorten_names
from causal_lm_router.evaluation.figures.learning_curve import MetricRow, read_metrics, save_learning_curve
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
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


def make_report(names: list[str]) -> RoutingReport:
    """Per name three queries: two routed to their label, one that failed to parse."""
    outcomes = []
    for index in range(3 * len(names)):
        label = names[index % len(names)]
        example = RoutingExample(str(index), "text", "task", {name: float(name == label) for name in names})
        route = ParsedRoute(label) if index < 2 * len(names) else ParsedRoute(None, ParseFailure.empty)
        outcomes.append(RouteOutcome(example, label, Generation("text", "stop"), route, route.candidate))
    return evaluate_outcomes(outcomes, names, names[0], None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are about to be saved."""
    saved: list[Figure] = []
    for drawing in (confusion, learning_curve):
        monkeypatch.setattr(drawing, "save_png", lambda figure, path: saved.append(figure))
    return saved


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(PNG_SIGNATURE)
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@pytest.mark.parametrize("size", [2, 3, 9, 30])
def test_confusion_is_a_png_for_any_pool(size: int, tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    save_confusion(make_report([f"vendor/some-long-candidate-name-{index}-instruct" for index in range(size)]), path)
    width, height = png_size(path)
    assert 300 < width < 3000
    assert 150 < height < 3000
    assert list(tmp_path.iterdir()) == [path]


def test_confusion_shows_counts_names_and_failures(drawn: list[Figure]) -> None:
    save_confusion(make_report(["a", "b"]), Path("unused"))
    axes = drawn[0].axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (1, 1): "2", (2, 0): "1", (2, 1): "1"}  # (column, row)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "parse failure"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (3)", "b (3)"]


def test_a_name_is_neither_formula_nor_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(make_report(["$\\frac{$", "名前", "🤖_x^2"]), tmp_path / "confusion.png")
    png_size(tmp_path / "confusion.png")


def test_long_names_lose_their_middle_unless_that_makes_two_alike() -> None:
    assert shorten_names(["abcdefghijkl", "short"], max_chars=9) == ["abcd…ijkl", "short"]
    alike = ["abcdXXXefgh", "abcdYYYefgh"]
    assert shorten_names(alike, max_chars=9) == alike


def test_learning_curve_draws_loss_rates_and_scores(drawn: list[Figure]) -> None:
    save_learning_curve(CURVE, Path("unused"))
    loss, rates, scores, learning_rate = drawn[0].axes
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


def test_of_repeated_steps_the_last_counts(drawn: list[Figure]) -> None:
    save_learning_curve([(1, "train/loss", 3.0), (2, "train/loss", 9.0), (2, "train/loss", 1.0)], Path("unused"))
    (line,) = drawn[0].axes[0].get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [3.0, 1.0])


@pytest.mark.parametrize("rows", [CURVE, CURVE[:1], CURVE[:60], CURVE[-8:], []])
def test_learning_curve_is_a_png_whatever_was_logged(rows: list[MetricRow], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_learning_curve(rows, tmp_path / "curve.png")
    assert png_size(tmp_path / "curve.png")[0] > 800


def test_metrics_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,name,value\n1,0,train/loss,2.5\n1,0,train/learning_rate,1e-05\n")
    assert read_metrics(path) == [(1, "train/loss", 2.5), (1, "train/learning_rate", 1e-05)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("step,epoch,value\n", r"metrics.csv:1: columns \['name'\] are missing"),
        ("", r"metrics.csv:1: columns \['name', 'step', 'value'\] are missing"),
        ("step,epoch,name,value\n1,0,a,2\n1,0,b,x\n", r"metrics.csv:3: step and value must be numbers"),
        ("step,epoch,name,value\n1,0\n", r"metrics.csv:2: step and value must be numbers"),
    ],
)
def test_broken_metrics_name_file_and_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path / "metrics.csv")


def test_no_global_plotting_state_is_touched() -> None:
    code = "import sys, causal_lm_router.evaluation.figures.drawing; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
