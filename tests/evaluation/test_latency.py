"""Latency: what is timed, which percentiles are known, and what the report shows of them."""

import dataclasses
import io
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from causal_lm_router.evaluation.latency import Latency, latency_table, measure_latency
from causal_lm_router.evaluation.stored import read_report
from tests.conftest import Result


def test_every_call_is_of_its_size_and_no_query_comes_twice() -> None:
    calls: list[Sequence[str]] = []
    found = measure_latency(calls.append, ["one", "two"], 3, [1, 4], [1, 2])
    assert [(row.batch_size, row.num_threads, row.num_calls) for row in found] == [
        (1, 1, 3),
        (1, 2, 3),
        (4, 1, 3),
        (4, 2, 3),
    ]
    # A call that is not timed comes before each three.
    assert [len(call) for call in calls] == [1] * 8 + [4] * 8
    queries = [query for call in calls for query in call]
    assert len(set(queries)) == len(queries)
    assert sorted(queries)[:2] == ["1. one", "10. two"]


def test_threads_call_at_the_same_time() -> None:
    meeting, calls = threading.Barrier(3), 0

    def route(queries: Sequence[str]) -> None:
        nonlocal calls
        calls += 1
        # The first call is not timed, and comes alone.
        if calls > 1:
            meeting.wait(30)

    measure_latency(route, ["a"], 6, [1], [3])
    assert calls == 7


@pytest.mark.parametrize(("num_calls", "knows"), [(19, (False, False)), (20, (True, False)), (100, (True, True))])
def test_percentiles_need_calls(num_calls: int, knows: tuple[bool, bool]) -> None:
    (row,) = measure_latency(lambda queries: None, ["a"], num_calls, [1], [1])
    assert (row.p95_seconds is not None, row.p99_seconds is not None) == knows
    assert 0 <= row.p50_seconds <= (row.p95_seconds or 1) <= (row.p99_seconds or 1)
    assert row.queries_per_second > 0


def test_the_table_leaves_unknown_percentiles_out() -> None:
    row = Latency(
        batch_size=8,
        num_threads=4,
        num_calls=20,
        p50_seconds=0.0414,
        p95_seconds=1.2,
        p99_seconds=None,
        queries_per_second=9.87,
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(latency_table([row, dataclasses.replace(row, num_calls=100, p99_seconds=1.5)]))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["8", "4", "20", "41", "ms", "1,200", "ms", "9.9"] in lines
    assert ["8", "4", "100", "41", "ms", "1,200", "ms", "1,500", "ms", "9.9"] in lines


def test_an_evaluation_measures_it_where_it_is_asked_for(
    smoke_run: Path, main: Callable[..., Result], tmp_path: Path
) -> None:
    output = tmp_path / "again"
    words = ["evaluation.max_queries=4", f"output_dir={output}", "latency_calls=1", "inference.max_new_tokens=1"]
    done = main("evaluate", f"run_dir={smoke_run}", *words)
    assert done.status == 0, done.errors
    assert "Latency of a call" in done.output
    report = read_report(output)
    assert [(row.batch_size, row.num_threads) for row in report.latency] == [
        (1, 1),
        (1, 4),
        (8, 1),
        (8, 4),
        (32, 1),
        (32, 4),
    ]
    assert "\nlatency_calls" not in (output / "config.yaml").read_text()
    plain = json.loads((output / "report.json").read_text())
    assert plain["why_null"]["latency.0.p99_seconds"] == "it needs 100 calls"
    assert read_report(smoke_run).latency == ()
    refused = main("evaluate", f"run_dir={smoke_run}", f"output_dir={tmp_path / 'none'}", "latency_calls=0")
    assert "latency_calls must be an integer of at least 1, or null, got 0" in refused.errors
