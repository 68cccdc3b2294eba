"""A router that is never wrong is suspicious, unless it cannot be wrong."""

import pytest

from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.too_good import warn_of_perfection
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample

NAMES = ("a", "b")


def outcome(number: int, best: str, route: str) -> RouteOutcome:
    example = RoutingExample(str(number), "q", "t", {name: float(name == best) for name in NAMES})
    generation = Generation(route, "stop")
    return RouteOutcome(example=example, label=best, generation=generation, route=ParsedRoute(route), called=route)


@pytest.mark.parametrize(
    ("num", "num_wrong", "always", "warns"),
    [(10, 0, False, True), (9, 0, False, False), (40, 1, False, False), (40, 0, True, False)],
    ids=["perfect", "few queries", "one is wrong", "one LLM is always best"],
)
def test_perfection(num: int, num_wrong: int, always: bool, warns: bool) -> None:
    bests = ["a" if always else NAMES[number % 2] for number in range(num)]
    outcomes = [outcome(number, best, "b" if number < num_wrong else best) for number, best in enumerate(bests)]
    warning = warn_of_perfection(evaluate_outcomes(outcomes, NAMES, "a").report)
    assert (warning or "").startswith("the router chose a best LLM on all 10 queries") == warns
