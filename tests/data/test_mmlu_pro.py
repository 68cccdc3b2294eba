"""The mmlu_pro format: archives of LLMs' outputs, an archive for each candidate."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, RoutingData

EIGHT = ["jamba-1.5-large", "Qwen1.5-72B-Chat", "Meta-Llama-3_1-8B-Instruct", "Mixtral-8x7B-Instruct-v0.1"]
EIGHT += ["mathstral-7B", "Phi-3-mini-4k-instruct", "Yi-34B", "c4ai-command-r-v01"]


def item(number: int = 1, **fields: Any) -> dict[str, Any]:
    row = {"question_id": number, "question": f"What is {number}?", "options": ["one", "two"], "answer": "B"}
    return row | {"category": "math", "src": "book", "pred": "B", "generated_text": "It is (B)."} | fields


@pytest.fixture
def load(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> Callable[..., RoutingData]:
    """Function that writes an archive for each candidate and loads them."""

    def write_and_load(files: dict[str, list[dict[str, Any]]], **fields: Any) -> RoutingData:
        for name, rows in files.items():
            with zipfile.ZipFile(tmp_path / f"model_outputs_{name}_5shots.zip", "w") as archive:
                archive.writestr("any.json", json.dumps(rows))
        return load_source(make_data_config(source="mmlu_pro", path=str(tmp_path), **fields))

    return write_and_load


def test_every_key(tmp_path: Path, load: Callable[..., RoutingData]) -> None:
    (tmp_path / "pool.json").write_text('{"b": {"input_price": 4, "output_price": 40}, "a": {}}')
    wrong = item(pred="A") | {"model_outputs": "I say A."}
    del wrong["generated_text"]
    data = load({"a": [item()], "b": [wrong]}, group_by="src")
    assert data.pool == (Candidate("b", 4.0, 40.0), Candidate("a"))
    (example,) = data.examples
    assert (example.query, example.task) == ("What is 1?\nA. one\nB. two", "math")
    assert (example.query_id, example.group, example.costs) == ("1", "book", None)
    assert example.scores == {"b": 0.0, "a": 1.0}


def test_costs_count_four_characters_a_token(tmp_path: Path, load: Callable[..., RoutingData]) -> None:
    prices = {"input_price": 4.0, "output_price": 40.0}
    (tmp_path / "pool.json").write_text(json.dumps({"a": prices, "b": prices}))
    (example,) = load({"a": [item()], "b": [item(generated_text="x" * 400)]}).examples
    query_cost = len(example.query) / 4 * 4e-6
    assert example.costs == pytest.approx({"a": query_cost + 10 / 4 * 40e-6, "b": query_cost + 100 * 40e-6})


def test_no_answer_is_wrong_and_counted(load: Callable[..., RoutingData]) -> None:
    data = load({"a": [item(1, pred=None), item(2)], "b": [item(1), item(2)]})
    assert [example.scores["a"] for example in data.examples] == [0.0, 1.0]
    assert data.warnings[0] == "outputs in which no answer was found score 0: a 50.0% of the questions."


def test_questions_that_the_files_do_not_share_are_left_out(load: Callable[..., RoutingData]) -> None:
    files = {"a": [item(1), item(2), item(3)], "b": [item(1, answer="A"), item(3)]}
    data = load(files)
    assert [example.query_id for example in data.examples] == ["3"]
    reasons = [row.reason for row in data.skipped_rows]
    assert reasons[0].endswith("model_outputs_b_5shots.zip: item 1 has other options or another answer")
    assert reasons[1] == "no output of b"


def test_a_question_with_other_options_is_of_one_family(load: Callable[..., RoutingData]) -> None:
    rows = [item(1), item(2, question="What is  1?", options=["two", "one"]), item(3)]
    families = [example.family for example in load({"a": rows, "b": rows}).examples]
    assert families[0] == families[1] != families[2]


def test_the_files_of_some_candidates(load: Callable[..., RoutingData]) -> None:
    files = {name: [item()] for name in "abc"}
    assert load(files, candidates=["a", "c"]).candidate_names == ["a", "c"]
    with pytest.raises(ValueError, match=r"data\.candidates must be LLMs with a file .*\(a, b, c\), got \['d'\]"):
        load(files, candidates=["a", "d"])


BAD = {
    "a letter": ({"pred": "(B)"}, "'pred' must be a letter or null, got '(B)'"),
    "no letter": ({"pred": ""}, "'pred' must be a letter or null, got ''"),
    "an answer": ({"answer": "C"}, "'answer' must be the letter of one of 2 options, got 'C'"),
    "two letters": ({"answer": "AB"}, "'answer' must be the letter of one of 2 options, got 'AB'"),
    "options": ({"options": "one"}, "'options' must be a list of texts, got 'one'"),
    "an output": ({"generated_text": ""}, "'generated_text' must be a text that is not blank, got ''"),
    "an id": ({"question_id": 1}, "question_id 1 appears twice"),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD)
def test_a_bad_item(fields: dict[str, Any], message: str, load: Callable[..., RoutingData]) -> None:
    with pytest.raises(ValueError) as caught:
        load({"a": [item(1), item(2, **fields)], "b": [item(1), item(2)]})
    assert str(caught.value).endswith(f"model_outputs_a_5shots.zip: item 2: {message}")


@pytest.mark.parametrize("damage", ["no archive", "two files", "cut"])
def test_a_damaged_archive(damage: str, tmp_path: Path, load: Callable[..., RoutingData]) -> None:
    path = tmp_path / "model_outputs_b_5shots.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.json", json.dumps([item()]))
        if damage == "two files":
            archive.writestr("2.json", "[]")
    if damage != "two files":
        path.write_bytes(b"nothing" if damage == "no archive" else path.read_bytes()[:-30])
    with pytest.raises(
        ValueError, match=r"model_outputs_b_5shots\.zip: (no whole zip archive|the archive must hold one)"
    ):
        load({"a": [item()]})


@pytest.mark.slow
def test_real_files(data_dir: Path, make_data_config: Callable[..., DataConfig]) -> None:
    data = load_source(make_data_config(source="mmlu_pro", path=str(data_dir / "mmlu_pro"), candidates=EIGHT))
    assert len(data.examples) + len(data.skipped_rows) == 12_032
    assert len(data.skipped_rows) == 48
    assert data.candidate_names == EIGHT, "the order of pool.json"
    assert len({example.task for example in data.examples}) == 14
    means = {name: sum(example.scores[name] for example in data.examples) / len(data.examples) for name in EIGHT}
    assert max(means, key=means.__getitem__) == "jamba-1.5-large"
    assert means["jamba-1.5-large"] == pytest.approx(0.496, abs=0.002)
    assert sum(max(example.scores.values()) for example in data.examples) / len(data.examples) > 0.8
