"""What a function of the user's returns is held to the rules of every other source, one example at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.routing import Candidate, SkippedRow

LAB = """
from causal_lm_router.routing import Candidate, RoutingData, RoutingExample, SkippedRow

def example(query="good", scores=None, costs=None, task="t", query_id="0", split=None, expected=None):
    return RoutingExample(query_id, query, task, scores or {"b": 1, "a": 0.5}, costs, expected, split)

def load(config):
    bad = eval(config.options["bad"]) if config.options else []
    last = example("last", query_id="last", costs={"a": 0.1, "b": 0}, split="test", expected={"b": 0.5, "a": 1})
    skipped = (SkippedRow("x", "y"),)
    return RoutingData([example(), *bad, last], (Candidate("a"), Candidate("b")), skipped, ("odd",))
"""


@pytest.fixture
def load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_data_config: Callable[..., DataConfig]
) -> Callable[..., object]:
    """Function that loads the data of the module above."""
    (tmp_path / "lab_of_bad_rows.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda **fields: load_source(make_data_config(source="own", function="lab_of_bad_rows:load", **fields))


def test_everything_is_kept(load: Callable[..., object]) -> None:
    data = load()
    assert data.pool == (Candidate("a"), Candidate("b"))
    assert [list(example.scores.items()) for example in data.examples] == [[("a", 0.5), ("b", 1.0)]] * 2
    last = data.examples[1]
    assert (last.query_id, last.task, last.source_split) == ("last", "t", "test")
    assert last.costs == {"a": 0.1, "b": 0.0}
    assert list(last.expected_scores.items()) == [("a", 1.0), ("b", 0.5)]
    assert data.skipped_rows == (SkippedRow("x", "y"),)
    assert data.warnings[0] == "odd"
    assert data.warnings[1].startswith("costs are unknown on 1 of 2 queries")


BAD = {
    "no example": ("[3]", "it must be a RoutingExample, got a int"),
    "blank query": ("[example(' ', query_id='1')]", "query is empty"),
    "score above 1": ("[example(scores={'a': 2, 'b': 0}, query_id='1')]", "candidate 'a': score must be"),
    "unknown candidate": ("[example(scores={'a': 1, 'c': 0}, query_id='1')]", "unknown candidate 'c'; no score for"),
    "id twice": ("[example()]", "query_id '0' appears twice"),
    "number as task": ("[example(task=3, query_id='1')]", "task must be a text, got int"),
    "half a character": ("[example(task='\\ud83d', query_id='1')]", "task holds half a surrogate pair"),
    "other split": ("[example(split='dev', query_id='1')]", "split must be train, validation or test, got 'dev'"),
    "negative cost": ("[example(costs={'a': -1, 'b': 0}, query_id='1')]", "candidate 'a': cost must be"),
    "expected score": ("[example(expected={'a': 1}, query_id='1')]", "no expected score for candidate 'b'"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_example(bad: str, reason: str, load: Callable[..., object]) -> None:
    with pytest.raises(ValueError) as caught:
        load(options={"bad": bad})
    assert str(caught.value).startswith(f"data.function: example 2: {reason}")
    data = load(options={"bad": bad}, on_bad_row="skip")
    assert [example.query for example in data.examples] == ["good", "last"]
    assert [row.location for row in data.skipped_rows] == ["x", "data.function: example 2"]
