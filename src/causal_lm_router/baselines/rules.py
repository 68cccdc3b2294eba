"""Baselines that do not read a query's text: a constant choice, a random one, one per task, and two oracles."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from causal_lm_router.baselines.score_table import Predictor, cost_table, score_table
from causal_lm_router.config import BaselineMethod
from causal_lm_router.data.arrays import Floats
from causal_lm_router.routing import Candidate, RoutingExample


def repeat_row(row: Floats) -> Predictor:
    """Return a predictor of `row` for every query."""
    return lambda examples: np.tile(row, (len(examples), 1))


def draw_rows(pool: Sequence[Candidate], seed: int) -> Predictor:
    """Return a predictor of 1 for one random candidate per query and 0 for the others, from (seed, query id) alone."""
    one_hot = np.eye(len(pool))

    def predict(examples: Sequence[RoutingExample]) -> Floats:
        return one_hot[[_draw(seed, example.query_id) % len(pool) for example in examples]]

    return predict


def _draw(seed: int, query_id: str) -> int:
    # A text of its own keeps this draw apart from the one that breaks ties of labels: with equal draws, the random
    # baseline would agree with random labels.
    content = repr(("random baseline", seed, query_id)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def mark_price_extremes(train: Sequence[RoutingExample], pool: Sequence[Candidate], method: BaselineMethod) -> Floats:
    """Return 1 for the candidates of the lowest (`cheapest`) or highest mean cost on `train`, and 0 for the others.

    Without costs the sum of input and output price decides.

    Raises:
        ValueError: neither costs nor all prices are known.
    """
    costs = cost_table(train, pool, method.value).mean(axis=0)
    # Means of equal costs can differ in their last digits: the tolerance keeps such candidates tied.
    extreme = costs.min() if method is BaselineMethod.cheapest else costs.max()
    return np.where(np.isclose(costs, extreme, rtol=1e-12, atol=0.0), 1.0, 0.0)


def mark_size_extremes(pool: Sequence[Candidate], method: BaselineMethod) -> Floats:
    """Return 1 for the candidates with the fewest (`smallest`) or the most parameters, and 0 for the others.

    Raises:
        ValueError: a candidate's size is unknown.
    """
    unknown = [one.name for one in pool if one.size is None]
    if unknown:
        what = f"baseline.method={method.value} must have the size of every candidate"
        raise ValueError(f"{what} (data.pool_path, 'size' such as \"7B\"), got none of {', '.join(unknown)}")
    sizes = np.array([one.size for one in pool])
    extreme = sizes.min() if method is BaselineMethod.smallest else sizes.max()
    return np.where(sizes == extreme, 1.0, 0.0)


def fit_per_task(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Predictor:
    """Return a predictor of the mean train scores on the query's task, or on all of train for an unknown task.

    It reads the task of the queries to route, which a router that reads only the text would have to guess.
    """
    by_task: dict[str, list[RoutingExample]] = defaultdict(list)
    for example in train:
        by_task[example.task].append(example)
    means = {task: score_table(examples, pool).mean(axis=0) for task, examples in by_task.items()}
    overall = score_table(train, pool).mean(axis=0)
    return lambda examples: np.stack([means.get(example.task, overall) for example in examples])


def mark_cheapest_best(examples: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Floats:
    """Return 1 for the cheapest (on this query) of the candidates with the best score, and 0 for the others.

    Without costs the sum of input and output price decides.

    Raises:
        ValueError: neither costs nor all prices are known.
    """
    scores = score_table(examples, pool)
    costs = cost_table(examples, pool, BaselineMethod.cheapest_oracle.value)
    is_best = scores == scores.max(axis=1, keepdims=True)
    # Candidates that are not best cost infinitely much, so that they are never the cheapest.
    least = np.where(is_best, costs, np.inf).min(axis=1, keepdims=True)
    return np.where(is_best & (costs == least), 1.0, 0.0)
