"""A small version of `experiments/coverage.py`: intervals hold the truth, tests seldom reject a true null."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SAMPLES = 400
MOST_REJECTED = 0.1
"""Of 400 tests at a true 6% one in 1,000 has so many."""


def least(row: Any, queries: int) -> float:
    """93%, less three standard errors of that many samples with an interval."""
    return float(0.93 - 3 * (0.93 * 0.07 / (SAMPLES * row.printed[queries])) ** 0.5)


PAPER = ("APGR (paper)", "CPT(50%) (paper)", "CPT(80%) (paper)")


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "experiments"))
    return importlib.import_module("coverage")


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (2, 0.6), (3, 0.3), (5, 0.6)])
@pytest.mark.slow
def test_intervals_hold_and_tests_keep_their_level(coverage: ModuleType, seeds: int, spread: float) -> None:
    rows = coverage.measure_means(SAMPLES, seeds, spread)
    for row in rows:
        for queries, share in row.share.items():
            if row.what.startswith("test"):
                assert share <= MOST_REJECTED, (row.what, queries)
            elif share is not None:
                assert share >= least(row, queries), (row.what, queries)
    whats = {row.what for row in rows}
    assert {"mean score", "mean cost", "test: accuracy of two routers"} <= whats
    assert ("test: McNemar" in whats) is (seeds == 1)


@pytest.mark.slow
def test_ratios_and_orders_hold(coverage: ModuleType) -> None:
    rows = list(coverage.measure_others(SAMPLES))
    assert {row.what for row in rows} == {"gap_recovered", "bayes_gap_recovered", "AUROC", *PAPER}
    for row in rows:
        assert row.share[12] is None, "too few queries for an interval"
        assert all(row.share[queries] > 0.86 for queries in (100, 500)), row


def test_what_a_cell_says(coverage: ModuleType) -> None:
    rows = [
        coverage.Row(what="share", seeds=2, spread=spread, share={12: share}, printed={12: printed})
        for spread, share, printed in ((0.0, 0.95, 1.0), (0.3, 0.97, 0.5), (0.6, None, 0.9))
    ]
    assert coverage._cell(rows, 12) == "95.0% to 97.0% (50% printed)"
    assert coverage._cell(rows[2:], 12) == "none"
