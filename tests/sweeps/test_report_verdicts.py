"""Planted sweeps: without an effect the report claims none, and a true effect is found; wrong pairs are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.statistics import NO_DIFFERENCE
from causal_lm_router.evaluation.stored import RunEvaluation, shared_queries
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample
from causal_lm_router.sweeps.report.comparisons import Comparison, compare, verdict
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.runs import Run

EXAMPLE = RoutingExample("0", "text", "task", {"a": 1.0, "b": 0.0})
REPORT = evaluate_outcomes(
    [RouteOutcome(example=EXAMPLE, label="a", generation=Generation("a", "stop"), route=ParsedRoute("a"), called="a")]
    * 2,
    ["a", "b"],
    "a",
    None,
).report


def evaluation(is_right: np.ndarray, prefix: str = "q") -> RunEvaluation:
    """An evaluation in which a right route scores 1 and a wrong one 0.4; best single is right on every other query."""
    right = is_right.astype(float)
    single = np.arange(len(right)) % 2.0
    scores = 0.4 + 0.6 * right
    return RunEvaluation(
        split="test",
        report=REPORT,
        query_ids=tuple(f"{prefix}{index:04}" for index in range(len(right))),
        facts=(("task", 1.0),) * len(right),
        values={"routing_accuracy": right, "mean_score": scores},
        best_single={"routing_accuracy": single, "mean_score": 0.4 + 0.6 * single},
    )


def configuration(number: int, tables: np.ndarray, seeds: list[int] | None = None) -> Configuration:
    runs = [
        Run(Path(f"{number}-{index}"), "done", config={"seed": seeds[index] if seeds else index}, test=evaluation(row))
        for index, row in enumerate(tables)
    ]
    return Configuration(number=number, swept={"k": number}, texts={"k": str(number)}, runs=tuple(runs))


def draw(random: np.random.Generator, effects: list[float], num_seeds: int, seed_spread: float) -> list[Configuration]:
    """Configurations whose log-odds of being right differ by `effects`, over easy and hard queries and random seeds."""
    query = random.normal(0.5, 1.5, 200)
    spread = [random.normal(0, seed_spread, (num_seeds, 1)) for _ in effects]
    chances = [1 / (1 + np.exp(-(query + effect + seeds))) for effect, seeds in zip(effects, spread, strict=True)]
    return [
        configuration(number, random.random((num_seeds, 200)) < chance)
        for number, chance in enumerate(chances, start=1)
    ]


def claims(comparisons: list[Comparison]) -> list[str]:
    return [
        difference.verdict
        for one in comparisons
        for difference in (one.accuracy, one.score)
        if difference and difference.verdict != NO_DIFFERENCE
    ]


# Seed spreads in log-odds: 0.1 and 0.25 are about 2 and 4 points of accuracy.
@pytest.mark.parametrize(("num_seeds", "seed_spread"), [(1, 0.0), (2, 0.1), (3, 0.0), (3, 0.25), (5, 0.25)])
@pytest.mark.slow
def test_sweeps_without_effect_raise_few_false_alarms(num_seeds: int, seed_spread: float) -> None:
    random = np.random.default_rng(num_seeds)
    sweeps = [draw(random, [0.0] * 4, num_seeds, seed_spread) for _ in range(150)]
    alarms = [bool(claims(compare(sweep, sweep[0]))) for sweep in sweeps]
    # 5% of 150 sweeps plus two standard errors.
    assert sum(alarms) <= 13


def test_verdict_without_effect_in_words() -> None:
    sweep = draw(np.random.default_rng(0), [0.0] * 4, 3, 0.0)
    comparisons = compare(sweep, sweep[0])
    assert [one.accuracy.verdict for one in comparisons if one.accuracy] == [NO_DIFFERENCE] * 3
    expected = "No significant difference between the baseline and any of the 3 configurations compared with it."
    assert verdict(comparisons) == expected


def test_a_true_effect_is_found() -> None:
    random = np.random.default_rng(1)
    found = 0
    for _ in range(20):
        sweep = draw(random, [0.0, 0.0, 1.5, -1.5], 5, 0.1)
        none, better, worse = compare(sweep, sweep[0])
        assert none.accuracy and better.accuracy and worse.accuracy
        verdicts = (better.accuracy.verdict, worse.accuracy.verdict)
        found += verdicts == ("significantly better", "significantly worse")
    assert found >= 18


def test_difference_is_paired_by_seed_and_query() -> None:
    right = np.random.default_rng(2).random((5, 100)) < 0.5
    # The same runs but for ten queries: unpaired, a difference of ten points would drown in the queries' spread.
    better = right | (np.arange(100) < 20)
    (one,) = compare([configuration(1, right), configuration(2, better)], configuration(1, right))[1:]
    assert one.accuracy is not None
    assert one.only_baseline_right == 0
    assert one.only_configuration_right == (better & ~right).sum()
    assert one.accuracy.estimate.value == pytest.approx((better & ~right).sum() / 500)
    assert one.accuracy.verdict == "significantly better"


def test_seeds_are_paired_by_their_number() -> None:
    rows = np.random.default_rng(3).random((3, 80)) < 0.5
    baseline = configuration(1, rows, [0, 1, 2])
    (one,) = compare([configuration(2, rows[[2, 1]], [2, 1])], baseline)
    assert one.accuracy is not None
    assert (one.only_configuration_right, one.only_baseline_right, one.accuracy.adjusted_p) == (0, 0, 1.0)
    assert one.note == "on 2 seed(s) that both have"
    assert [(run.folder.name, other and other.folder.name) for run, other in one.pairs] == [
        ("2-0", "1-2"),
        ("2-1", "1-1"),
    ]


def test_best_single_as_baseline() -> None:
    always = configuration(1, np.ones((2, 100), dtype=bool))
    (one,) = compare([always], None)
    assert one.accuracy is not None and one.score is not None
    assert (one.only_configuration_right, one.only_baseline_right) == (100, 0)
    assert (one.accuracy.estimate.value, one.score.estimate.value) == pytest.approx((0.5, 0.3))
    assert one.accuracy.verdict == "significantly better"


def test_best_single_without_scores_of_all_candidates_is_not_compared() -> None:
    run = Run(Path("x"), "done", config={"seed": 0}, test=replace(evaluation(np.ones(9, dtype=bool)), best_single=None))
    (one,) = compare([Configuration(number=1, swept={}, texts={}, runs=(run,))], None)
    assert one.accuracy is None
    assert one.note == "not compared: outcomes.jsonl lacks the candidates' scores"
    assert verdict([one]) == "Nothing could be compared with the baseline."


def test_only_equal_queries_are_paired() -> None:
    one = evaluation(np.ones(10, dtype=bool))
    assert shared_queries(one, one) == list(one.query_ids)
    assert shared_queries(one, evaluation(np.ones(6, dtype=bool))) == list(one.query_ids[:6])
    assert shared_queries(one, evaluation(np.ones(10, dtype=bool), "other")) == []
    # Equal ids with another best score are other data, all of them.
    assert shared_queries(one, replace(one, facts=(("task", 0.5), *one.facts[1:]))) == []
    assert shared_queries(one, replace(one, split="validation")) == []
    assert shared_queries(one, replace(one, report=replace(REPORT, candidate_names=("a", "c")))) == []


def test_part_of_the_queries_is_compared_and_said() -> None:
    long, short = np.arange(100) % 3 == 0, np.arange(60) % 3 == 0
    (one,) = compare([configuration(2, short[None])], configuration(1, long[None]))
    assert (one.num_queries, one.note) == (60, "on the queries that both asked")
    assert one.accuracy is not None and one.accuracy.estimate.value == 0
