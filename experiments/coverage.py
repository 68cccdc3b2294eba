"""How often the 95% intervals of the reports hold the truth, and how often their tests reject a true null hypothesis.

python experiments/coverage.py [--samples 2000] [--json coverage.json]

Every interval and test is taken from `causal_lm_router.evaluation` over samples of a simulated population, whose truth
is the mean over millions of its queries: six candidates with a skill per family of queries, costs of skewed numbers of
tokens at prices far apart, and routers that know the best candidate of a family with a chance that depends on the query
and, by `SPREADS` log-odds, on the seed. Where there are several seeds the truth is the mean over all seeds that could
be; with one it is that of the router at hand. Intervals that are not printed do not count, and a row says how many are.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from run_routes import table_head, table_row
from scipy.special import expit

from causal_lm_router.data.arrays import Floats, Integers
from causal_lm_router.evaluation.interval_formulas import LEVEL, Measure, fieller_interval
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.measures.calibration import auroc_estimate
from causal_lm_router.evaluation.measures.two_candidates import apgr_estimate, cpt_estimate
from causal_lm_router.evaluation.statistics import mcnemar_p, seed_mean

QUERIES = (12, 30, 100, 500)
FEW, TIMES = 100, 4
"""Below so many queries there are as many times more samples: they cost little, and few of them have every interval."""
SEEDS = (1, 2, 3, 5)
SPREADS = (0.0, 0.3, 0.6)
"""Standard deviation of the seeds' log-odds of being right: none, and about 6 and 11 points of accuracy."""
SKILLS = np.array(
    [
        [0.3, -1.0, 0.5, -0.5, 0.0, 1.2],
        [1.5, -0.5, 0.2, 0.1, -1.0, 0.8],
        [-1.0, 1.8, 0.3, 0.6, 0.2, 0.7],
        [0.1, 0.2, 0.3, 2.0, 0.5, 0.9],
        [-0.5, -0.8, 1.9, 0.2, 0.5, 1.0],
    ]
)
"""Skill of six candidates (columns) in five families of queries (rows); the last has the best mean."""
PRICES = np.array([0.1, 0.2, 0.5, 1.0, 3.0, 10.0])
SINGLE = 5
Cells = Mapping[int, float | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """How often an interval holds the truth, or a test rejects a true null hypothesis, by the number of queries."""

    what: str
    seeds: int
    spread: float
    """Of the seeds, log-odds."""
    share: Cells
    """Queries -> share of the intervals that hold, or of the tests that reject; None where none is printed."""
    printed: Cells
    """Queries -> share of the samples that have an interval."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Samples of the population: arrays of samples x queries x candidates, and of samples x seeds x queries."""

    scores: Floats
    costs: Floats
    expected: Floats
    predicted: Floats
    """Calibrated for some queries, too sure for others."""
    routes: Integers
    """Of one router; -1 is a parse failure."""
    others: Integers
    """Of another router of the same strength, trained on its own."""
    nearly: Integers
    """The first router under a decoding that changes few routes."""

    def called(self, values: Floats, routes: Integers) -> Floats:
        """Return each route's value; 0 for a parse failure."""
        picked = np.take_along_axis(values[:, None], np.maximum(routes, 0)[..., None], axis=-1)[..., 0]
        return np.where(routes < 0, 0.0, picked)


def draw(random: np.random.Generator, samples: int, seeds: int, queries: int, spread: float) -> Draw:
    """Return samples of the population, all seeds of a sample on the same queries."""
    family = random.integers(len(SKILLS), size=(samples, queries))
    hardness = random.normal(0, 1.4, (samples, queries, 1))
    expected = expit(1.5 * (SKILLS[family] - hardness))
    scores = random.binomial(4, expected) / 4
    costs = PRICES * random.lognormal(0, 0.8, (samples, queries, 1)) * random.lognormal(0, 0.4, scores.shape)
    predicted = expit(1.5 * (SKILLS[family] - hardness * random.choice([0.5, 1.5], hardness.shape)))
    best, ease = SKILLS.argmax(axis=1)[family][:, None], random.normal(1.0, 1.0, (samples, 1, queries))

    def train() -> Integers:
        chance = expit(ease + random.normal(0, spread, (samples, seeds, 1)))
        shape = (samples, seeds, queries)
        routes = np.where(random.random(shape) < chance, best, random.integers(len(PRICES), size=shape))
        return np.where(random.random(shape) < 0.03, -1, routes)

    routes, others = train(), train()
    nearly = np.where(random.random(routes.shape) < 0.04, random.integers(len(PRICES), size=routes.shape), routes)
    return Draw(
        scores=scores,
        costs=costs,
        expected=expected,
        predicted=predicted,
        routes=routes,
        others=others,
        nearly=nearly,
    )


def is_right(one: Draw, routes: Integers) -> Floats:
    """Return 1 where a route scores as high as any candidate."""
    return one.called((one.scores == one.scores.max(axis=-1, keepdims=True)).astype(float), routes)


def gain(one: Draw) -> Floats:
    """Return the first router's score over best single's."""
    return one.called(one.scores, one.routes) - one.scores[:, None, :, SINGLE]


def two(one: Draw, row: int) -> tuple[Floats, Floats, Floats]:
    """Return scores of a weak and a strong candidate and win shares, of one sample."""
    scores, predicted = one.scores[row], one.predicted[row]
    return scores[:, 0], scores[:, SINGLE], predicted[:, SINGLE] - predicted[:, 0]


MEANS: Mapping[str, tuple[Measure, Callable[[Draw], Floats]]] = {
    "share: routing accuracy": (Measure.share, lambda one: is_right(one, one.routes)),
    "share: parse failures, 3%": (Measure.share, lambda one: (one.routes < 0).astype(float)),
    "mean score": (Measure.share, lambda one: one.called(one.scores, one.routes)),
    "regret": (Measure.share, lambda one: one.scores.max(axis=-1)[:, None] - one.called(one.scores, one.routes)),
    "score over best single": (Measure.difference, gain),
    "accuracy of two routers": (
        Measure.difference,
        lambda one: is_right(one, one.routes) - is_right(one, one.others),
    ),
    "score of two routers": (
        Measure.difference,
        lambda one: one.called(one.scores, one.routes) - one.called(one.scores, one.others),
    ),
    "accuracy of two decodings": (
        Measure.difference,
        lambda one: is_right(one, one.routes) - is_right(one, one.nearly),
    ),
    "mean cost": (Measure.cost, lambda one: one.called(one.costs, one.routes)),
    "cost of two routers": (
        Measure.cost_difference,
        lambda one: one.called(one.costs, one.routes) - one.called(one.costs, one.others),
    ),
}
"""Means over queries, and over seeds where there are several."""
ONE_SEED_MEANS: Mapping[str, tuple[Measure, Callable[[Draw], Floats]]] = {
    "accuracy of a random LLM": (
        Measure.share,
        lambda one: (one.scores == one.scores.max(axis=-1, keepdims=True)).mean(axis=-1)[:, None],
    ),
    "Brier score": (Measure.share, lambda one: ((one.predicted - one.scores) ** 2).mean(axis=-1)[:, None]),
    "best possible score": (Measure.share, lambda one: one.expected.max(axis=-1)[:, None]),
    "size of conformal sets": (
        Measure.share,
        lambda one: ((one.predicted.max(axis=-1, keepdims=True) - one.predicted <= 0.1).sum(axis=-1) - 1)[:, None] / 5,
    ),
    "cost of best single": (Measure.cost, lambda one: one.costs[:, None, :, SINGLE]),
}
RATIOS: Mapping[str, Callable[[Draw], tuple[Floats, Floats]]] = {
    "gap_recovered": lambda one: (gain(one)[:, 0], one.scores.max(axis=-1) - one.scores[..., SINGLE]),
    "bayes_gap_recovered": lambda one: (gain(one)[:, 0], one.expected.max(axis=-1) - one.scores[..., SINGLE]),
}
TWO: Mapping[str, Callable[[Draw, int], Estimate | None]] = {
    "AUROC": lambda one, row: auroc_estimate(one.scores[row, :, 0], one.predicted[row, :, 0]),
    "APGR (paper)": lambda one, row: apgr_estimate(*two(one, row)),
    "CPT(50%) (paper)": lambda one, row: cpt_estimate(*two(one, row), target=0.5),
    "CPT(80%) (paper)": lambda one, row: cpt_estimate(*two(one, row), target=0.8),
}
"""What is computed sample by sample."""
NULLS = ("accuracy of two routers", "score of two routers")
"""Differences whose truth is 0 by symmetry: what is tested."""


def measure_means(samples: int, seeds: int, spread: float, seed: int = 0) -> list[Row]:
    """Return the rows of all means with this number of seeds, then those of the tests."""
    random = np.random.default_rng([seed, seeds, int(100 * spread)])
    means = {**MEANS, **ONE_SEED_MEANS} if seeds == 1 else MEANS
    # The truth: all figures over a population of seeds and queries.
    truths: dict[str, list[float]] = {name: [] for name in means}
    for _ in range(20):
        whole = draw(random, 40, seeds, 1_000, spread)
        for name, (_, values) in means.items():
            truths[name].append(float(values(whole).mean()))
    shares: dict[str, dict[int, float | None]] = {}
    printed: dict[str, dict[int, float | None]] = {}
    for queries in QUERIES:
        one = draw(random, samples * (TIMES if queries < FEW else 1), seeds, queries, spread)
        for name, (measure, values) in means.items():
            table = values(one)
            truth = 0.0 if name in NULLS else float(np.mean(truths[name]))
            # What always calls one candidate can call no dearer one.
            dearest = 0.0 if name == "cost of best single" else one.costs.mean(axis=1).max(axis=-1)
            mean = seed_mean([table], measure, dearest)
            _count(name, queries, mean.interval(LEVEL), truth, shares, printed)
            if name in NULLS:
                rejected = mean.p_value() <= LEVEL
                shares.setdefault(f"test: {name}", {})[queries] = float(rejected.mean())
            if name == NULLS[0] and seeds == 1:
                exact = [mcnemar_p(row) <= LEVEL for row in table[:, 0]]
                shares.setdefault("test: McNemar", {})[queries] = float(np.mean(exact))
    return [
        Row(what=name, seeds=seeds, spread=spread, share=share, printed=printed.get(name, {}))
        for name, share in shares.items()
    ]


def measure_others(samples: int, seed: int = 0) -> Iterator[Row]:
    """Yield the rows of the ratios, and of what is computed sample by sample, of one seed."""
    random = np.random.default_rng([seed, 9])
    whole = draw(random, 40, 1, 20_000, 0.0)
    shares: dict[str, dict[int, float | None]] = {}
    printed: dict[str, dict[int, float | None]] = {}
    large = draw(random, 8, 1, 4_000, 0.0)
    truths = {name: np.mean([found.value for row in range(8) if (found := of(large, row))]) for name, of in TWO.items()}
    for queries in QUERIES:
        one = draw(random, samples, 1, queries, 0.0)
        for name, parts in RATIOS.items():
            numerators, denominators = parts(whole)
            truth = float(numerators.mean() / denominators.mean())
            _count(name, queries, fieller_interval(*parts(one)), truth, shares, printed)
        for name, of in TWO.items():
            drawn = [estimate for row in range(samples // 4) if (estimate := of(one, row))]
            bounds = [
                np.array([np.nan if (end := getattr(each, side)) is None else end for each in drawn])
                for side in ("low", "high")
            ]
            _count(name, queries, (bounds[0], bounds[1]), float(truths[name]), shares, printed)
    for name, share in shares.items():
        yield Row(what=name, seeds=1, spread=0.0, share=share, printed=printed[name])


def _count(
    name: str,
    queries: int,
    interval: tuple[Floats, Floats],
    truth: float,
    shares: dict[str, dict[int, float | None]],
    printed: dict[str, dict[int, float | None]],
) -> None:
    """Note how often the intervals that are printed hold the truth."""
    low, high = interval
    known = np.isfinite(low) & np.isfinite(high) & (high > low)
    holds = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    # Of a few intervals no share can be told.
    shares.setdefault(name, {})[queries] = float(holds[known].mean()) if known.sum() >= 30 else None
    printed.setdefault(name, {})[queries] = float(known.mean())


def measure(samples: int, seed: int = 0) -> list[Row]:
    """Return every row: of one seed, whose router is the truth, and of several that differ by `SPREADS`."""
    rows = [*measure_means(samples, 1, 0.0, seed), *measure_others(samples, seed)]
    for seeds in SEEDS[1:]:
        for spread in SPREADS:
            rows += measure_means(samples, seeds, spread, seed)
    return rows


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="samples a row and number of queries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = measure(arguments.samples, arguments.seed)
    print(table_head("interval or test", "seeds", *(f"{number} queries" for number in QUERIES)))
    # Seeds that spread by more or less share a row.
    for what, seeds in dict.fromkeys((row.what, row.seeds) for row in rows):
        same = [row for row in rows if (row.what, row.seeds) == (what, seeds)]
        print(table_row(what, str(seeds), *(_cell(same, queries) for queries in QUERIES)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def _cell(rows: Sequence[Row], queries: int) -> str:
    """The lowest and highest share of the rows, and how many intervals are printed at least."""
    shares = [share for row in rows if (share := row.share[queries]) is not None]
    if not shares:
        return "none"
    shown = f"{min(shares):.1%}" + (f" to {max(shares):.1%}" if len(shares) > 1 else "")
    printed = min(row.printed.get(queries, 1.0) for row in rows)
    return shown + (f" ({printed:.0%} printed)" if printed < 0.995 else "")


if __name__ == "__main__":
    main()
