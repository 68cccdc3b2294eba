"""The routerdc format: lists of questions with their scores, joined to tasks and pool."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, SkippedRow

GOOD = {"question": "good", "scores": {"a": 0.5, "b": 1}, "cluster_id": 3}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes items as one JSON list and returns the file's path."""

    def write_items(*items: Any, name: str = "dcrouter_train.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(items))
        return path

    return write_items


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format."""
    return lambda path, **fields: make_data_config(source="routerdc", path=str(path), **fields)


def test_real_files(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "llmrouter"))
    splits = [example.source_split for example in data.examples]
    assert (splits.count("train"), splits.count("test"), len(splits)) == (5608, 500, 6108)
    assert data.candidate_names == [
        "qwen2.5-7b-instruct",
        "codegemma-7b",
        "gemma-2-9b-it",
        "llama-3.1-8b-instruct",
        "llama3-chatqa-1.5-8b",
        "mistral-7b-instruct-v0.3",
        "llama-3.3-nemotron-super-49b-v1",
        "llama-3.1-nemotron-51b-instruct",
        "llama3-chatqa-1.5-70b",
    ]
    assert all(list(example.scores) == data.candidate_names for example in data.examples)
    assert (data.pool[2].input_price, data.pool[2].output_price) == (0.1, 0.1)
    assert len({example.query_id for example in data.examples}) == 6108
    assert sum(example.query_id.endswith("-2") for example in data.examples) == 119, "test questions also in train"
    assert len({example.task for example in data.examples}) == 14
    assert all(example.costs is None for example in data.examples)
    fractional = sum(score not in (0, 1) for e in data.examples[:5608] for score in e.scores.values())
    assert fractional == 1321


def test_real_mean_scores(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "llmrouter"))
    first_by_query = {example.query: example for example in reversed(data.examples)}
    scores = [example.scores for example in first_by_query.values()]
    means = {name: sum(row[name] for row in scores) / len(scores) for name in data.candidate_names}
    assert len(scores) == 5989
    assert max(means, key=means.__getitem__) == "llama-3.1-nemotron-51b-instruct"
    assert round(max(means.values()), 3) == 0.620
    assert round(sum(means.values()) / 9, 3) == 0.427
    assert round(sum(max(row.values()) for row in scores) / len(scores), 3) == 0.798


def test_one_real_file_with_estimated_costs(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    path = data_dir / "llmrouter" / "dcrouter_test.json"
    data = load_source(config(path, assumed_output_tokens=100))
    example = data.examples[0]
    assert (len(data.examples), example.source_split, example.task) == (500, "test", "agentverse-logicgrid")
    assert example.costs is not None
    assert example.costs["gemma-2-9b-it"] == pytest.approx((len(example.query) / 4 + 100) * 0.1 / 1e6)
    assert list(example.costs) == data.candidate_names


def test_without_companions(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(GOOD, {"question": "next", "scores": {"b": 0, "a": 0}}, name="mine.json")
    data = load_source(config(path))
    assert data.pool == (Candidate("a"), Candidate("b"))
    assert [(e.query, e.task, e.source_split) for e in data.examples] == [("good", "all", None), ("next", "all", None)]


def test_query_under_two_tasks_keeps_the_first(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    write(GOOD)
    (tmp_path / "default_query_train.jsonl").write_text(
        '{"query": "good", "task_name": "logic"}\n{"query": "good", "task_name": "facts"}\n'
    )
    assert load_source(config(tmp_path)).examples[0].task == "logic"


@pytest.mark.parametrize(
    ("choices", "number"),
    [("['a', 'b']", 2), ("{'text': ['a', 'b', 'c']}", 3), ("[]", None), ("no list", None), ("-" * 50_000 + "1", None)],
    ids=["list", "object", "empty", "no list", "nested too deeply"],
)
def test_number_of_choices(
    choices: str, number: int | None, tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    write(GOOD)
    row = {"query": "good", "task_name": "logic", "metric": "em_mc", "choices": choices}
    (tmp_path / "default_query_train.jsonl").write_text(json.dumps(row) + "\n")
    assert load_source(config(tmp_path)).examples[0].num_choices == number


def test_question_without_a_task(tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(GOOD)
    query_path = tmp_path / "queries.jsonl"
    query_path.write_text('{"query": "other", "task_name": "logic"}\n')
    with pytest.raises(ValueError) as caught:
        load_source(config(path, query_path=str(query_path)))
    assert str(caught.value).startswith(f"{path}: item 1: ")
    assert "query file" in str(caught.value)


def test_bad_query_file(tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(GOOD)
    query_path = tmp_path / "default_query_test.jsonl"
    query_path.write_text('{"query": "good", "task_name": "logic"}\n{"query": "other"}\n')
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == f"{query_path}:2: key 'task_name' is missing"


def test_candidate_missing_from_the_pool_file(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(GOOD)
    (tmp_path / "default_llm.json").write_text('{"a": {}, "c": {}}')
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == f"{path}: item 1: unknown candidate 'b' (the pool file has a, c)"


BAD_ITEMS = {
    "score above 1": ({"question": "x", "scores": {"a": 1.5, "b": 0}}, ["candidate 'a'", "score", "got 1.5"]),
    "NaN score": ({"question": "x", "scores": {"a": float("nan"), "b": 0}}, ["NaN"]),
    "missing candidate": ({"question": "x", "scores": {"a": 1}}, ["no score for candidate 'b'", "a, b"]),
    "unknown candidate": ({"question": "x", "scores": {"a": 1, "b": 1, "c": 1}}, ["unknown candidate 'c'", "a, b"]),
    "empty query": ({"question": " ", "scores": {"a": 1, "b": 1}}, ["query is empty"]),
    "no question": ({"scores": {"a": 1, "b": 1}}, ["'question'", "missing"]),
    "no scores": ({"question": "x"}, ["'scores'", "missing"]),
    "text for object": ("x", ["object", "got str"]),
}


@pytest.mark.parametrize(("item", "words"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_bad_item(item: Any, words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(GOOD, item, GOOD)
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    reason = str(caught.value).removeprefix(f"{path}: item 2: ")
    assert all(word in reason for word in words)
    data = load_source(config(path, on_bad_row="skip"))
    assert len(data.examples) == 2
    assert data.skipped_rows == (SkippedRow(f"{path}: item 2", reason),)


def test_truncated_file_is_an_error_even_when_rows_are_skipped(
    write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(GOOD, GOOD)
    path.write_text(path.read_text()[:-1])
    with pytest.raises(ValueError) as caught:
        load_source(config(path, on_bad_row="skip"))
    assert str(caught.value).startswith(f"{path}: item 2: broken JSON: Expecting ',' or ']' at line 1, column ")


def test_folder_without_the_files(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError) as caught:
        load_source(config(tmp_path))
    expected = "dcrouter_train.json or dcrouter_test.json"
    assert str(caught.value).startswith(f"data.path must be a file or glob, or a folder with {expected}, got ")
    assert str(caught.value).endswith(f"got {str(tmp_path)!r}: this folder has no {expected}")


def test_empty_list(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match="no rows"):
        load_source(config(write()))
