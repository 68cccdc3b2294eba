"""What is suspicious about data is said, and what is not is left alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.data_warnings import warn_of_data
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.split import RoutingSplits, split_examples
from causal_lm_router.routing import Candidate, RoutingExample

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults"


def splits(*examples: RoutingExample) -> RoutingSplits:
    names = list(examples[0].scores)
    return RoutingSplits(list(examples), [], [], tuple(map(Candidate, names)), audit=None)  # type: ignore[arg-type]


def example(number: int, query: str = "", costs: dict[str, float] | None = None, **scores: float) -> RoutingExample:
    scores = scores or {"gpt-4": number % 2, "gpt-4-mini": 1 - number % 2}
    return RoutingExample(str(number), query or f"query {number}", "t", scores, costs)


def test_ordinary_data_are_not_suspicious() -> None:
    costs = [{"gpt-4": 0.001 * number, "gpt-4-mini": 0.002 * number} for number in range(40)]
    assert warn_of_data(splits(*(example(number, costs=costs[number]) for number in range(40)))) == ()


def test_equal_scores() -> None:
    equal = [example(number, a=number % 2, b=number % 2) for number in range(3)]
    (warning,) = warn_of_data(splits(*equal))
    assert warning.startswith("on every one of the 3 queries all LLMs score the same")
    parts = splits(*equal)
    (warning,) = warn_of_data(RoutingSplits(parts.train, [], [example(9, a=1, b=0)], parts.pool, parts.audit))
    assert warning.startswith("on every one of the 3 training queries")


@pytest.mark.parametrize(
    ("query", "leaks"),
    [
        ("Sum 1 and 2. (GPT-4{mini} is best)", True),
        ("Sum 1 and 2. (xgpt-4{mini} is best)", False),
        ("Compare gpt-4 with gpt-4-mini", False),
    ],
)
def test_leaked_answers(query: str, leaks: bool) -> None:
    told = [example(number, query.replace("{mini}", "" if number % 2 else "-MINI")) for number in range(20)]
    untold = [example(number) for number in range(20, 60)]
    warnings = warn_of_data(splits(*told, *untold))
    assert [warning[:23] for warning in warnings] == (["20 queries name one LLM"] if leaks else [])


def test_a_name_that_is_a_common_word_is_no_leak() -> None:
    assert (
        warn_of_data(splits(*(example(number, "Write a poem", a=number > 0, b=number == 0) for number in range(40))))
        == ()
    )


def test_constant_costs() -> None:
    examples = [example(number, costs={"gpt-4": 0.01, "gpt-4-mini": 0.001 * number}) for number in range(10)]
    (warning,) = warn_of_data(splits(*examples))
    assert warning.startswith("the cost of gpt-4 is the same on all 10 queries")
    assert warn_of_data(splits(*examples[:9])) == (), "few queries may cost the same by chance"


@pytest.mark.parametrize(
    ("file", "words"), [("r13_const.jsonl", "the cost of a, b is the same"), ("r15_leak.jsonl", "have leaked")]
)
def test_faulty_files(file: str, words: str, make_data_config: Callable[..., DataConfig]) -> None:
    if not (FAULTS / file).is_file():
        pytest.skip(f"no {FAULTS / file}")
    config = make_data_config(source="jsonl", path=str(FAULTS / file))
    (warning,) = warn_of_data(split_examples(load_source(config), config))
    assert words in warning


def test_answers_no_better_than_random_ones() -> None:
    rows = [replace(example(number, a=number % 5 == 0, b=number % 2), num_choices=4) for number in range(20)]
    (warning,) = warn_of_data(splits(*rows))
    assert "no better than random ones for 50% of the LLMs on t." in warning
    assert warn_of_data(splits(*rows[:-1], replace(rows[-1], num_choices=None))) == (), "chance is not known"


def test_tasks_with_mostly_equal_scores() -> None:
    rows = [example(number, a=number < 4, b=0) for number in range(10)]
    rows = [replace(row, task=f"{task:02}") for task in range(9) for row in rows]
    (warning,) = warn_of_data(splits(*rows))
    assert warning.startswith("all LLMs score the same on 60%")
    assert "60% of the queries of 08, 60% of the queries of 07" in warning
    assert warning.count("60%") == 6
    assert "and so on in 3 more tasks" in warning


def test_the_real_files_have_doubtful_tasks(data_dir: Path, make_data_config: Callable[..., DataConfig]) -> None:
    config = make_data_config(source="routerdc", path=str(data_dir / "llmrouter"), near_duplicate_threshold=1.0)
    at_chance, equal = warn_of_data(split_examples(load_source(config), config))
    assert "100% of the LLMs on gpqa" in at_chance
    assert "44% of the LLMs on mmlu" in at_chance
    assert "79% of the queries of trivia_qa" in equal
