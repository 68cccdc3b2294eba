"""The hub format: a dataset through a column mapping. Nothing here touches the network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, SkippedRow

COLUMNS = {
    "query": "text",
    "task": "subject",
    "query_id": "uid",
    "scores": {"big": "big_score", "small": "small_score"},
    "costs": {"small": "small_usd", "big": "big_usd"},
}
GOOD = {
    "text": "good",
    "subject": "sums",
    "uid": 1,
    "big_score": 1.0,
    "small_score": 0.5,
    "small_usd": 0.1,
    "big_usd": 0.2,
    "unused": "x",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what `datasets` writes out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes GOOD rows, changed as given, to a Parquet file and returns its path."""

    def write_rows(*changes: dict[str, Any], name: str = "train.parquet") -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        rows = [GOOD | {"uid": number} | change for number, change in enumerate(changes)]
        pandas.DataFrame(rows).to_parquet(path)
        return path

    return write_rows


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format, with the columns above."""

    def make(path: Path | str, columns: dict[str, Any] | None = None, **fields: Any) -> DataConfig:
        return make_data_config(source="hub", path=str(path), columns=COLUMNS | (columns or {}), **fields)

    return make


@pytest.mark.parametrize("whole_folder", [True, False])
def test_local_parquet(whole_folder: bool, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write({}, {"text": "next", "big_score": 0.0})
    data = load_source(config(path.parent if whole_folder else path))
    first, second = data.examples
    assert data.pool == (Candidate("big"), Candidate("small"))
    assert (first.query_id, first.query, first.task, first.source_split) == ("0", "good", "sums", "train")
    assert list(first.scores.items()) == [("big", 1.0), ("small", 0.5)]
    assert first.costs == {"big": 0.2, "small": 0.1}
    assert (second.query, second.scores["big"]) == ("next", 0.0)


def test_optional_columns(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write({}, {})
    examples = load_source(config(path, {"task": None, "query_id": None, "costs": {}}, hub_split="train[:2]")).examples
    assert [(e.query_id, e.task, e.costs, e.source_split) for e in examples] == [
        ("07878fd8745bb530", "all", None, None),
        ("07878fd8745bb530-2", "all", None, None),
    ]


def test_more_rows_than_a_batch(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(*[{"text": f"query {number}"} for number in range(2500)])
    examples = load_source(config(path)).examples
    assert [example.query for example in examples] == [f"query {number}" for number in range(2500)]


def test_name_config_and_split_reach_load_dataset(
    config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(*args: Any, **keywords: Any) -> datasets.Dataset:
        asked.append((args, keywords))
        return datasets.Dataset.from_list([GOOD])

    monkeypatch.setattr("datasets.load_dataset", load)
    data = load_source(config("someone/routing", hub_config="small", hub_split="test"))
    assert asked == [(("someone/routing", "small"), {"split": "test"})]
    assert data.examples[0].source_split == "test"


BAD_ROWS = {
    "score above 1": ({"big_score": 1.5}, ["candidate 'big'", "score", "got 1.5"]),
    "NaN score": ({"big_score": float("nan")}, ["candidate 'big'", "score", "got None"]),
    "negative cost": ({"big_usd": -1.0}, ["candidate 'big'", "cost", "got -1.0"]),
    "empty query": ({"text": ""}, ["query is empty"]),
    "no query": ({"text": None}, ["query", "got NoneType"]),
    "1 MB query": ({"text": "x" * 1_000_000}, ["1,000,000", "data.max_query_chars", "100,000"]),
    "no task": ({"subject": None}, ["column 'subject'", "got None"]),
    "id twice": ({"uid": 0}, ["query_id '0'", "twice"]),
}


@pytest.mark.parametrize(("change", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(
    change: dict[str, Any], words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write({}, change, {})
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    reason = str(caught.value).removeprefix(f"{path}[train]: row 2: ")
    assert all(word in reason for word in words)
    data = load_source(config(path, on_bad_row="skip"))
    assert len(data.examples) == 2
    assert data.skipped_rows == (SkippedRow(f"{path}[train]: row 2", reason),)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"query": "question"},
            ["data.columns.query must be ", "text, subject, uid, big_score, small_score", "got 'question'"],
        ),
        (
            {"scores": {"big": "big_score", "small": "tiny"}},
            ["data.columns.scores.small must be ", "big_score", "'tiny'"],
        ),
        ({"scores": {}, "costs": {}}, ["data.columns.scores", "at least 2", "[]"]),
        ({"costs": {"big": "big_usd"}}, ["data.columns.costs", "data.columns.scores (big, small)", "got {'big'"]),
    ],
)
def test_bad_mapping(
    columns: dict[str, Any], words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write({})
    if columns.get("scores"):
        columns = columns | {"costs": {}}
    with pytest.raises(ValueError) as caught:
        load_source(config(path, columns))
    assert str(caught.value).startswith(words[0])
    assert all(word in str(caught.value) for word in words)


def test_split_that_does_not_exist(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    folder = write({}).parent
    with pytest.raises(ValueError) as caught:
        load_source(config(folder, hub_split="dev"))
    wanted = f"data.path={str(folder)!r}, data.hub_config=None, data.hub_split='dev'"
    assert str(caught.value).startswith(f"{wanted}: cannot be loaded: ")
    assert "dev" in str(caught.value).removeprefix(wanted)


def test_dataset_that_does_not_exist(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match=r"^data\.path='.*/gone', .*: cannot be loaded: "):
        load_source(config(tmp_path / "gone"))


def test_dataset_without_rows(config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = datasets.Dataset.from_list([GOOD]).select([])
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: empty)
    with pytest.raises(ValueError, match=r"^data\.path='someone/routing' .*no rows$"):
        load_source(config("someone/routing"))


def test_broken_file_says_what_is_broken(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write({})
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"cannot be loaded: .*Parquet magic bytes not found"):
        load_source(config(path))


def test_ratings_of_a_judge_beside_a_reference(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    rows = [{"small_score": rating, "text": f"query {rating}"} for rating in (1, 4, 5)]
    scores = {"small": "small_score", "big": None}
    data = load_source(config(write(*rows), {"scores": scores, "costs": {}}, score_range=[1, 5]))
    assert [dict(one.scores) for one in data.examples] == [
        {"small": 0.0, "big": 1.0},
        {"small": 0.75, "big": 1.0},
        {"small": 1.0, "big": 1.0},
    ]
    for rating in (0, 6, None):
        with pytest.raises(ValueError, match=r"row 1: column 'small_score' must be a number in 1\.\.5, got "):
            load_source(config(write({"small_score": rating}), {"scores": scores, "costs": {}}, score_range=[1, 5]))
