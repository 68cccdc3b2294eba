"""The jsonl format, and the strictness that all formats share, seen through it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig, TieBreak
from causal_lm_router.data.labels import choose_labels
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate

GOOD = b'{"query": "good", "scores": {"a": 1, "b": 0}}\n'
SCORES = b'"scores": {"a": 1, "b": 0}'


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes lines to a file in a fresh folder and returns its path."""

    def write_lines(*lines: bytes, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(lines))
        return path

    return write_lines


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format."""
    return lambda path, **fields: make_data_config(source="jsonl", path=str(path), **fields)


def test_reads_every_key(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    row = {
        "query": "What is 2 + 2?",
        "scores": {"small": 0.5, "large": True},
        "task": "arithmetic",
        "query_id": "sum-1",
        "costs": {"large": 0.002, "small": 0},
        "split": "test",
    }
    data = load_source(config(write(json.dumps(row).encode())))
    (example,) = data.examples
    assert data.pool == (Candidate("small"), Candidate("large"))
    assert data.skipped_rows == ()
    assert (example.query_id, example.query, example.task) == ("sum-1", "What is 2 + 2?", "arithmetic")
    assert list(example.scores.items()) == [("small", 0.5), ("large", 1.0)]
    assert list((example.costs or {}).items()) == [("small", 0.0), ("large", 0.002)]
    assert example.source_split == "test"


def test_what_is_not_given(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    line = (
        b'{"query": "Good", "scores": {"b": 0, "a": 1}, "task": null, "costs": null, "split": null, "query_id": null}'
    )
    first, second, third = load_source(config(write(GOOD, line + b"\n", b"\r\n", GOOD))).examples
    assert first.task == second.task == "all"
    assert first.costs is second.costs is first.source_split is second.source_split is None
    assert list(second.scores) == ["a", "b"], "the pool's order, not the row's"
    # The ids name the text whatever its case: blake2b, 8 bytes, of "good".
    assert [example.query_id for example in (first, second, third)] == [
        "07878fd8745bb530",
        "07878fd8745bb530-2",
        "07878fd8745bb530-3",
    ]


def test_truncated_last_line(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(GOOD, b'{"query": "good", "scores": {')
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    problem = "broken JSON: Expecting property name enclosed in double quotes at column 30"
    assert str(caught.value) == f"{path}:2: {problem} (the file ends within this line: is it truncated?)"


def test_given_query_id_twice(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    line = b'{"query": "x", "query_id": "one", ' + SCORES + b"}\n"
    path = write(line, GOOD, line)
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"{path}:3: query_id 'one' ")
    assert len(load_source(config(path, on_bad_row="skip")).examples) == 2


def test_a_bad_first_row_does_not_fix_the_pool(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(b'{"query": "x", "scores": {"c": 1, "d": 7}}\n', GOOD)
    data = load_source(config(path, on_bad_row="skip"))
    assert data.candidate_names == ["a", "b"]
    assert [row.location for row in data.skipped_rows] == [f"{path}:1"]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_file(content: bytes, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(content)
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"data.path={str(path)!r} ")
    assert "no rows" in str(caught.value)


def test_nothing_usable_is_an_error_even_when_rows_are_skipped(
    write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(b"{}\n", b"[]\n")
    with pytest.raises(ValueError) as caught:
        load_source(config(path, on_bad_row="skip"))
    first = f"the first is {path}:1: key 'scores' is missing"
    assert str(caught.value) == f"data.path={str(path)!r} has no usable rows: all 2 were skipped; {first}"


def test_missing_file_names_the_key(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == (
        f"data.path must be a file or glob, or a folder with *.jsonl, got {str(path)!r}: no such file or folder"
    )


def test_no_path(make_data_config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match=r"data\.path must be a \.jsonl file, .*got None"):
        load_source(make_data_config(source="jsonl", path=None))


def test_folder_without_files(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError) as caught:
        load_source(config(tmp_path))
    assert str(caught.value) == (
        f"data.path must be a file or glob, or a folder with *.jsonl, got {str(tmp_path)!r}: this folder has no *.jsonl"
    )


def test_folder_and_glob(tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    write(GOOD, name="a_test.jsonl")
    write(GOOD, GOOD, name="b_train.jsonl")
    write(GOOD.replace(b"}}", b'}, "split": "train"}'), name="contest.jsonl")
    write(b"not read", name="notes.txt")
    splits = [example.source_split for example in load_source(config(tmp_path)).examples]
    assert splits == ["train", "train", "train", "test"], "files of the test split come last"
    assert len(load_source(config(tmp_path / "*_t*.jsonl")).examples) == 3
    with pytest.raises(ValueError, match="no such file or folder"):
        load_source(config(tmp_path / "*_x*.jsonl"))


def test_pool_file_fixes_candidates_order_and_prices(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    pool_path = tmp_path / "pool.json"
    pool_path.write_text('{"b": {"input_price": 2, "output_price": 4, "feature": "big"}, "a": {}}')
    path = write(GOOD)
    data = load_source(config(path, pool_path=str(pool_path)))
    assert data.pool == (Candidate("b", 2.0, 4.0, "big"), Candidate("a"))
    assert list(data.examples[0].scores.items()) == [("b", 0.0), ("a", 1.0)]
    assert data.examples[0].costs is None

    pool_path.write_text('{"b": {}, "a": {}, "c": {}}')
    with pytest.raises(ValueError) as caught:
        load_source(config(path, pool_path=str(pool_path)))
    assert str(caught.value) == f"{path}:1: no score for candidate 'c' (the pool is b, a, c)"


def test_assumed_output_tokens_estimate_costs(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    pool_path = tmp_path / "pool.json"
    pool_path.write_text('{"a": {"input_price": 1, "output_price": 2}, "b": {"input_price": 10, "output_price": 20}}')
    given = GOOD.replace(b"}}", b'}, "costs": {"a": 7, "b": 8}}')
    path = write(GOOD.replace(b"good", b"x" * 400), given)
    first, second = load_source(config(path, pool_path=str(pool_path), assumed_output_tokens=50)).examples
    # 400 characters are 100 tokens in; 50 out: (100 * 1 + 50 * 2) / 1e6 and ten times as much.
    assert first.costs == {"a": 0.0002, "b": 0.002}
    assert second.costs == {"a": 7.0, "b": 8.0}, "given costs stay"


def test_assumed_output_tokens_need_prices(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match=r"data\.assumed_output_tokens must be null .*got 50: .* no prices for a, b"):
        load_source(config(write(GOOD), assumed_output_tokens=50))


def test_an_unknown_cost_is_neither_0_nor_the_lowest(
    write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    costs = [b'{"a": 0.1, "b": null}', b'{"a": 0.1, "b": 0.2}', b"null"]
    lines = [b'{"query": "%d", "costs": %s, %s}\n' % (number, cost, SCORES) for number, cost in enumerate(costs)]
    data = load_source(config(write(*lines)))
    assert [example.costs for example in data.examples] == [None, {"a": 0.1, "b": 0.2}, None]
    (warning,) = data.warnings
    assert warning.startswith("costs are unknown on 2 of 3 queries, where b has none: ")
    # Neither is a label: with equal scores the cheapest is not known.
    tied = [replace(example, scores={"a": 1.0, "b": 1.0}) for example in data.examples]
    with pytest.raises(ValueError, match=r"data\.tie_break must be best_on_train, .*got 'cheapest'"):
        choose_labels(tied, TieBreak.cheapest, data.pool, tied, 0)


def test_without_any_costs_nobody_is_warned(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    assert load_source(config(write(GOOD, GOOD))).warnings == ()


@pytest.mark.parametrize("in_test", [b"", b', "split": "train"'])
def test_files_of_train_and_test(in_test: bytes, write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    train = write(GOOD, b'{"query": "v", "split": "validation", ' + SCORES + b"}", name="one.jsonl")
    # The same candidates in another order.
    test = write(b'{"query": "good", "scores": {"b": 0, "a": 1}' + in_test + b"}", name="other.jsonl")
    made = config(train, test_path=str(test), use_source_split=True)
    if in_test:
        with pytest.raises(ValueError, match=r"data\.test_path must hold no train queries .* got '07878fd8745bb530'"):
            load_source(made)
        return
    data = load_source(made)
    assert [example.source_split for example in data.examples] == ["train", "validation", "test"]
    assert list(data.examples[2].scores.items()) == [("a", 1.0), ("b", 0.0)]


@pytest.mark.parametrize(
    ("scores", "words"),
    [(b'{"a": 1, "c": 0}', "it lacks b; it adds c"), (b'{"a": 1, "b": 0, "c": 0}', "it adds c")],
)
def test_other_candidates_in_test(
    scores: bytes, words: str, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    test = write(b'{"query": "x", "scores": ' + scores + b"}", name="other.jsonl")
    with pytest.raises(ValueError, match=rf"data\.test_path=.*: {words} \(the pool is a, b\)"):
        load_source(config(write(GOOD), test_path=str(test), use_source_split=True))


def test_awkward_candidate_names(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    names = ["llama-3-8b", "llama-3-8b-instruct", "llama-3-8b instruct", "模型-β", "a, b", "llama"]
    row = {"query": "x", "scores": {name: index / 10 for index, name in enumerate(names)}}
    data = load_source(config(write(json.dumps(row, ensure_ascii=False).encode())))
    assert data.candidate_names == names
    assert data.examples[0].scores["llama-3-8b instruct"] == 0.2


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ('{"a": 1}', ["at least 2 candidates", "['a']"]),
        ('{"a": 1, " b": 1}', ["candidate name", "white space", "' b'"]),
        ('{"a": 1, "": 1}', ["candidate name", "empty", "''"]),
        ('{"a": 1, "b\\nc": 1}', ["candidate name", "line break", "'b\\nc'"]),
        ('{"a": 1, "b\\u200bc": 1}', ["candidate name", "zero-width", r"'b\u200bc'"]),
        ('{"a": 1, "b\\u202ec": 1}', ["candidate name", "direction marks", r"'b\u202ec'"]),
        ('{"a": 1, "b\\u001b[2J": 1}', ["candidate name", "control characters", r"'b\x1b[2J'"]),
        ('{"a": 1, "b\\ud83d": 1}', ["candidate name", r"'b\ud83d'"]),
        ('{"\\u00e9": 1, "e\\u0301": 1}', ["candidate names must differ", "'\u00e9'", "'e\u0301'"]),
    ],
)
def test_unusable_pool(
    scores: str, words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(f'{{"query": "x", "scores": {scores}}}'.encode())
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"{path}:1: ")
    assert all(word in str(caught.value) for word in words)


def test_only_a_line_feed_ends_a_line(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    odd = '{"query": "one\u2028two\u0085three", "scores": {"a": 1, "b": 0}}\r\n'
    path = write(b"\xef\xbb\xbf" + odd.encode(), b"{}\n")
    data = load_source(config(path, on_bad_row="skip"))
    assert data.examples[0].query == "one\u2028two\u0085three"
    assert data.skipped_rows[0].location == f"{path}:2"


def test_rows_share_names_tasks_and_equal_scores(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    line = GOOD.replace(b"}}", b'}, "task": "sums"}')
    first, second = load_source(config(write(line, line))).examples
    assert first.scores is second.scores
    assert first.task is second.task
