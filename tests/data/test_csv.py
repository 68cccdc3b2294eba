"""The csv format: a user's table is read as easily as JSON lines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, RoutingData, RoutingExample

TABLE = """query,task,small,large,small_cost,large_cost,query_id,split
"What is 2 + 2,
or 3?",sums,1.0,1,0.1,0.2,one,train
"Say ""hi"", 名前",,TRUE,0.25,,0.2,,validation
"""


@pytest.fixture
def load(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> Callable[..., RoutingData]:
    """Function that writes a table and loads it."""

    def write_and_load(text: str, name: str = "mine.csv", **fields: object) -> RoutingData:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        return load_source(make_data_config(source="csv", path=str(path), **fields))

    return write_and_load


def test_every_column(load: Callable[..., RoutingData]) -> None:
    data = load(TABLE)
    assert data.pool == (Candidate("small"), Candidate("large"))
    first, second = data.examples
    scores = {"small": 1.0, "large": 1.0}
    assert first == RoutingExample(
        "one", "What is 2 + 2,\nor 3?", "sums", scores, {"small": 0.1, "large": 0.2}, None, "train"
    )
    assert (second.query, second.task, second.source_split) == ('Say "hi", 名前', "all", "validation")
    assert second.scores == {"small": 1.0, "large": 0.25}
    assert second.costs is None, "an empty cell is an unknown cost"
    assert data.warnings[0].startswith("costs are unknown on 1 of 2 queries, where small has none")


def test_the_same_as_json_lines(
    tmp_path: Path, load: Callable[..., RoutingData], make_data_config: Callable[..., DataConfig]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"query": "x", "task": "t", "scores": {"a": 1, "b": 0.5}, "costs": {"a": 0.1, "b": 0}}\n')
    lines = load_source(make_data_config(source="jsonl", path=str(path)))
    assert load("query,task,a,b,a_cost,b_cost\nx,t,1,0.5,0.1,0\n") == lines


def test_a_cost_without_a_candidate_is_a_candidate(load: Callable[..., RoutingData]) -> None:
    data = load("query,b,x_cost\nx,1,0\n", "test.csv")
    assert data.candidate_names == ["b", "x_cost"]
    assert data.examples[0].source_split == "test", "the file's name says so"


BAD = {
    "no query": ("prompt,a,b\nx,1,0\n", ":1: column 'query' is missing; the columns are prompt, a, b (data=hub"),
    "semicolons": (
        "query;a;b\nx;1;0\n",
        ":1: column 'query' is missing; the columns are query;a;b (columns must have commas",
    ),
    "a text as score": (
        "query,a,notes\nx,1,good\n",
        ":2: column 'notes' must hold scores in 0..1, got 'good': all columns",
    ),
    "no score": ("query,a,b\nx,1,\n", ":2: column 'b' must hold scores in 0..1, got ''"),
    "score above 1": ("query,a,b\nx,1,2\n", ":2: candidate 'b': score must be a number in 0..1, got 2.0"),
    "a number with an underscore": ("query,a,b\nx,1,0_1\n", ":2: column 'b' must hold scores in 0..1, got '0_1'"),
    "one cost column": ("query,a,b,a_cost\nx,1,0,0\n", ":2: no cost for candidate 'b' (the pool is a, b)"),
    "a negative cost": ("query,a,b,a_cost,b_cost\nx,1,0,0,-1\n", ":2: candidate 'b': cost must be a finite number"),
    "one candidate": ("query,a\nx,1\n", ":2: the pool must have at least 2 candidates, got ['a']"),
    "other split": ("query,a,b,split\nx,1,0,dev\n", ":2: split must be train, validation or test, got 'dev'"),
    "long line": ("query,a,b\n" + "x" * 4_194_425 + ",1,0\n", ":2: broken CSV: the line has more than 4,194,424 bytes"),
    "column twice": ("query,a,a\nx,1,0\n", ":1: column 'a' appears twice"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_table(text: str, message: str, tmp_path: Path, load: Callable[..., RoutingData]) -> None:
    with pytest.raises(ValueError) as caught:
        load(text, max_query_chars=10)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.csv'}{message}")


def test_bad_rows_are_skipped_one_by_one(tmp_path: Path, load: Callable[..., RoutingData]) -> None:
    text = "query,a,b\nx,1,0\n" + "x" * 4_194_425 + ",1,0\ny,1\nz,0,1\n"
    data = load(text, max_query_chars=10, on_bad_row="skip")
    assert [example.query for example in data.examples] == ["x", "z"]
    assert [row.location for row in data.skipped_rows] == [f"{tmp_path / 'mine.csv'}:{line}" for line in (3, 4)]
