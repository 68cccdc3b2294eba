"""Calls of several threads: one at a time, those that wait together, each with its own answers and errors."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from causal_lm_router.generation.joined_calls import MAX_JOINED, JoinedCalls

SECONDS = 30


class Engine:
    """Answers in capitals, holds its first call until it is let go, and remembers what came together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.is_in, self.may_go = threading.Event(), threading.Event()

    def __call__(self, queries: Sequence[str]) -> list[str]:
        self.batches.append(list(queries))
        self.is_in.set()
        assert self.may_go.wait(SECONDS)
        if any(query.startswith("bad") for query in queries):
            raise ValueError("bad")
        return [query.upper() for query in queries]


def call_while_busy(engine: Engine, calls: Sequence[Sequence[str]]) -> list[Future[Sequence[str]]]:
    """Have one call held by the engine until the others wait in their order; the results, all there."""
    joined = JoinedCalls(engine)
    with ThreadPoolExecutor(len(calls)) as pool:
        found = [pool.submit(joined, calls[0])]
        assert engine.is_in.wait(SECONDS)
        for number, call in enumerate(calls[1:], start=1):
            found.append(pool.submit(joined, call))
            while len(joined._waiting) < number:
                threading.Event().wait(0.001)
        engine.may_go.set()
    return found


def test_one_thread_has_its_calls_to_itself() -> None:
    engine = Engine()
    engine.may_go.set()
    joined = JoinedCalls(engine)
    assert [joined(["a", "b"]), joined(["c"])] == [["A", "B"], ["C"]]
    assert engine.batches == [["a", "b"], ["c"]]


def test_calls_that_wait_are_answered_together() -> None:
    engine = Engine()
    found = call_while_busy(engine, [["a"], ["b", "c"], ["d"], ["e"]])
    assert [call.result() for call in found] == [["A"], ["B", "C"], ["D"], ["E"]]
    assert len(engine.batches) == 2
    assert sorted(engine.batches[1]) == ["b", "c", "d", "e"]


def test_an_error_is_that_of_its_own_call() -> None:
    engine = Engine()
    found = call_while_busy(engine, [["a"], ["bad"], ["c"]])
    # Whoever takes the others along fails; they try again without it, and the bad call fails at the latest by itself.
    with pytest.raises(ValueError, match="bad"):
        found[1].result()
    assert found[0].result() == ["A"]
    assert engine.batches[-1] in (["c"], ["bad"])


def test_large_calls_are_not_joined() -> None:
    engine = Engine()
    found = call_while_busy(engine, [["a"], ["b"] * MAX_JOINED, ["c"]])
    assert [len(call.result()) for call in found] == [1, MAX_JOINED, 1]
    assert sorted(map(len, engine.batches[1:])) == [1, MAX_JOINED]
