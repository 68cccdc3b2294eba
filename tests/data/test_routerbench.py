"""The routerbench format: a wide table with a score and a cost column for each candidate."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.sources.turns import join_turns
from causal_lm_router.routing import Candidate, SkippedRow

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults"

NAMES = ["mistralai/Mistral-7B-v0.1", "gpt-4"]


def make_table(*rows: dict[str, Any]) -> pandas.DataFrame:
    filled = []
    for number, row in enumerate(rows):
        values: dict[str, Any] = {"sample_id": f"mmlu.{number}", "prompt": f"query {number}", "eval_name": "mmlu"}
        for index, name in enumerate(NAMES):
            values |= {name: float(index), f"{name}|model_response": "hm", f"{name}|total_cost": 0.5 + index}
        filled.append(values | {"oracle_model_to_route_to": NAMES[1]} | row)
    return pandas.DataFrame(filled)


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format."""
    return lambda path, **fields: make_data_config(source="routerbench", path=path and str(path), **fields)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a table in the format of its suffix and returns its path."""

    def write_table(table: pandas.DataFrame, suffix: str = ".csv") -> Path:
        path = tmp_path / f"table{suffix}"
        if suffix == ".csv":
            table.to_csv(path, index=False)
        elif suffix == ".parquet":
            table.to_parquet(path)
        else:
            table.to_pickle(path)
        return path

    return write_table


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pkl"])
def test_every_file_format(suffix: str, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    table = make_table({"prompt": "['one, two']"}, {"prompt": "[see below]", "gpt-4": 0.25})
    data = load_source(config(write(table, suffix), allow_pickle=True))
    first, second = data.examples
    assert data.pool == (Candidate(NAMES[0]), Candidate(NAMES[1]))
    assert (first.query_id, first.query, first.task) == ("mmlu.0", "one, two", "mmlu")
    assert list(first.scores.items()) == [(NAMES[0], 0.0), (NAMES[1], 1.0)]
    assert first.costs == {NAMES[0]: 0.5, NAMES[1]: 1.5}
    assert second.query == "[see below]", "a prompt in brackets is no list of turns"
    assert second.scores["gpt-4"] == 0.25


@pytest.mark.parametrize(
    ("prompt", "query"),
    [
        ("['first', \"it's second\"]", "first\n\nit's second"),
        (["first", "second"], "first\n\nsecond"),
        (numpy.array(["first", "second"]), "first\n\nsecond"),
        ("['first' \"it's second\"]", "first\n\nit's second"),
        ('["first", "sec\\nond"]', "first\n\nsec\nond"),
        ([{"role": "system", "content": "first"}, {"role": "user", "content": "second"}], "first\n\nsecond"),
        ("[{'role': 'user', 'content': 'first'}\n {'content': '}', 'role': 'user'}]", "first\n\n}"),
        ("[1, 2]", "[1, 2]"),
        ("[]", "[]"),
        ("['a', 'b'] is a list. Sort it.", "['a', 'b'] is a list. Sort it."),
        (r"[\d+]", r"[\d+]"),
        ("[" * 100 + "]" * 100, "[" * 100 + "]" * 100),
    ],
    ids=[
        "turns as text",
        "turns",
        "turns in an array",
        "turns as NumPy prints them",
        "turns as JSON",
        "chat",
        "chat as NumPy prints it",
        "numbers",
        "empty list",
        "no turns",
        "no literal",
        "nested",
    ],
)
def test_prompts(prompt: Any, query: str, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    table = make_table({"prompt": prompt}, {})
    assert load_source(config(write(table, ".pkl"), allow_pickle=True)).examples[0].query == query


def test_right_or_wrong_scores(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    table = make_table({"gpt-4": True}, {"gpt-4": False})
    for suffix in (".csv", ".parquet", ".pkl"):
        examples = load_source(config(write(table, suffix), allow_pickle=True)).examples
        assert [example.scores["gpt-4"] for example in examples] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("['a' 'b', 'c']", "a list that cannot be read"),
        ("['a''b']", "a list that cannot be read"),
        ("['a'] + ['b']", "a list that cannot be read"),
        ("['a', 1]", "a list that cannot be read"),
        ('["a", 1]', "a turn must be a text, got 1"),
        ([], "at least one turn"),
        ([{"role": "assistant", "content": "x"}], "a turn must have a role (system or user) and a content"),
        ([{"role": "user", "content": "x", "name": "y"}], "a turn must have a role"),
    ],
)
def test_turns_that_cannot_be_read_safely(prompt: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        join_turns(prompt)


@pytest.mark.parametrize("name", ["np", "chat"])
def test_a_csv_is_read_as_the_parquet_it_was_made_of(name: str, config: Callable[..., DataConfig]) -> None:
    paths = [FAULTS / f"{name}{suffix}" for suffix in (".csv", ".parquet")]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"no {paths}")
    one, other = (load_source(config(path)).examples for path in paths)
    assert one == other
    assert one[0].query == "Write a poem about item 0.\n\nNow shorten it."


def test_an_empty_cost_is_unknown(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    for suffix in (".csv", ".parquet", ".pkl"):
        path = write(make_table({}, {"gpt-4|total_cost": float("nan")}), suffix)
        data = load_source(config(path, allow_pickle=True))
        assert [example.costs is None for example in data.examples] == [False, True]
        assert data.warnings[0].startswith("costs are unknown on 1 of 2 queries, where gpt-4 has none")


class _Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickle_is_refused_without_the_setting(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert all(words in str(caught.value) for words in ("data.allow_pickle must be true", str(path), "code"))
    assert not (tmp_path / "exploded").exists()


def test_hub_file_is_refused_without_the_setting(
    config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("downloaded before asking"))
    with pytest.raises(ValueError, match=r"data\.allow_pickle .*withmartian/routerbench/routerbench_0shot\.pkl"):
        load_source(config(None))


def test_hub_file(
    write: Callable[..., Path], config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(make_table({}), ".pkl")
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kw: asked.append((args, kw)) or str(path))
    assert len(load_source(config(None, allow_pickle=True)).examples) == 1
    assert asked == [(("withmartian/routerbench", "routerbench_0shot.pkl"), {"repo_type": "dataset"})]


def test_hub_that_cannot_be_reached(config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(
        ValueError, match=r"^data\.path must be a local table where .* cannot be downloaded, got None: no network"
    ):
        load_source(config(None, allow_pickle=True))


BAD_ROWS = {
    "score above 1": ({"gpt-4": 1.5}, ["candidate 'gpt-4'", "score", "got 1.5"]),
    "negative cost": ({"gpt-4|total_cost": -1.0}, ["candidate 'gpt-4'", "cost", "got -1.0"]),
    "empty query": ({"prompt": " "}, ["query is empty"]),
    "sample twice": ({"sample_id": "mmlu.0"}, ["query_id 'mmlu.0'", "twice"]),
    "no task": ({"eval_name": " "}, ["'eval_name'", "got ' '"]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pkl"])
@pytest.mark.parametrize(("row", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(
    row: dict[str, Any], words: list[str], suffix: str, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    table = make_table({}, row, {})
    path = write(table, suffix)
    location = f"{path}:3" if suffix == ".csv" else f"{path}: row 2"
    with pytest.raises(ValueError) as caught:
        load_source(config(path, allow_pickle=True))
    reason = str(caught.value).removeprefix(f"{location}: ")
    assert all(word in reason for word in words)
    data = load_source(config(path, allow_pickle=True, on_bad_row="skip"))
    assert len(data.examples) == 2
    assert data.skipped_rows == (SkippedRow(location, reason),)


@pytest.mark.parametrize(("suffix", "location"), [(".csv", ":2"), (".parquet", ": row 1"), (".pkl", ": row 1")])
def test_score_as_text(
    suffix: str, location: str, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(make_table({"gpt-4": "good"}), suffix)
    with pytest.raises(ValueError) as caught:
        load_source(config(path, allow_pickle=True))
    assert str(caught.value).startswith(f"{path}{location}: candidate 'gpt-4': score ")
    assert "'good'" in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pkl"])
def test_missing_score(suffix: str, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(make_table({}, {"gpt-4": float("nan")}), suffix)
    with pytest.raises(ValueError, match=r"candidate 'gpt-4': score .*got None$"):
        load_source(config(path, allow_pickle=True))


def test_missing_column(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(make_table({}).drop(columns="eval_name"))
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"{path}: column 'eval_name' is missing")
    assert "sample_id, prompt, " in str(caught.value)


def test_table_without_candidates(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(make_table({})[["sample_id", "prompt", "eval_name", "gpt-4"]])
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert all(words in str(caught.value) for words in ("|total_cost", "sample_id, prompt, eval_name, gpt-4"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("table.parquet", b"PAR", "Parquet"),
        ("table.pkl", b"junk", "cannot be unpickled"),
        ("table.pkl", b"", "cannot be unpickled"),
        ("table.pkl", pickle.dumps([1]), "got list"),
        ("table.txt", b"", ".csv, .parquet, .pkl, .pickle"),
        ("table.csv", b"", "header"),
    ],
    ids=["broken parquet", "broken pickle", "empty pickle", "pickled list", "other suffix", "empty csv"],
)
def test_unreadable_file(
    name: str, content: bytes, reason: str, tmp_path: Path, config: Callable[..., DataConfig]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_source(config(tmp_path / name, allow_pickle=True))
    assert name in str(caught.value)
    assert reason in str(caught.value)


def test_table_without_rows(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match="no rows"):
        load_source(config(write(make_table({})[:0], ".parquet")))
