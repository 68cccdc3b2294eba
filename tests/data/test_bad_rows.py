"""Every kind of bad row, seen through the jsonl format: the message's place and reason, and what skipping leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import SkippedRow

GOOD = b'{"query": "good", "scores": {"a": 1, "b": 0}}\n'
SCORES = b'"scores": {"a": 1, "b": 0}'

BAD_LINES = {
    "broken JSON": (b'{"query": "x", "scores" {"a": 1}}', "broken JSON: Expecting ':' delimiter at column 25"),
    "two objects in a line": (b'{"query": "x"} {}', "broken JSON: Extra data at column 16"),
    "too deep": (b'{"query": ' + b"[" * 100_000, "broken JSON: Too many nested lists or objects at column 1"),
    "NaN score": (b'{"query": "x", "scores": {"a": NaN, "b": 0}}', "NaN is not a JSON number"),
    "infinite cost": (
        b'{"query": "x", ' + SCORES + b', "costs": {"a": 1, "b": -Infinity}}',
        "-Infinity is not a JSON number",
    ),
    "overflowing score": (
        b'{"query": "x", "scores": {"a": 1e999, "b": 0}}',
        "candidate 'a': score must be a number in 0..1, got inf",
    ),
    "score above 1": (
        b'{"query": "x", "scores": {"a": 1.5, "b": 0}}',
        "candidate 'a': score must be a number in 0..1, got 1.5",
    ),
    "score below 0": (
        b'{"query": "x", "scores": {"a": 0, "b": -1}}',
        "candidate 'b': score must be a number in 0..1, got -1",
    ),
    "score as text": (
        b'{"query": "x", "scores": {"a": "1", "b": 0}}',
        "candidate 'a': score must be a number in 0..1, got '1'",
    ),
    "score null": (
        b'{"query": "x", "scores": {"a": null, "b": 0}}',
        "candidate 'a': score must be a number in 0..1, got None",
    ),
    "unknown candidate": (
        b'{"query": "x", "scores": {"a": 1, "b": 0, "c": 1}}',
        "unknown candidate 'c' (the pool is a, b)",
    ),
    "missing candidate": (b'{"query": "x", "scores": {"a": 1}}', "no score for candidate 'b' (the pool is a, b)"),
    "misspelt candidate": (
        b'{"query": "x", "scores": {"a": 1, "B": 0}}',
        "unknown candidate 'B'; no score for candidate 'b' (the pool is a, b)",
    ),
    "empty query": (b'{"query": "", ' + SCORES + b"}", "query is empty"),
    "blank query": (b'{"query": " \\n\\u2003", ' + SCORES + b"}", "query is empty"),
    "1 MB query": (
        b'{"query": "' + b"x" * 1_000_000 + b'", ' + SCORES + b"}",
        "query has 1,000,000 characters, data.max_query_chars allows 100,000",
    ),
    "query as number": (b'{"query": 5, ' + SCORES + b"}", "query must be a text, got int"),
    "query with half a character": (
        b'{"query": "x\\ud83d", ' + SCORES + b"}",
        "query holds half a surrogate pair ('\\ud83d'), which is no character",
    ),
    "key twice": (b'{"query": "x", "query": "y", ' + SCORES + b"}", "key 'query' appears twice in one object"),
    "candidate twice": (b'{"query": "x", "scores": {"a": 1, "b": 0, "a": 0}}', "key 'a' appears twice in one object"),
    "no query": (b"{" + SCORES + b"}", "key 'query' is missing"),
    "no scores": (b'{"query": "x"}', "key 'scores' is missing"),
    "list for object": (b"[1, 2]", "the row must be an object, got list"),
    "scores as list": (b'{"query": "x", "scores": [1, 0]}', "'scores' must be an object of candidates, got [1, 0]"),
    "task as number": (
        b'{"query": "x", "task": 3, ' + SCORES + b"}",
        "'task' must be a text that is not blank, got 3",
    ),
    "blank query_id": (
        b'{"query": "x", "query_id": " ", ' + SCORES + b"}",
        "'query_id' must be a text that is not blank, got ' '",
    ),
    "half a character in a task": (
        b'{"query": "x", "task": "t\\ud83d", ' + SCORES + b"}",
        "task holds half a surrogate pair ('\\ud83d'), which is no character",
    ),
    "half a character in an id": (
        b'{"query": "x", "query_id": "\\udc00", ' + SCORES + b"}",
        "query_id holds half a surrogate pair ('\\udc00'), which is no character",
    ),
    "half a character beside an id": (
        b'{"query": "x\\ud83d", "query_id": "one", ' + SCORES + b"}",
        "query holds half a surrogate pair ('\\ud83d'), which is no character",
    ),
    "long line": (
        b'{"query": "x", "task": "' + b"x" * 5_394_304 + b'", ' + SCORES + b"}",
        "the line has more than 5,394,304 bytes, the most that data.max_query_chars=100000 allows",
    ),
    "an integer of 5,000 digits": (
        b'{"query": "x", "scores": {"a": ' + b"1" * 5000 + b', "b": 0}}',
        "broken JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits at column 1",
    ),
    "many unknown candidates": (
        b'{"query": "x", "scores": {' + b", ".join(b'"%d": 0' % number for number in range(100)) + b"}}",
        "; ".join(f"unknown candidate '{number}'" for number in range(30)) + "; 72 more (the pool is a, b)",
    ),
    "other split": (
        b'{"query": "x", "split": "dev", ' + SCORES + b"}",
        "split must be train, validation or test, got 'dev'",
    ),
    "split as list": (
        b'{"query": "x", "split": [], ' + SCORES + b"}",
        "split must be train, validation or test, got []",
    ),
    "unknown key": (
        b'{"query": "x", "score": 1, ' + SCORES + b"}",
        "unknown key 'score'; the keys are costs, query, query_id, scores, split, task",
    ),
    "missing cost": (
        b'{"query": "x", ' + SCORES + b', "costs": {"a": 0.1}}',
        "no cost for candidate 'b' (the pool is a, b)",
    ),
    "negative cost": (
        b'{"query": "x", ' + SCORES + b', "costs": {"a": -0.1, "b": 0}}',
        "candidate 'a': cost must be a finite number of USD, at least 0, got -0.1",
    ),
    "cost as truth value": (
        b'{"query": "x", ' + SCORES + b', "costs": {"a": true, "b": 0}}',
        "candidate 'a': cost must be a finite number of USD, at least 0, got True",
    ),
    "not UTF-8": (b'{"query": "\xff", ' + SCORES + b"}", "not UTF-8: byte 0xff at offset 11"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES.keys())
@pytest.mark.slow
def test_bad_row(line: bytes, reason: str, tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(ValueError) as caught:
        load_source(make_data_config(source="jsonl", path=str(path)))
    assert str(caught.value) == f"{path}:2: {reason}"

    data = load_source(make_data_config(source="jsonl", path=str(path), on_bad_row="skip"))
    assert len(data.examples) == 2
    assert data.skipped_rows == (SkippedRow(f"{path}:2", reason),)
