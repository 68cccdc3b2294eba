"""References that know the candidates' means on train: the per-task table, and blind calls at the router's cost."""

from collections.abc import Sequence

import numpy as np
import pytest

from causal_lm_router.data.train_means import TrainMeans, train_means
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.references import mix_at_cost
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import Candidate, Generation, ParsedRoute, RouteOutcome, RoutingExample

NAMES = ("cheap", "dear", "worse")
COSTS = {"cheap": 0.1, "dear": 0.5, "worse": 0.4}
POOL = tuple(map(Candidate, NAMES))


def example(number: int, task: str, scores: Sequence[float], *, priced: bool = True) -> RoutingExample:
    return RoutingExample(
        str(number), f"query {number}", task, dict(zip(NAMES, scores, strict=True)), COSTS if priced else None
    )


# On train: cheap .5, dear .75, worse .25; on maths cheap is best, elsewhere dear.
TRAIN = [
    example(0, "maths", (1.0, 0.5, 0.0)),
    example(1, "maths", (1.0, 0.5, 0.0)),
    example(2, "law", (0.0, 1.0, 0.5)),
    example(3, "law", (0.0, 1.0, 0.5)),
]
TEST = [example(4, "maths", (0.0, 1.0, 0.0)), example(5, "law", (0.5, 0.25, 1.0)), example(6, "new", (0.0, 1.0, 0.0))]


def report(routes: Sequence[str], means: TrainMeans | None, test: Sequence[RoutingExample] = TEST) -> RoutingReport:
    outcomes = [
        RouteOutcome(
            example=one, label="dear", generation=Generation(name, "stop"), route=ParsedRoute(name), called=name
        )
        for one, name in zip(test, routes, strict=True)
    ]
    return evaluate_outcomes(outcomes, NAMES, "dear", means=means).report


def test_means_over_train() -> None:
    means = train_means(TRAIN, POOL)
    assert means.scores == {"cheap": 0.5, "dear": 0.75, "worse": 0.25}
    assert means.by_task == {
        "maths": {"cheap": 1.0, "dear": 0.5, "worse": 0.0},
        "law": {"cheap": 0.0, "dear": 1.0, "worse": 0.5},
    }
    assert means.costs == pytest.approx(COSTS)
    assert train_means([*TRAIN, example(9, "law", (0, 0, 0), priced=False)], POOL).costs is None


def test_the_table_is_chosen_on_train_and_knows_no_new_task() -> None:
    found = report(["dear", "dear", "dear"], train_means(TRAIN, POOL))
    # cheap on maths, dear on law, and best single where train has no such task.
    assert found.references["per_task_best"].mean_score.value == pytest.approx((0.0 + 0.25 + 1.0) / 3)
    assert found.score_gains["per_task_best"].value == pytest.approx((1.0 + 0.0 + 0.0) / 3)


def test_of_equal_means_the_table_takes_best_single() -> None:
    equal = TrainMeans(scores={}, by_task={"maths": dict.fromkeys(NAMES, 0.5)}, costs=None)
    found = report(["worse"], equal, TEST[:1])
    assert found.references["per_task_best"].mean_score.value == 1.0


def test_blind_calls_cost_what_the_router_costs() -> None:
    found = report(["cheap", "dear", "dear"], train_means(TRAIN, POOL))
    mixture = found.references["same_cost_mixture"]
    assert found.mean_cost is not None
    assert mixture.mean_cost is not None
    assert mixture.mean_cost.value == pytest.approx(found.mean_cost.value)
    # dear with a chance of 2/3: worse lies under the line between the two.
    dear, cheap = (1 + 0.25 + 1) / 3, 0.5 / 3
    assert mixture.mean_score.value == pytest.approx(2 / 3 * dear + 1 / 3 * cheap)
    gain = found.score_gains["same_cost_mixture"]
    assert gain.value == pytest.approx(found.mean_score.value - mixture.mean_score.value)


@pytest.mark.parametrize(
    ("cost", "chances"), [(0.05, (1, 0, 0)), (0.1, (1, 0, 0)), (0.2, (0.75, 0.25, 0)), (0.5, (0, 1, 0)), (9, (0, 1, 0))]
)
def test_chances_of_a_mixture(cost: float, chances: tuple[float, ...]) -> None:
    means = train_means(TRAIN, POOL)
    assert mix_at_cost(means, np.array([0.1, 0.5, 0.4]), NAMES, cost) == pytest.approx(chances)


def test_nothing_is_mixed_beyond_the_best() -> None:
    means = TrainMeans(scores={"a": 0.9, "b": 0.5}, by_task={}, costs={"a": 0.1, "b": 0.5})
    assert mix_at_cost(means, np.array([0.1, 0.5]), ("a", "b"), 0.4).tolist() == [1, 0]


def test_unknown_costs_give_no_mixture() -> None:
    test = [example(4, "maths", (0, 1, 0), priced=False)]
    found = report(["dear"], train_means(TRAIN, POOL), test)
    assert list(found.references) == ["random", "best_single", "per_task_best", "oracle"]
    assert list(report(["dear"], None, test).references) == ["random", "best_single", "oracle"]


def test_a_report_keeps_its_gains() -> None:
    found = report(["cheap", "dear", "dear"], train_means(TRAIN, POOL))
    assert RoutingReport.from_dict(found.to_dict()) == found
    earlier = {key: value for key, value in found.to_dict().items() if key != "score_gains"}
    assert RoutingReport.from_dict(earlier).score_gains == {}
