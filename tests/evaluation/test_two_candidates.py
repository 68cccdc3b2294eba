"""PGR, APGR and CPT by RouteLLM's paper and by its code, on values worked out by hand and on RouteLLM's own files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import load_source
from causal_lm_router.evaluation.measures.two_candidates import (
    apgr_code,
    apgr_estimate,
    apgr_paper,
    call_curve,
    code_curve,
    cpt_code,
    cpt_estimate,
    cpt_paper,
    pgr,
)

Floats = NDArray[np.float64]

WEAK, STRONG = np.array([1.0, 0, 0, 0]), np.array([0.0, 1, 1, 0])


def test_curve_and_measures_by_hand() -> None:
    # The two best queries are tied: both gain 1. Then one without gain, then one that loses 1. PGR is 0, 2, 2, 1.
    win_share = np.array([0.1, 0.9, 0.9, 0.5])
    curve = call_curve(WEAK, STRONG, win_share)
    assert curve.share.tolist() == [0, 0.5, 0.75, 1]
    assert curve.quality.tolist() == [0.25, 0.75, 0.75, 0.5]
    assert pgr(curve.quality, WEAK, STRONG).tolist() == [0, 2, 2, 1]
    assert apgr_paper(WEAK, STRONG, win_share) == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 1.5)
    assert cpt_paper(WEAK, STRONG, win_share, 0) == 0
    assert cpt_paper(WEAK, STRONG, win_share, 0.5) == pytest.approx(0.125)
    assert cpt_paper(WEAK, STRONG, win_share, 1) == pytest.approx(0.25)


def test_paper_and_code_differ() -> None:
    # Only the third of 20 queries gains. The paper's PGR climbs from 0 at 10% to 1 at 15% of strong calls; the code has
    # points at every 10%: 0 at 10%, 1 at 20%.
    weak, strong, win_share = np.zeros(20), np.zeros(20), np.arange(20) / 20
    strong[17] = 1
    assert apgr_paper(weak, strong, win_share) == pytest.approx(0.05 / 2 + 0.85)
    assert apgr_code(weak, strong, win_share) == pytest.approx(0.1 / 2 + 0.8)
    assert cpt_paper(weak, strong, win_share, 0.8) == pytest.approx(0.14)
    assert cpt_code(weak, strong, win_share, 0.8) == pytest.approx(0.18)


def test_a_constant_router_is_the_line_between_the_two_candidates() -> None:
    for weak, strong in ((WEAK, STRONG), (WEAK[::-1], STRONG[::-1])):
        constant = np.full(4, 0.7)
        assert call_curve(weak, strong, constant).share.tolist() == [0, 1]
        assert apgr_paper(weak, strong, constant) == pytest.approx(0.5)
        assert cpt_paper(weak, strong, constant, 0.8) == pytest.approx(0.8)
        # RouteLLM's code stops here: "Bin edges must be unique".
        assert code_curve(weak, strong, constant) is None
        assert np.isnan([apgr_code(weak, strong, constant), cpt_code(weak, strong, constant, 0.8)]).all()


def test_order_of_rows_does_not_matter() -> None:
    random = np.random.default_rng(1)
    weak, strong, win_share = random.random(50), random.random(50) + 0.3, random.integers(5, size=50) / 5
    rows = random.permutation(50)
    for measure in (apgr_paper, partial(cpt_paper, target=0.5)):
        assert measure(weak, strong, win_share) == pytest.approx(measure(weak[rows], strong[rows], win_share[rows]))


def test_a_strong_candidate_that_is_not_better_has_no_gap() -> None:
    win_share = np.arange(4) / 4
    measures = [apgr_paper, apgr_code, partial(cpt_paper, target=0.5), partial(cpt_code, target=0.5)]
    assert np.isnan([measure(STRONG, WEAK, win_share) for measure in measures]).all()
    with pytest.raises(ValueError, match=r"target must be a PGR in 0\.\.1, got 1\.5"):
        cpt_paper(WEAK, STRONG, win_share, 1.5)


def test_code_measures_equal_those_of_pandas() -> None:
    random = np.random.default_rng(2)
    weak, win_share = random.integers(2, size=333).astype(float), random.random(333)
    strong = np.maximum(weak, win_share > 0.6)
    _, thresholds = pd.qcut(pd.Series(win_share), 10, retbins=True)
    points = []
    for index, threshold in enumerate(thresholds):
        chosen = win_share >= threshold if index < 10 else win_share > threshold
        points.append((100 * chosen.mean(), 100 * np.where(chosen, strong, weak).mean()))
    percent, accuracy = np.array(sorted(points)).T
    area = sum((accuracy[1:] + accuracy[:-1]) / 2 * np.diff(percent / 100))
    low, high = 100 * weak.mean(), 100 * strong.mean()
    assert apgr_code(weak, strong, win_share) == pytest.approx((area - low) / (high - low))
    half = np.interp(0.5 * (high - low) + low, accuracy, percent)
    assert cpt_code(weak, strong, win_share, 0.5) == pytest.approx(half / 100)


@pytest.fixture(scope="module", params=["mmlu", "gsm8k_responses.csv"])
def real_scores(
    request: pytest.FixtureRequest, data_dir: Path, make_data_config: Callable[..., DataConfig]
) -> tuple[Floats, Floats]:
    """Scores of Mixtral and GPT-4 on one of RouteLLM's benchmarks."""
    data = load_source(make_data_config(source="routellm", path=str(data_dir / "routellm" / request.param)))
    scores = np.array([list(example.scores.values()) for example in data.examples])
    assert data.candidate_names == ["mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"]
    return scores[:, 0], scores[:, 1]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (apgr_paper, 0.5),
        (apgr_code, 0.5),
        (partial(cpt_paper, target=0.5), 0.5),
        (partial(cpt_code, target=0.5), 0.5),
        (partial(cpt_paper, target=0.8), 0.8),
        (partial(cpt_code, target=0.8), 0.8),
    ],
    ids=["apgr_paper", "apgr_code", "cpt50_paper", "cpt50_code", "cpt80_paper", "cpt80_code"],
)
@pytest.mark.slow
def test_random_routers_on_real_data(
    real_scores: tuple[Floats, Floats], measure: Callable[..., float], expected: float
) -> None:
    # The mean of several random routers is near what is expected of no knowledge.
    num_queries = len(real_scores[0])
    routers = [np.random.default_rng(seed).random(num_queries) for seed in range(25)]
    values = [measure(*real_scores, router) for router in routers]
    print(f"{num_queries} queries: first router {values[0]:.3f}, mean of 25 {np.mean(values):.3f}")
    assert np.mean(values) == pytest.approx(expected, abs=0.015)


def test_intervals_of_random_routers_on_real_data_hold_one_half(real_scores: tuple[Floats, Floats]) -> None:
    num_queries = len(real_scores[0])
    drawn = [apgr_estimate(*real_scores, np.random.default_rng(seed).random(num_queries)) for seed in range(25)]
    held = [one.low <= 0.5 <= one.high for one in drawn if one and one.low is not None and one.high is not None]
    assert len(held) == 25 and sum(held) >= 20


def test_apgr_with_its_interval_is_the_area_under_the_curve() -> None:
    random = np.random.default_rng(0)
    for num_levels in (3, 12, 10_000):
        weak, strong = random.integers(5, size=80) / 5, random.integers(2, 6, size=80) / 5
        win_share = random.integers(num_levels, size=80) / num_levels
        estimate = apgr_estimate(weak, strong, win_share)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        assert estimate.value == pytest.approx(apgr_paper(weak, strong, win_share))
        assert estimate.low < estimate.value < estimate.high
    assert apgr_estimate(strong, weak, win_share) is None


def test_oracle_and_constant_routers_on_real_data(real_scores: tuple[Floats, Floats]) -> None:
    weak, strong = real_scores
    better, worse = float(np.mean(strong > weak)), float(np.mean(strong < weak))
    gap = better - worse
    # The oracle first calls GPT-4 where it alone is right, then where it makes no difference, last where it is wrong:
    # the gain climbs to `better`, stays, and falls by `worse`.
    area = better**2 / 2 + better * (1 - better - worse) + worse * (better - worse / 2)
    oracle = strong - weak
    print(f"{len(weak)} queries, oracle: APGR {area / gap:.4f}, CPT50 {gap / 2:.4f}, CPT80 {0.8 * gap:.4f}")
    assert apgr_paper(weak, strong, oracle) == pytest.approx(area / gap)
    assert cpt_paper(weak, strong, oracle, 0.5) == pytest.approx(0.5 * gap)
    assert cpt_paper(weak, strong, oracle, 0.8) == pytest.approx(0.8 * gap)
    # The code needs distinct win shares. Its points lie on the same curve, at every 10% but for the width of a query.
    tenths = np.linspace(0, 1, 11)
    gains = np.minimum(tenths, better) - np.maximum(0, tenths - (1 - worse))
    distinct = oracle - np.arange(len(oracle)) / len(oracle) / 2
    print(f"  by the code: APGR {apgr_code(weak, strong, distinct):.4f}")
    assert apgr_code(weak, strong, distinct) == pytest.approx(np.trapezoid(gains, tenths) / gap, abs=0.005)

    constant = np.zeros(len(weak))
    assert apgr_paper(weak, strong, constant) == pytest.approx(0.5)
    assert cpt_paper(weak, strong, constant, 0.5) == pytest.approx(0.5)
    assert cpt_paper(weak, strong, constant, 0.8) == pytest.approx(0.8)
    assert np.isnan(apgr_code(weak, strong, constant))
    assert float(pgr(weak.mean(), weak, strong)) == 0
    assert float(pgr(strong.mean(), weak, strong)) == 1


def test_cpt_with_its_interval() -> None:
    random = np.random.default_rng(3)
    weak, win_share = random.integers(2, size=200).astype(float), random.integers(20, size=200) / 20
    strong = np.maximum(weak, random.random(200) < 0.2 + 0.6 * win_share)
    for target in (0.5, 0.8):
        estimate = cpt_estimate(weak, strong, win_share, target)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        assert estimate.value == cpt_paper(weak, strong, win_share, target)
        assert 0 < estimate.low < estimate.value < estimate.high < 1
        assert cpt_estimate(weak, strong, win_share, target) == estimate, "the resamples have a seed of their own"
    # By another way: resamples as lists of queries.
    drawn = [random.integers(200, size=200) for _ in range(1000)]
    found = [cpt_paper(weak[rows], strong[rows], win_share[rows], 0.8) for rows in drawn]
    assert [estimate.low, estimate.high] == pytest.approx(np.quantile(found, [0.025, 0.975]).tolist(), abs=0.03)


def test_cpt_without_an_interval() -> None:
    assert cpt_estimate(STRONG, WEAK, np.arange(4) / 4, 0.5) is None
    few = cpt_estimate(WEAK, STRONG, np.arange(4) / 4, 0.5)
    assert few is not None and few.low is None and few.note == "needs at least 30 queries"
    # Strong is better on one query of 40: on none of a third of the resamples.
    rare = cpt_estimate(np.zeros(40), np.eye(40)[0], np.arange(40) / 40, 0.5)
    assert rare is not None and rare.low is None and rare.note == "strong may be no better than the other one"
