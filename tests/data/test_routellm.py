"""The routellm format: CSVs that say which of two candidates answered right."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, SkippedRow

MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"
GPT4 = "gpt-4-1106-preview"
HEADER = f"prompt,{MIXTRAL},{GPT4}\n".encode()
GOOD = b'"good\nAnswer:",False,True\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes chunks of bytes to a CSV and returns its path."""

    def write_chunks(*chunks: bytes, name: str = "mmlu_logic.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(chunks))
        return path

    return write_chunks


@pytest.fixture
def config(make_data_config: Callable[..., DataConfig]) -> Callable[..., DataConfig]:
    """Function that returns the config of a path under this format."""
    return lambda path, **fields: make_data_config(source="routellm", path=str(path), **fields)


@pytest.mark.slow
def test_real_mmlu(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "routellm" / "mmlu"))
    assert data.pool == (Candidate(MIXTRAL, 0.24, 0.24), Candidate(GPT4, 24.7, 24.7))
    tasks = {example.task for example in data.examples}
    assert (len(data.examples), len(tasks)) == (9724, 37)
    assert {"abstract_algebra", "professional_law", "world_religions"} <= tasks
    assert all(example.costs is None for example in data.examples)
    assert data.examples[0].query.endswith("\nAnswer:")


def test_real_gsm8k(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "routellm" / "gsm8k_responses.csv"))
    assert len(data.examples) == 1319
    assert sum(example.scores[GPT4] for example in data.examples) == 747 + 383
    assert sum(example.scores[MIXTRAL] for example in data.examples) == 747 + 95
    assert {example.task for example in data.examples} == {"gsm8k"}
    costs = data.examples[0].costs or {}
    # The first row: prompt of 280 characters, responses of 233 and 262, four characters a token.
    assert costs[MIXTRAL] == pytest.approx((280 + 233) / 4 * 0.24 / 1e6)
    assert costs[GPT4] == pytest.approx((280 + 262) / 4 * 24.7 / 1e6)


def test_real_folder_without_contaminated_prompts(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "routellm", drop_contaminated=True))
    assert len(data.examples) == 1319 - 12 + 9724 - 2
    assert {row.reason for row in data.skipped_rows} == {"contaminated"}
    assert len(data.skipped_rows) == 14
    assert f"{data_dir}/routellm/gsm8k_responses.csv:8" in {row.location for row in data.skipped_rows}


def test_what_is_left_of_gsm8k_scores_as_published(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    # What RouteLLM's own evaluation prints in Anyscale's tutorial (anyscale/templates, llm-router), of 1,307 prompts.
    data = load_source(config(data_dir / "routellm" / "gsm8k_responses.csv", drop_contaminated=True))
    assert len(data.examples) == 1307
    for name, percent in ((MIXTRAL, 63.733741392501905), (GPT4, 85.76893649579189)):
        assert 100 * sum(one.scores[name] for one in data.examples) / 1307 == pytest.approx(percent)


def test_real_mmlu_folder_finds_the_listing_above_it(data_dir: Path, config: Callable[..., DataConfig]) -> None:
    data = load_source(config(data_dir / "routellm" / "mmlu", drop_contaminated=True))
    assert (len(data.examples), len(data.skipped_rows)) == (9722, 2)


def test_no_listing_of_contaminated_prompts(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(HEADER, GOOD)
    with pytest.raises(ValueError) as caught:
        load_source(config(path, drop_contaminated=True))
    assert str(caught.value).startswith("data.drop_contaminated=True ")
    assert f"mmlu_contaminated_prompts.jsonl beside {path}" in str(caught.value)


def test_assumed_output_tokens_price_mmlu(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(HEADER, b"x" * 40 + b",True,True\n")
    costs = load_source(config(path, assumed_output_tokens=10)).examples[0].costs
    assert costs == pytest.approx({MIXTRAL: 20 * 0.24 / 1e6, GPT4: 20 * 24.7 / 1e6})


def test_other_candidates_have_no_price(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(b"prompt,small model,small,small_response\nx,True,False,hm\n", name="gsm8k_responses.csv")
    data = load_source(config(path))
    assert data.pool == (Candidate("small model"), Candidate("small"))
    assert data.examples[0].costs is None


def test_files_must_agree_on_candidates(
    tmp_path: Path, write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    write(HEADER, GOOD, name="mmlu_a.csv")
    path = write(b"prompt,a,b\nx,True,True\n", name="mmlu_b.csv")
    with pytest.raises(ValueError) as caught:
        load_source(config(tmp_path))
    assert str(caught.value).startswith(f"{path}:1: ")
    assert all(words in str(caught.value) for words in (f"{MIXTRAL}, {GPT4}", "got a, b"))


BAD_ROWS = {
    "score as number": (b"x,1.5,True\n", [repr(MIXTRAL), "got '1.5'"]),
    "NaN score": (b"x,True,NaN\n", [repr(GPT4), "got 'NaN'"]),
    "missing score": (b"x,True,\n", [repr(GPT4), "got ''"]),
    "missing cell": (b"x,True\n", ["3 cells", "got 2"]),
    "extra cell": (b"x,True,True,True\n", ["3 cells", "got 4"]),
    "empty query": (b" ,True,True\n", ["query is empty"]),
    "1 MB query": (b"x" * 1_000_000 + b",True,True\n", ["1,000,000", "data.max_query_chars", "100,000"]),
    "not UTF-8": (b"caf\xe9,True,True\n", ["'prompt'", "UTF-8"]),
    "text after a quote": (b'"x"y,True,True\n', ["broken CSV: ',' expected after '\"'"]),
}


@pytest.mark.parametrize(("row", "words"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(row: bytes, words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(HEADER, GOOD, row, GOOD)  # header on line 1, the good row on 2 and 3
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    reason = str(caught.value).removeprefix(f"{path}:4: ")
    assert all(word in reason for word in words)
    data = load_source(config(path, on_bad_row="skip"))
    assert [example.query for example in data.examples] == ["good\nAnswer:"] * 2
    assert data.skipped_rows == (SkippedRow(f"{path}:4", reason),)


def test_the_process_wide_cell_limit_is_put_back(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    before = csv.field_size_limit()
    load_source(config(write(HEADER, GOOD)))
    with pytest.raises(ValueError):
        load_source(config(write(HEADER, b"x")))
    assert csv.field_size_limit() == before


def test_truncated_last_row(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    path = write(HEADER, GOOD, b'"begun,True,True')
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value) == f"{path}:4: broken CSV: unexpected end of data"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", [": ", "empty", "header"]),
        (b"query,a,b\n", [":1: ", "column 'prompt' is missing", "query, a, b"]),
        (b"prompt,a,a\n", [":1: ", "column 'a'", "twice"]),
        (b"prompt,caf\xe9,a\n", [":1: ", "header", "UTF-8"]),
        (b'prompt,"a\n', [":1: ", "broken CSV: unexpected end of data"]),
        (b"prompt,a\n", [":1: ", "at least 2 candidates", "['a']"]),
    ],
)
def test_bad_header(
    content: bytes, words: list[str], write: Callable[..., Path], config: Callable[..., DataConfig]
) -> None:
    path = write(content)
    with pytest.raises(ValueError) as caught:
        load_source(config(path))
    assert str(caught.value).startswith(f"{path}{words[0]}")
    assert all(word in str(caught.value) for word in words)


def test_header_alone(write: Callable[..., Path], config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match="no rows"):
        load_source(config(write(HEADER)))


def test_folder_without_the_files(tmp_path: Path, config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError) as caught:
        load_source(config(tmp_path))
    expected = "mmlu/mmlu_*.csv or mmlu_*.csv or gsm8k_responses.csv"
    assert str(caught.value).startswith(f"data.path must be a file or glob, or a folder with {expected}, got ")
    assert str(caught.value).endswith(f"got {str(tmp_path)!r}: this folder has no {expected}")
