"""The preferences format: judgements of two answers, of two LLMs or of two tiers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import RoutingData

TIERS = {"opus": "strong", "gpt-4": "strong", "mixtral": "weak"}


@pytest.fixture
def load(tmp_path: Path, make_data_config: Callable[..., DataConfig]) -> Callable[..., RoutingData]:
    """Function that writes judgements and loads them."""

    def write_and_load(*rows: object, **fields: object) -> RoutingData:
        path = tmp_path / "train.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return load_source(make_data_config(source="preferences", path=str(path), **fields))

    return write_and_load


def row(query: str, model_a: str, model_b: str, winner: str, **more: str) -> dict[str, str]:
    return {"query": query, "model_a": model_a, "model_b": model_b, "winner": winner, **more}


def test_a_win_a_tie_and_their_mean(load: Callable[..., RoutingData]) -> None:
    data = load(
        row("x", "b", "a", "model_b", task="t"),
        row("y", "a", "b", "tie", split="test"),
        row("x", "a", "b", "tie (bothbad)"),
    )
    assert data.candidate_names == ["b", "a"]
    assert [(one.query, one.task, one.source_split) for one in data.examples] == [
        ("x", "t", "train"),
        ("y", "all", "test"),
    ]
    assert [dict(one.scores) for one in data.examples] == [{"b": 0.25, "a": 0.75}, {"b": 0.5, "a": 0.5}]


def test_llms_stand_for_their_tiers(load: Callable[..., RoutingData]) -> None:
    data = load(
        row("x", "mixtral", "gpt-4", "model_a"),
        row("x", "opus", "mixtral", "model_a"),
        row("y", "opus", "gpt-4", "model_a"),
        row("z", "phi", "gpt-4", "model_a"),
        tiers=TIERS,
    )
    assert data.candidate_names == ["strong", "weak"]
    assert [(one.query, dict(one.scores)) for one in data.examples] == [("x", {"strong": 0.5, "weak": 0.5})]
    assert [one.reason for one in data.skipped_rows] == ["two LLMs of one tier", "an LLM of no tier"]


GOOD = row("x", "a", "b", "tie")
BAD = {
    "winner": (row("x", "a", "b", "a"), r"winner must be model_a \| model_b \| tie \| tie \(bothbad\), got 'a'"),
    "one LLM": (row("x", "a", "a", "tie"), "model_a and model_b must differ, got 'a' twice"),
    "third LLM": (row("x", "a", "c", "tie"), "all rows must judge a and b unless data.tiers is set, got 'c'"),
    "no query": (row(" ", "a", "b", "tie"), "query"),
    "other key": (row("x", "a", "b", "tie", score="1"), "unknown key 'score'; the keys are"),
    "a number": ({**GOOD, "model_b": 1}, "model_b"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_named(load: Callable[..., RoutingData], bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.jsonl:2: .*{message}"):
        load(GOOD, bad)
    assert len(load(GOOD, bad, on_bad_row="skip").examples) == 1


def test_tiers_are_two(make_data_config: Callable[..., DataConfig]) -> None:
    with pytest.raises(ValueError, match=r"data\.tiers must be LLMs in two tiers, or empty, got"):
        make_data_config(source="preferences", tiers={"a": "strong"})
