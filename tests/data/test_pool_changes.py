"""What is done to scores and candidates before training: costs, shrinkage, held-out and renamed candidates."""

from collections.abc import Callable
from typing import Any

import pytest

from causal_lm_router.config import TieBreak
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.data.labels import choose_labels, utilities
from causal_lm_router.data.prepared import prepare_data
from causal_lm_router.data.transforms import rename_candidates, shrink_to_task, shuffle_scores
from causal_lm_router.prompting.prompt import PromptFormat
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import Candidate, RoutingData, RoutingExample, describe_other_pool

POOL = (Candidate("a"), Candidate("b"))


def example(number: int, a: float, b: float, task: str = "t") -> RoutingExample:
    return RoutingExample(str(number), f"q{number}", task, {"a": a, "b": b}, {"a": 0.001, "b": 0.003})


def test_costs_can_change_the_label() -> None:
    one = example(1, 0.5, 0.9)
    assert utilities(one, 100) == pytest.approx([0.4, 0.6])
    assert utilities(one, 0) == [0.5, 0.9]
    for weight, label in ((0, "b"), (150, "b"), (250, "a")):  # equal at .4 / .002 = 200
        assert choose_labels([one], TieBreak.first, POOL, [one], 0, weight) == {"1": label}
    with pytest.raises(ValueError, match=r"data\.cost_weight must be 0 .*got 1: query 'x'"):
        utilities(RoutingExample("x", "q", "t", {"a": 1.0, "b": 0.0}), 1)


def test_held_out_candidates_are_no_label() -> None:
    assert choose_labels([example(1, 0.5, 0.9)], TieBreak.first, POOL, [], 0, held_out=["b"]) == {"1": "a"}


def test_scores_shrink_to_their_task() -> None:
    examples = [example(1, 1.0, 0.0), example(2, 0.0, 0.0), example(3, 0.2, 0.4, "other")]
    assert shrink_to_task(examples, 0.0) == examples
    half = shrink_to_task(examples, 0.5)  # the means of t are .5 and 0
    assert [one.scores for one in half] == [{"a": 0.75, "b": 0.0}, {"a": 0.25, "b": 0.0}, {"a": 0.2, "b": 0.4}]
    assert [one.scores for one in shrink_to_task(examples, 1.0)][1] == {"a": 0.5, "b": 0.0}


@pytest.mark.slow
def test_shrinkage_is_for_training_alone(tiny_config: Callable[..., Any]) -> None:
    plain, shrunk = (prepare_data(tiny_config(f"data.task_shrinkage={value}").data) for value in (0, 1))
    assert shrunk.splits == plain.splits
    assert shrunk.best_single == plain.best_single
    assert [one.query_id for one in shrunk.train] == [one.query_id for one in plain.train]
    assert shrunk.train != plain.train
    held_out = [one.query_id for one in plain.splits.test]
    assert {key: shrunk.labels[key] for key in held_out} == {key: plain.labels[key] for key in held_out}


def test_shuffled_scores_are_those_of_other_queries() -> None:
    examples = [example(number, number / 100, 1 - number / 100) for number in range(100)]
    shuffled = shuffle_scores(examples, seed=1)
    assert [one.query for one in shuffled] == [one.query for one in examples]
    assert sum(one.scores == other.scores for one, other in zip(shuffled, examples, strict=True)) < 10
    assert sorted(one.scores["a"] for one in shuffled) == [one.scores["a"] for one in examples]
    assert shuffle_scores(examples, seed=1) == shuffled != shuffle_scores(examples, seed=2)


@pytest.mark.slow
def test_the_control_is_for_training_alone(tiny_config: Callable[..., Any]) -> None:
    plain, control = (prepare_data(tiny_config(f"data.shuffle_train_scores={value}").data) for value in (False, True))
    assert control.splits == plain.splits
    assert control.train_means == plain.train_means
    assert [one.query for one in control.train] == [one.query for one in plain.train]
    assert control.train != plain.train


def test_renamed() -> None:
    data = rename_candidates(RoutingData([example(1, 0.5, 0.9)], POOL), {"a": "new"})
    assert data.candidate_names == ["new", "b"]
    assert data.examples[0].scores == {"new": 0.5, "b": 0.9}
    assert data.examples[0].costs == {"new": 0.001, "b": 0.003}
    with pytest.raises(ValueError, match=r"data\.renamed_candidates: a candidate name must not have .*zero-width"):
        rename_candidates(RoutingData([], POOL), {"a": "n\u200bew"})
    for bad in ({"c": "new"}, {"a": "b"}):
        with pytest.raises(ValueError, match=r"data\.renamed_candidates"):
            rename_candidates(data if "c" in bad else RoutingData([], POOL), bad)


@pytest.mark.slow
def test_held_out_of_training_but_not_of_the_pool(tiny_config: Callable[..., Any]) -> None:
    name = "borealis-large"
    data = prepare_data(tiny_config(f"data.held_out_candidates=[{name}]").data)
    assert name in data.candidate_names
    assert name not in data.supervised
    assert name not in {data.labels[one.query_id] for one in data.train}
    assert name in {data.labels[one.query_id] for one in data.splits.test}
    with pytest.raises(ValueError, match=r"data\.held_out_candidates"):
        prepare_data(tiny_config("data.held_out_candidates=[nobody]").data)


def test_listed_candidates() -> None:
    names = ("one", "two", "three", "four")
    template = "LLMs: {candidates}\nQuery: {query}\nBest LLM:"
    plain = PromptFormat(template, Targets(TargetKind.name, names))
    assert plain.prompt_text("q", ["three", "one"]) == "LLMs: one, three\nQuery: q\nBest LLM:"
    ids = PromptFormat(template, Targets(TargetKind.short_id, names))
    assert ids.prompt_text("q").startswith("LLMs: A = one, B = two, C = three, D = four\n")
    shuffled = PromptFormat(template, Targets(TargetKind.name, names), shuffle_seed=1)
    lists = {shuffled.prompt_text(f"q{number}").split("\n")[0] for number in range(30)}
    assert len(lists) > 10, "an order of its own for every query"
    assert all(sorted(row.removeprefix("LLMs: ").split(", ")) == sorted(names) for row in lists)
    assert shuffled.prompt_text("q") == shuffled.prompt_text("q")
    other = PromptFormat(template, Targets(TargetKind.name, names), shuffle_seed=2)
    assert any(other.prompt_text(f"q{number}") != shuffled.prompt_text(f"q{number}") for number in range(5))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b"], "it lacks c"),
        (["a", "b", "c", "d"], "it adds d"),
        (["a", "x", "c"], "it lacks b; it adds x"),
        (["b", "a", "c"], "it has another order"),
    ],
)
def test_a_changed_pool_names_what_changed(names: list[str], said: str) -> None:
    assert describe_other_pool(names, ["a", "b", "c"]) == f"{said} (the pool is a, b, c)"
