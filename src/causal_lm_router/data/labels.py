"""The label of a query: its best candidate, and one rule where several are best."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from causal_lm_router.config import TieBreak
from causal_lm_router.routing import Candidate, RoutingExample


def choose_labels(
    examples: Iterable[RoutingExample],
    tie_break: TieBreak,
    pool: Sequence[Candidate],
    train: Sequence[RoutingExample],
    seed: int,
    cost_weight: float = 0.0,
    held_out: Sequence[str] = (),
) -> dict[str, str]:
    """Return query id -> label: a candidate of the query's highest utility, which is score - cost_weight * cost (USD).

    Candidates that are `held_out` become no label.

    Of several best, `cheapest` takes the one of least cost on this query (of least input plus output price where costs
    are unknown), `best_on_train` the first in `rank_on_train`'s order, `first` the first of the pool, and `random` one
    drawn from (seed, query id), so that the order and the number of queries change nothing. What is still tied goes to
    the first of the pool.

    Raises ValueError under `cheapest` where neither costs nor all prices are known, and under `best_on_train` for no
    training queries.
    """
    sort_key = _tie_key(tie_break, pool, train, seed)
    return {
        example.query_id: min(
            _best_candidates(example, cost_weight, held_out), key=functools.partial(sort_key, example)
        )
        for example in examples
    }


def utilities(example: RoutingExample, cost_weight: float) -> list[float]:
    """Return score - cost_weight * cost (USD) of every candidate, in pool order.

    Raises ValueError where a weight above 0 meets a query without costs.
    """
    if cost_weight == 0:
        return list(example.scores.values())
    if example.costs is None:
        raise ValueError(f"data.cost_weight={cost_weight}: query {example.query_id!r} has no costs, allowed is 0")
    return [score - cost_weight * example.costs[name] for name, score in example.scores.items()]


def _best_candidates(example: RoutingExample, cost_weight: float, held_out: Sequence[str]) -> list[str]:
    values = zip(example.scores, utilities(example, cost_weight), strict=True)
    allowed = {name: utility for name, utility in values if name not in held_out}
    return [name for name, utility in allowed.items() if utility == max(allowed.values())]


def best_single(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> str:
    """Return the candidate to call if one has to answer everything: the first in `rank_on_train`'s order."""
    return rank_on_train(train, pool)[0]


def rank_on_train(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> list[str]:
    """Return the pool's names from the highest mean score on `train` to the lowest.

    Ties: lower mean cost first (lower input plus output price where a query's costs are unknown), then pool order.
    Raises ValueError for no training queries.
    """
    if not train:
        raise ValueError("train: got no queries, ranking the candidates needs at least 1")
    means = {one.name: _mean([example.scores[one.name] for example in train]) for one in pool}
    costs = _mean_costs(train, pool)
    return sorted(means, key=lambda name: (-means[name], costs[name]))


def drop_undecided(examples: Iterable[RoutingExample]) -> list[RoutingExample]:
    """Return the examples on which not all candidates score the same. Meant for training queries only."""
    return [example for example in examples if not example.is_undecided()]


def _tie_key(
    tie_break: TieBreak, pool: Sequence[Candidate], train: Sequence[RoutingExample], seed: int
) -> Callable[[RoutingExample, str], Any]:
    """A function of a query and a candidate; the label is the best candidate for which it is least."""
    match tie_break:
        case TieBreak.cheapest:
            prices = _total_prices(pool)
            return lambda example, name: _costs(example, prices)[name]
        case TieBreak.best_on_train:
            ranks = {name: rank for rank, name in enumerate(rank_on_train(train, pool))}
            return lambda example, name: ranks[name]
        case TieBreak.first:
            return lambda example, name: 0
        case TieBreak.random:
            return lambda example, name: _draw(seed, example.query_id, name)


def _total_prices(pool: Sequence[Candidate]) -> dict[str, float] | None:
    """Input plus output price of every candidate; None where one is unknown."""
    prices = {
        one.name: one.input_price + one.output_price
        for one in pool
        if one.input_price is not None and one.output_price is not None
    }
    return prices if len(prices) == len(pool) else None


def _costs(example: RoutingExample, prices: Mapping[str, float] | None) -> Mapping[str, float]:
    known = prices if example.costs is None else example.costs
    if known is None:
        raise ValueError(
            f"data.tie_break={TieBreak.cheapest.value!r} needs costs: query {example.query_id!r} has none and the pool "
            "has not all prices (data.pool_path); allowed without them is best_on_train | first | random"
        )
    return known


def _mean_costs(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Mapping[str, float]:
    """Mean cost of every candidate on `train`; where a query's costs are unknown its total price, or else 0 for all."""
    costs = [example.costs for example in train if example.costs is not None]
    if len(costs) == len(train):
        return {one.name: _mean([row[one.name] for row in costs]) for one in pool}
    return _total_prices(pool) or dict.fromkeys((one.name for one in pool), 0.0)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _draw(*parts: object) -> bytes:
    """Bytes as good as random that depend on `parts` alone, in every process."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
