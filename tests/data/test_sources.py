"""What all sources share: dispatch, the files a path means, the pool file, strict JSON lists."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig, Source
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.sources.files import source_split
from causal_lm_router.data.sources.pool import answer_cost, read_pool
from causal_lm_router.data.sources.rows import describe_mismatch, hash_query
from causal_lm_router.data.sources.strict_json import find_repeated, read_list
from causal_lm_router.routing import Candidate


@pytest.mark.parametrize(
    "source",
    ["llmrouter", "routerdc", "routellm", "routerbench", "jsonl", "csv", "mmlu_pro", "preferences"],
    ids=lambda source: f"source={source}",
)
def test_every_source_names_a_missing_file(
    source: str, tmp_path: Path, make_data_config: Callable[..., DataConfig]
) -> None:
    path = str(tmp_path / "gone.csv")
    with pytest.raises(ValueError) as caught:
        load_source(make_data_config(source=source, path=path))
    assert str(caught.value).startswith("data.path must be a ")
    assert f", got {path!r}: no such file" in str(caught.value)


@pytest.mark.parametrize("source", [source for source in Source if source is not Source.own])
def test_every_source_has_a_reader(source: Source) -> None:
    reader = __import__(f"causal_lm_router.data.sources.{source}", fromlist=["load"])
    assert callable(reader.load)


@pytest.mark.slow
def test_importing_sources_is_cheap() -> None:
    heavy = ["datasets", "huggingface_hub", "pandas", "pyarrow", "reasoning_gym", "torch"]
    code = f"import sys, causal_lm_router.data.sources; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("default_routing_train_data.jsonl", "train"),
        ("dcrouter_test.json", "test"),
        ("Train.jsonl", "train"),
        ("testing-2.jsonl", "test"),
        ("latest.jsonl", None),
        ("contest.jsonl", None),
        ("trainer.jsonl", None),
        ("train_test.jsonl", None),
        ("data.jsonl", None),
    ],
)
def test_source_split(name: str, split: str | None) -> None:
    assert source_split(Path("test") / name) == split


def test_hash_query_ignores_case_and_white_space() -> None:
    assert hash_query("  What is\n2 + 2? ") == hash_query("what IS 2 +\u00a02?") == "6da96e8bae2933f3"
    assert hash_query("what is 2 + 3?") != hash_query("what is 2 + 2?")


class _CountingText(str):
    """A text that counts how often any is compared with another."""

    __hash__ = str.__hash__
    compared = 0

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return str.__eq__(self, other)


def test_a_repeated_key_is_found_in_one_pass() -> None:
    names = [_CountingText(number % 5000) for number in range(10_000)]
    assert find_repeated(names) == "0"
    assert _CountingText.compared < 100
    # Each candidate of the row is looked up in the pool once, and each of the pool in the row.
    _CountingText.compared = 0
    described = describe_mismatch(dict.fromkeys(names[:5000]), names[5000:], "score")
    assert described.startswith(" (the pool is 0, 1, 2")
    assert _CountingText.compared < 11_000


def test_read_pool(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text('{"b c": {"input_price": 0.2, "output_price": 0, "feature": "fast", "size": "7B"}, "a": {}}')
    assert read_pool(path) == (Candidate("b c", 0.2, 0.0, "fast", 7.0), Candidate("a", None, None, ""))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", [":1: broken JSON: Expecting value at column 1"]),
        ('{"a": {},\n "b" {}}', [":2: broken JSON: Expecting ':' delimiter at column 6"]),
        ('{"a": {}, "b": {}} x', [":1: broken JSON: Extra data at column 20"]),
        ("[]", [": ", "object", "got list"]),
        ('{"a": {}, "a": {}}', [": key 'a' ", "twice"]),
        ('{"a": 1, "b": {}}', [": candidate 'a'", "got int"]),
        ('{"a": {"feature": 1}, "b": {}}', [": candidate 'a': 'feature'", "got int"]),
        ('{"a": {"input_price": "0.2"}, "b": {}}', [": candidate 'a': input_price", "USD", "got '0.2'"]),
        ('{"a": {}, "b": {"output_price": -1}}', [": candidate 'b': output_price", "USD", "got -1"]),
        ('{"a": {}}', [": ", "at least 2 candidates", "['a']"]),
    ],
)
def test_bad_pool_file(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_pool(path)
    assert str(caught.value).startswith(f"{path}{words[0]}")
    assert all(word in str(caught.value) for word in words)


def test_missing_pool_file(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match=r"data\.pool_path must be a file, got 'gone\.json'"):
        load_source(make_data_config(source="jsonl", path=str(tmp_path), pool_path="gone.json"))


def test_answer_cost() -> None:
    assert answer_cost(Candidate("a", 3.0, 15.0), 1000, 200) == 0.006  # (3000 + 3000) / 1e6
    assert answer_cost(Candidate("a", 3.0, None), 1000, 200) is None


def test_read_list_streams_items_up_to_broken_syntax(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('[\n {"a": 1},\n {"b": NaN, "c": 1},\n {"c" 3}\n]')
    items = read_list(path)
    assert next(items)[1].row() == {"a": 1}
    number, item = next(items)
    assert number == 2
    with pytest.raises(ValueError, match="NaN"):
        item.row()
    with pytest.raises(ValueError) as caught:
        next(items)
    assert str(caught.value) == f"{path}: item 3: broken JSON: Expecting ':' delimiter at line 4, column 7"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ": the file must hold a JSON list"),
        ('{"a": 1}', ": the file must hold a JSON list"),
        ("[1", ": item 1: broken JSON: Expecting ',' or ']' at line 1, column 3"),
        ("[1,\n]", ": item 2: broken JSON: Expecting value at line 2, column 1"),
        ("[1] 2", ": item 1: broken JSON: Extra data after the list at line 1, column 5"),
    ],
)
def test_broken_list(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        list(read_list(path))
    assert str(caught.value) == f"{path}{reason}"


def test_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(" [ ] \n")
    assert list(read_list(path)) == []


def test_list_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(b'["a",\n"\xe9"]')
    with pytest.raises(ValueError) as caught:
        list(read_list(path))
    assert str(caught.value) == f"{path}:2: not UTF-8: byte 0xe9 at offset 7"
