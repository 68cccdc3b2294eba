"""`data.group_by` in the sources whose rows have columns of the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source

ROWS = [
    {"query": "x", "book": 7, "scores": {"a": 1, "b": 0}},
    {"query": "y", "book": "two", "scores": {"a": 0, "b": 1}},
]
COLUMNS = {"query": "query", "task": None, "query_id": None, "scores": {"a": "a", "b": "b"}, "costs": {}}


@pytest.fixture
def write(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that writes rows in a source's format and returns the config, grouped by `book`."""

    def write_rows(source: str, rows: list[dict[str, object]]) -> DataConfig:
        path = tmp_path / ("mine.jsonl" if source == "jsonl" else "mine.csv")
        if source == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            lines = [f"{row['query']},{row.get('book', '')},{row['scores']['a']},{row['scores']['b']}" for row in rows]
            path.write_text("\n".join(["query,book,a,b", *lines]) + "\n")
        more = {"columns": COLUMNS} if source == "hub" else {}
        return make_data_config(source=source, path=str(path), group_by="book", **more)

    return write_rows


@pytest.mark.parametrize("source", ["jsonl", "csv", pytest.param("hub", marks=pytest.mark.slow)])
def test_a_column_is_the_group(source: str, write: Callable[..., DataConfig]) -> None:
    data = load_source(write(source, ROWS))
    assert [example.group for example in data.examples] == ["7", "two"]
    assert data.candidate_names == ["a", "b"]


@pytest.mark.parametrize("source", ["jsonl", "csv"])
def test_a_row_without_a_group(source: str, write: Callable[..., DataConfig]) -> None:
    config = write(source, [ROWS[0], {"query": "y", "scores": {"a": 0, "b": 1}}])
    with pytest.raises(ValueError, match=r"mine\.(jsonl:2|csv:3): .*'book'"):
        load_source(config)


def test_a_missing_column(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("query,a,b\nx,1,0\n")
    with pytest.raises(ValueError, match=r"mine\.csv:1: column 'book', which is data\.group_by, is missing"):
        load_source(make_data_config(source="csv", path=str(path), group_by="book"))
