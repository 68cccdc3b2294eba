"""Drawings of an evaluation: the values and names on them, and that they are written whatever is known."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from causal_lm_router.evaluation.evaluation_folder import outcome_rows, write_evaluation
from causal_lm_router.evaluation.figures.evaluation_figures import draw_evaluation
from causal_lm_router.evaluation.figures.frontier import RouterPoint, draw_frontier, run_point
from causal_lm_router.evaluation.figures.reliability import draw_reliability
from causal_lm_router.evaluation.figures.routes import draw_routes_by_task
from causal_lm_router.evaluation.figures.scores import draw_score_distribution, survival
from causal_lm_router.evaluation.interval_formulas import share_interval
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.measures.cost_quality import Points
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.outcome_table import NOBODY, OutcomeTable, outcome_table, row_table
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample
from causal_lm_router.runs.tracking.job import Tracking

NAMES = ["small", "large"]
# Task, scores of both candidates, route (None does not parse).
ROWS: list[tuple[str, tuple[float, float], str | None]] = [
    ("maths", (1.0, 0.0), "small"),
    ("maths", (0.0, 1.0), "small"),
    ("maths", (0.5, 0.5), "large"),
    ("trivia", (0.0, 1.0), None),
]
PREDICTED = [(0.9, 0.05), (0.6, 0.4), (0.2, 0.6), (0.1, 0.8)]


def outcome(
    index: int,
    task: str,
    scores: dict[str, float],
    route: str | None,
    costs: dict[str, float] | None = None,
    predicted: dict[str, float] | None = None,
) -> RouteOutcome:
    example = RoutingExample(str(index), "text", task, scores, costs)
    parsed = ParsedRoute(route) if route else ParsedRoute(None, ParseFailure.empty)
    return RouteOutcome(
        example=example,
        label=next(iter(scores)),
        generation=Generation("text", "stop"),
        route=parsed,
        called=route,
        predicted=predicted,
    )


def four_outcomes() -> list[RouteOutcome]:
    """Small costs 1 USD per 1,000 queries, large 4."""
    costs = dict(zip(NAMES, (0.001, 0.004), strict=True))
    return [
        outcome(index, task, dict(zip(NAMES, pair, strict=True)), route, costs, dict(zip(NAMES, said, strict=True)))
        for index, ((task, pair, route), said) in enumerate(zip(ROWS, PREDICTED, strict=True))
    ]


@pytest.fixture
def table() -> OutcomeTable:
    return outcome_table(four_outcomes(), NAMES)


def legend_of(holder: Any) -> list[str]:
    legend = holder.legends[0] if isinstance(holder, Figure) else holder.get_legend()
    return [text.get_text() for text in legend.get_texts()]


def test_table_holds_columns_of_candidates_and_nobody(table: OutcomeTable) -> None:
    assert table.routes.tolist() == table.called.tolist() == [0, 0, 1, NOBODY]
    assert table.score.tolist() == [1.0, 0.0, 0.5, 0.0]
    assert table.is_best.tolist() == [[True, False], [False, True], [True, True], [False, True]]
    again = row_table(outcome_rows(four_outcomes()), NAMES)
    for name in ("scores", "costs", "predicted"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    assert again.tasks == ("maths", "maths", "maths", "trivia")


def test_older_rows_lack_costs_and_predictions() -> None:
    rows = [
        {key: row[key] for key in row if key not in ("costs", "predicted")} for row in outcome_rows(four_outcomes())
    ]
    assert (row_table(rows, NAMES).costs, row_table(rows, NAMES).predicted) == (None, None)
    with pytest.raises(ValueError, match=r"small \| other, got 'large'"):
        row_table([row | {"scores": {"small": 1, "other": 0}} for row in rows], ["small", "other"])


def widths(axes: Axes) -> list[list[float]]:
    """Widths of the segments of every bar, from left to right; bars from the top of the axes down."""
    rows: dict[float, list[Any]] = {}
    for segment in axes.patches:
        rows.setdefault(round(segment.get_y() + segment.get_height() / 2, 2), []).append(segment)
    return [
        [round(segment.get_width(), 4) for segment in sorted(rows[row], key=lambda segment: segment.get_x())]
        for row in sorted(rows)
    ]


def row_names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_routes_by_task_are_shares_with_failures_last(table: OutcomeTable) -> None:
    figure = draw_routes_by_task(table, "large")
    assert row_names(figure) == ["all queries (4)", "maths (3)", "trivia (1)"]
    assert figure.axes[0].get_title(loc="left") == "all 2 tasks"
    third = round(1 / 3, 4)
    # Routes, then best candidates, of each row.
    assert widths(figure.axes[0]) == [
        [0.5, 0.25, 0.25],  # small, large, no route
        [0.375, 0.625],  # best: 1.5 and 2.5 of four
        [round(2 / 3, 4), third],
        [0.5, 0.5],
        [1],
        [1],
    ]
    assert legend_of(figure) == ["small", "large (best single)", "parse failure"]


def test_a_single_task_is_all_queries_and_small_ones_share_a_row(table: OutcomeTable) -> None:
    figure = draw_routes_by_task(outcome_table(four_outcomes()[:3], NAMES), "small")
    assert row_names(figure) == ["all queries (3)"]
    assert "parse failure" not in legend_of(figure)
    figure = draw_routes_by_task(table, "small", max_tasks=1)
    assert row_names(figure) == ["all queries (4)", "maths (3)", "1 other task (1)"]
    assert figure.axes[0].get_title(loc="left") == "1 task with most queries, of 2"


def test_of_many_candidates_the_least_routed_are_drawn_as_one() -> None:
    names = [f"c{index}" for index in range(40)]
    chosen = [names[30 + index % 10] for index in range(20)]
    outcomes = [outcome(index, "t", dict.fromkeys(names, 0.5), name) for index, name in enumerate(chosen)]
    figure = draw_routes_by_task(outcome_table(outcomes, names), "c39")
    labels = legend_of(figure)
    assert labels[-1] == "24 more"
    assert set(names[30:39]) < set(labels)
    for row in widths(figure.axes[0]):
        assert sum(row) == pytest.approx(1, abs=1e-3)


def test_survival_steps_by_hand() -> None:
    levels, shares = survival(np.array([0.0, 0.5, 1.0, 1.0]))
    assert (levels.tolist(), shares.tolist()) == ([0, 0.5, 1], [1, 0.75, 0.5])
    values = np.random.default_rng(0).random(50).round(1)
    levels, shares = survival(values)
    assert np.sum(np.diff(levels) * shares[1:]) == pytest.approx(values.mean())


def points_of(axes: Axes, label: str) -> np.ndarray:
    """The points of the line whose label begins so, a row each."""
    (line,) = [line for line in axes.get_lines() if str(line.get_label()).startswith(label)]
    return np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float)


def test_score_distribution_shows_means_gains_and_predictions(table: OutcomeTable) -> None:
    above, beside, below = draw_score_distribution(table, "large").axes
    assert legend_of(above) == ["oracle, mean 0.875", "router, mean 0.375", "best single, mean 0.625"]
    # Against large: higher on the first query, equal on the third, lower on two.
    assert widths(below) == [[0.25, 0.25, 0.5]]
    assert [label.get_text() for label in beside.get_yticklabels()] == ["large", "small"], "by mean prediction"
    assert points_of(beside, "predicted score, median")[:, 0] == pytest.approx([0.5, 0.4])
    assert points_of(beside, "mean score")[:, 0] == pytest.approx([0.625, 0.375])


def test_reliability_by_hand() -> None:
    values = np.array([[0.05, 0.95], [0.05, 0.95]])
    truth = np.array([[0.0, 1.0], [0.2, 0.0]])
    axes, counts = draw_reliability(truth, values, calibrated=np.full((2, 2), 0.5)).axes
    assert points_of(axes, "as predicted") == pytest.approx(np.array([(0.05, 0.1), (0.95, 0.5)]))
    assert points_of(axes, "after temperature scaling") == pytest.approx(np.array([(0.5, 0.3)]))
    # (2 x |.1 - .05| + 2 x |.5 - .95|) / 4, and |.3 - .5|
    assert legend_of(axes)[1:] == ["as predicted: ECE 0.250", "after temperature scaling: ECE 0.200"]
    # Two answers in the first and the last bin; all four in the middle one after scaling.
    assert [bar.get_height() for bar in counts.patches if bar.get_height()] == [2, 2, 4]
    # Standard error of 0 and 0.2: their deviation 0.1414 / sqrt(2). Two queries say little.
    segment = axes.collections[0].get_segments()[0]
    low, high = share_interval(np.array(0.1), np.array(0.1**2), 2)(0.05)
    assert segment[:, 1].tolist() == pytest.approx([float(low), float(high)])
    assert 0 <= low < 0.1 < 0.8 < high < 1


def drawn_points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Marker -> points of the last line with this marker; lines without markers are left out."""
    lines = [line for line in axes.get_lines() if line.get_marker() not in ("None", "_", "|")]
    points = {str(line.get_marker()): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines}
    return {marker: [(round(float(x), 6), round(float(y), 6)) for x, y in found] for marker, found in points.items()}


def test_frontier_shows_router_references_and_candidates(table: OutcomeTable) -> None:
    report = evaluate_outcomes(four_outcomes(), NAMES, "large", None).report
    router = run_point("router", report, table)
    assert (router.cost.value, router.score.value) == pytest.approx((0.0015, 0.375))
    # From argmax of the predictions (small, small, large, large) to the cheapest always.
    curve = router.trade_off
    assert curve is not None
    assert (curve.cost[0], curve.score[0]) == pytest.approx((0.0025, (1 + 0 + 0.5 + 1) / 4))
    assert (curve.cost[-1], curve.score[-1]) == pytest.approx((0.001, 0.375))
    figure = draw_frontier([router], report.references, candidates=table)
    (axes,) = figure.axes
    assert axes.get_xscale() == "linear"
    assert drawn_points(axes) == {
        "o": [(1.0, 0.375), (4.0, 0.625)],  # candidates: 1 and 4 USD per 1,000 queries
        "v": [(2.5, 0.5)],
        "D": [(4.0, 0.625)],
        "^": [(2.5, 0.875)],  # small (cheapest of the best) on two queries
    }
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert legend_of(figure)[0] == "router"
    assert legend_of(figure)[2:5] == ["random", "best single", "oracle"]
    assert legend_of(figure)[-2:] == ["1 always small", "2 always large"]


def test_numbered_routers_of_one_name_share_an_entry_of_the_legend() -> None:
    points = [(0.001, 0.2), (0.002, 0.6), (0.003, 0.5)]
    routers = [
        RouterPoint(
            name="a configuration",
            cost=Estimate(value=cost, low=cost, high=cost),
            score=Estimate(value=score, low=score - 0.1, high=score + 0.1),
            number=None if score == 0.5 else number,
        )
        for number, (cost, score) in enumerate(points, start=7)
    ]
    front = Points(np.array([0.001, 0.002]), np.array([0.2, 0.6]))
    figure = draw_frontier(routers, {}, front=front)
    assert legend_of(figure) == ["a configuration", "Pareto front"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["7", "8"]
    assert points_of(figure.axes[0], "Pareto front") == pytest.approx(np.array([(1, 0.2), (2, 0.6)]))


@pytest.mark.parametrize(("cheap", "scale"), [(0.0005, "linear"), (0.0002, "log"), (0.0, "symlog")])
def test_cost_scale_is_logarithmic_where_it_is_wide(cheap: float, scale: str) -> None:
    costs = {"a": cheap, "b": 0.0001 if cheap == 0 else 0.003, "c": 0.003}
    rows = [outcome(index, "t", {"a": 0.1, "b": 0.5, "c": 0.9}, "a", costs) for index in range(2)]
    names = list(costs)
    report = evaluate_outcomes(rows, names, "c", None).report
    figure = draw_frontier([run_point("x", report)], report.references, candidates=outcome_table(rows, names))
    assert figure.axes[0].get_xscale() == scale


def test_no_text_of_a_frontier_lies_on_another_or_on_a_mark() -> None:
    costs = {"a": 0.00015, "b": 0.0011, "c": 0.007}
    rows = [outcome(index, "t", {"a": 0.45, "b": 0.5, "c": 0.8}, "a", costs) for index in range(2)]
    report = evaluate_outcomes(rows, list(costs), "c", None).report
    # Random lies up and to the right of b, where a number goes first.
    near = dataclasses.replace(
        report.references["random"], mean_cost=Estimate(value=0.00116), mean_score=Estimate(value=0.513)
    )
    references = {"random": near, "oracle": report.references["oracle"]}
    figure = draw_frontier([run_point("x", report)], references, candidates=outcome_table(rows, list(costs)))
    axes = figure.axes[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
    frame = axes.get_window_extent()
    inside = [box for label in ticks if frame.x0 < (box := label.get_window_extent()).x1 < frame.x1]
    assert len(inside) > 3
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(sorted(inside, key=lambda box: box.x0)))
    marks = np.vstack([line.get_xydata() for line in axes.get_lines() if line.get_marker() not in ("", "None", None)])
    for text in axes.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*place) for place in axes.transData.transform(marks)), text.get_text()


def test_frontier_needs_costs() -> None:
    rows = [outcome(0, "t", {"a": 1.0, "b": 0.0}, "a")]
    report = evaluate_outcomes(rows, ["a", "b"], "a", None).report
    with pytest.raises(ValueError, match="router: the costs of its queries must be known"):
        run_point("router", report)


def test_hull_goes_on_level_to_the_dearest_point() -> None:
    # Always a: 1 USD per 1,000 queries and 0.2; always b: 3 and 0.6. The router asks c, for 5 and 0.4.
    costs = dict(zip("abc", (0.001, 0.003, 0.005), strict=True))
    rows = [outcome(index, "t", {"a": 0.2, "b": 0.6, "c": 0.4}, "c", costs) for index in range(2)]
    report = evaluate_outcomes(rows, list(costs), "a", None).report
    figure = draw_frontier([run_point("x", report)], {}, candidates=outcome_table(rows, list(costs)))
    (hull,) = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"]
    places, heights = np.asarray(hull.get_xdata()), np.asarray(hull.get_ydata())
    assert (places[0], places[-1]) == pytest.approx((1.0, 5.0))
    # Halfway at random between a and b; level beyond b.
    assert np.interp([1, 2, 3, 5], places, heights) == pytest.approx([0.2, 0.4, 0.6, 0.6])


def random_outcomes(names: list[str], number: int, is_known: bool, failing: bool) -> list[RouteOutcome]:
    random = np.random.default_rng(len(names))

    def values(top: float) -> dict[str, float]:
        return dict(zip(names, (top * random.random(len(names))).tolist(), strict=True))

    return [
        outcome(
            index,
            f"task {index % 5}",
            values(1),
            None if failing else names[int(random.integers(len(names)))],
            values(0.01) if is_known else None,
            values(1) if is_known else None,
        )
        for index in range(number)
    ]


@pytest.mark.parametrize(
    ("size", "number", "is_known", "failing", "files"),
    [
        (2, 1, True, False, {"routes_by_task", "scores", "reliability", "frontier"}),
        (9, 12, False, True, {"routes_by_task", "scores"}),
        (17, 40, True, True, {"routes_by_task", "scores", "reliability", "frontier"}),
    ],
)
@pytest.mark.slow
def test_an_evaluation_is_drawn_as_far_as_it_is_known(
    size: int, number: int, is_known: bool, failing: bool, files: set[str], tmp_path: Path
) -> None:
    names = ["$\\frac{$", "_名前", *(f"vendor/some-long-candidate-name-{index}-instruct" for index in range(size - 2))]
    outcomes = random_outcomes(names, number, is_known, failing)
    found = evaluate_outcomes(outcomes, names, names[0])
    evaluation = evaluate_outcomes(outcomes, names, names[0], with_predictions=True, validation=found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = write_evaluation(tmp_path, evaluation, {"split": "test"})
    assert {path.name for path in pictures} == {f"{name}.png" for name in files}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    written = {path.name for path in tmp_path.iterdir()} - {path.name for path in pictures}
    assert written == {"outcomes.jsonl", "report.json", "confusion.png", "checksums.txt"}


@pytest.mark.slow
def test_validation_calibrates_the_reliability_diagram() -> None:
    # Predictions are too sure by far; without them on validation nothing can be fitted.
    outcomes = [
        outcome(index, "t", {"a": float(index % 2), "b": float(index % 3 > 0)}, "a", None, {"a": 0.99, "b": 0.01})
        for index in range(12)
    ]
    names = ["a", "b"]
    calibrating = evaluate_outcomes(outcomes, names, "a")
    without_predictions = evaluate_outcomes([outcome(0, "t", {"a": 1.0, "b": 0.0}, "a")], names, "a")
    evaluations = [
        evaluate_outcomes(outcomes, names, "a", with_predictions=True, validation=validation)
        for validation in (calibrating, without_predictions, None)
    ]
    shown = [legend_of(draw_evaluation(one.table, one.report)["reliability"].axes[0]) for one in evaluations]
    assert [len(labels) for labels in shown] == [3, 2, 2]
    before, after = (float(label.rpartition(" ")[2]) for label in shown[0][1:])
    assert after < before


def test_pictures_are_recorded_under_their_names() -> None:
    logged: list[tuple[str, Path, int]] = []
    run: Any = SimpleNamespace(log_image=lambda key, path, step: logged.append((key, path, step)))
    record: Callable[..., None] = Tracking([], run, Path("run"), False).log_pictures
    record([Path("run/scores.png")], "test", 7)
    assert logged == [("test/scores", Path("run/scores.png"), 7)]
    Tracking([], None, Path("run"), False).log_pictures([Path("run/scores.png")], "test", 7)
