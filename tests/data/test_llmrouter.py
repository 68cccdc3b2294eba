"""The llmrouter format: a row for each query and candidate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.sources.llmrouter import FEWEST_QUERIES
from causal_lm_router.routing import Candidate, SkippedRow

POOL = {"big": {"input_price": 10, "output_price": 30}, "small": {"input_price": 1, "output_price": 2}}


def make_row(query: str, candidate: str, performance: Any, **fields: Any) -> dict[str, Any]:
    return {
        "task_name": "sums",
        "query": query,
        "ground_truth": "4",
        "metric": "em",
        "model_name": candidate,
        "response": "4",
        "performance": performance,
        "embedding_id": 0,
        "token_num": 150,
        "input_tokens": 100,
        "output_tokens": 50,
        "response_time": 0.5,
    } | fields


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes rows as JSON lines and returns the file's path."""

    def write_rows(*rows: dict[str, Any], name: str = "routing.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write_rows


@pytest.fixture
def write_pool(tmp_path: Path) -> Callable[[], Path]:
    """Function that writes POOL beside the data, under LLMRouter's name."""

    def write() -> Path:
        path = tmp_path / "default_llm.json"
        path.write_text(json.dumps(POOL))
        return path

    return write


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format."""
    return lambda path, **fields: make_data_config(source="llmrouter", path=str(path), **fields)


def test_rows_in_any_order_become_queries(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(
        make_row("one\u2028line", "small", 1),
        make_row("two", "big", 0.25, task_name="facts"),
        make_row("one\u2028line", "big", 0.0),
        make_row("two", "small", 0, task_name="facts"),
    )
    data = load_source(config(path))
    assert data.pool == (Candidate("small"), Candidate("big")), "without a pool file: the order of first rows"
    assert [(e.query, e.task, list(e.scores.items())) for e in data.examples] == [
        ("one\u2028line", "sums", [("small", 1.0), ("big", 0.0)]),
        ("two", "facts", [("small", 0.0), ("big", 0.25)]),
    ]
    assert all(example.costs is None and example.source_split is None for example in data.examples)


def test_pool_file_beside_gives_order_and_costs(
    write: Callable[..., Path], write_pool: Callable[[], Path], config: Callable[..., DataConfig]
) -> None:
    write_pool()
    path = write(
        make_row("one", "small", 1),
        make_row("one", "big", 1, input_tokens=200, output_tokens=10),
        make_row("two", "small", 1),
        make_row("two", "big", 1, output_tokens=None),
    )
    first, second = load_source(config(path)).examples
    assert list(first.scores) == ["big", "small"]
    assert first.costs == {"big": 0.0023, "small": 0.0002}  # (200*10 + 10*30) / 1e6, (100*1 + 50*2) / 1e6
    assert second.costs is None, "one unknown count leaves the whole query without costs"


def test_files_of_a_folder_and_their_splits(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    both = [make_row("one", "small", 1), make_row("one", "big", 0)]
    write(*both, name="default_routing_test_data.jsonl")
    write(*both[:1], name="default_routing_train_data.jsonl")
    write(*both[1:], name="more_train.jsonl")
    write({"query": "one", "task_name": "sums"}, name="default_query_train.jsonl")
    data = load_source(config(tmp_path))
    assert [(e.source_split, e.query) for e in data.examples] == [("train", "one"), ("test", "one")]
    assert data.examples[1].query_id == data.examples[0].query_id + "-2"


def test_candidates_without_any_row_leave_the_pool(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    pool_path = tmp_path / "pool.json"
    pool_path.write_text('{"unused": {}, "big": {}, "small": {}}')
    path = write(make_row("one", "small", 1), make_row("one", "big", 0))
    assert load_source(config(path, pool_path=str(pool_path))).candidate_names == ["big", "small"]


def test_tasks_from_the_query_file(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    rows = [make_row("one", "small", 1), make_row("one", "big", 0)]
    for row in rows:
        del row["task_name"]
    path = write(*rows)
    query_path = tmp_path / "queries.jsonl"
    query_path.write_text('{"query": "one", "task_name": "logic"}\n')
    assert load_source(config(path, query_path=str(query_path))).examples[0].task == "logic"
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == f"{path}:1: key 'task_name' is missing"


GOOD = [make_row("good", "big", 1), make_row("good", "small", 0)]
BAD_ROWS = {
    "NaN": (make_row("bad", "big", float("nan")), ["NaN"]),
    "score above 1": (make_row("bad", "big", 1.5), ["score", "got 1.5"]),
    "score as text": (make_row("bad", "big", "1"), ["score", "got '1'"]),
    "unknown candidate": (make_row("good", "bigger", 1), ["unknown candidate 'bigger'", "big, small"]),
    "empty query": (make_row("", "big", 1), ["query is empty"]),
    "1 MB query": (make_row("x" * 1_000_000, "big", 1), ["1,000,000", "data.max_query_chars", "100,000"]),
    "pair twice": (make_row("good", "small", 1), ["'small'", "already"]),
    "candidate as number": (make_row("bad", "big", 1) | {"model_name": 3}, ["'model_name'", "got 3"]),
    "negative count": (make_row("bad", "big", 1, input_tokens=-1), ["'input_tokens'", "got -1"]),
    "count as text": (make_row("bad", "big", 1, output_tokens="9"), ["'output_tokens'", "got '9'"]),
    "no performance": ({"query": "bad", "task_name": "x", "model_name": "big"}, ["'performance'", "missing"]),
    "no query": ({"task_name": "x"}, ["'query'", "missing"]),
}


@pytest.mark.parametrize(("row", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(
    row: dict[str, Any],
    words: list[str],
    write: Callable[..., Path],
    write_pool: Callable[[], Path],
    config: Callable[..., DataConfig],
) -> None:
    write_pool()
    path = write(*GOOD, row)
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    reason = str(caught.value).removeprefix(f"{path}:3: ")
    assert all(word in reason for word in words)

    data = load_source(config(path, on_bad_row="skip"))
    assert [example.scores for example in data.examples] == [{"big": 1.0, "small": 0.0}]
    assert data.skipped_rows == (SkippedRow(f"{path}:3", reason),)


def test_query_without_a_row_for_every_candidate(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(*GOOD, make_row("half", "small", 1))
    reason = "no score for candidate 'big' (the pool is big, small)"
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == f"{path}:3: {reason}"
    data = load_source(config(path, on_bad_row="skip"))
    assert [example.query for example in data.examples] == ["good"]
    assert data.skipped_rows == (SkippedRow(f"{path}:3", reason),)


def test_broken_line_also_costs_its_query(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(*GOOD, make_row("half", "small", 1))
    with path.open("ab") as file:
        file.write(b'{"task_name": "sums", "query": "half", "model_')
    data = load_source(config(path, on_bad_row="skip"))
    assert [row.location for row in data.skipped_rows] == [f"{path}:4", f"{path}:3"]


def test_token_counts_that_never_vary_are_warned_of(
    write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    rows = [
        make_row(f"query {number}", name, 1, output_tokens=50 if name == "big" else number, input_tokens=number)
        for number in range(FEWEST_QUERIES)
        for name in POOL
    ]
    assert [warning.split(" is ")[0] for warning in load_source(config(write(*rows))).warnings] == [
        "output_tokens of big"
    ]
    assert load_source(config(write(*rows[:-2]))).warnings == (), "too few to tell"


def test_empty_file(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write()
    with pytest.raises(ValueError, match="no rows"):
        load_source(config(path))
