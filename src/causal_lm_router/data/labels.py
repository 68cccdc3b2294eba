"""The label of a query: its best candidate, chosen by one rule where several are best."""

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
    """Return query id -> label: the candidate of the highest utility, which is score - cost_weight * cost (USD).

    Candidates that are `held_out` never become a label.

    Where several have the highest utility, `cheapest` takes the one with the lowest cost on this query (lowest input
    plus output price where costs are unknown), `best_on_train` the first in the order of `rank_on_train`, `first` the
    first of the pool, and `random` one drawn from (seed, query id), so that the order and the number of queries change
    nothing. Remaining ties go to the first of the pool.

    Raises:
        ValueError: under `cheapest`, neither costs nor all prices are known; under `best_on_train`, there are no
            training queries; with a cost weight, a query has no costs.
    """
    sort_key = _make_tie_key(tie_break, pool, train, seed)
    # `min` keeps the first of equal keys, and candidates come in pool order: this is the rule for remaining ties.
    return {
        example.query_id: min(
            _find_best_candidates(example, cost_weight, held_out), key=functools.partial(sort_key, example)
        )
        for example in examples
    }


def utilities(example: RoutingExample, cost_weight: float) -> list[float]:
    """Return score - cost_weight * cost (USD) of every candidate, in pool order.

    Raises:
        ValueError: the weight is above 0 and the query has no costs.
    """
    # Costs may be unknown here, and scores must stay exactly as they are.
    if cost_weight == 0:
        return list(example.scores.values())
    if example.costs is None:
        raise ValueError(
            f"data.cost_weight must be 0 where costs are unknown, got {cost_weight}: "
            f"query {example.query_id!r} has no costs"
        )
    return [score - cost_weight * example.costs[name] for name, score in example.scores.items()]


def _find_best_candidates(example: RoutingExample, cost_weight: float, held_out: Sequence[str]) -> list[str]:
    values = zip(example.scores, utilities(example, cost_weight), strict=True)
    allowed = {name: utility for name, utility in values if name not in held_out}
    best = max(allowed.values())
    return [name for name, utility in allowed.items() if utility == best]


def best_single(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> str:
    """Return the candidate to call if a single one answers all queries: the first in the order of `rank_on_train`."""
    return rank_on_train(train, pool)[0]


def rank_on_train(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> list[str]:
    """Return the candidate names from the highest mean score on `train` to the lowest.

    Ties: lower mean cost first (lower input plus output price where a query's costs are unknown), then pool order.

    Raises:
        ValueError: there are no training queries.
    """
    if not train:
        raise ValueError("train must have at least 1 query to rank the candidates, got none")
    means = {one.name: _mean([example.scores[one.name] for example in train]) for one in pool}
    costs = _average_costs(train, pool)
    return sorted(means, key=lambda name: (-means[name], costs[name]))


def drop_undecided(examples: Iterable[RoutingExample]) -> list[RoutingExample]:
    """Return the examples on which the candidates' scores differ. Use it for training queries only."""
    return [example for example in examples if not example.is_undecided()]


def _make_tie_key(
    tie_break: TieBreak, pool: Sequence[Candidate], train: Sequence[RoutingExample], seed: int
) -> Callable[[RoutingExample, str], Any]:
    """Return a function of a query and a candidate; the label is the best candidate with the lowest value."""
    match tie_break:
        case TieBreak.cheapest:
            prices = _add_prices(pool)
            return lambda example, name: _require_costs(example, prices)[name]
        case TieBreak.best_on_train:
            ranks = {name: rank for rank, name in enumerate(rank_on_train(train, pool))}
            return lambda example, name: ranks[name]
        # Equal keys for all, so that `min` takes the first of the pool.
        case TieBreak.first:
            return lambda example, name: 0
        case TieBreak.random:
            return lambda example, name: _draw(seed, example.query_id, name)


def _add_prices(pool: Sequence[Candidate]) -> dict[str, float] | None:
    """Return the input plus output price of every candidate; None if one is unknown."""
    prices = {
        one.name: one.input_price + one.output_price
        for one in pool
        if one.input_price is not None and one.output_price is not None
    }
    return prices if len(prices) == len(pool) else None


def _require_costs(example: RoutingExample, prices: Mapping[str, float] | None) -> Mapping[str, float]:
    # The query's own costs are better knowledge than list prices.
    known = prices if example.costs is None else example.costs
    if known is None:
        raise ValueError(
            "data.tie_break must be best_on_train, first or random where costs and prices (data.pool_path) are unknown,"
            f" got {TieBreak.cheapest.value!r}: query {example.query_id!r} has no costs"
        )
    return known


def _average_costs(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Mapping[str, float]:
    """Return every candidate's mean cost on `train`; its total price if a query has no costs; 0 without prices too."""
    costs = [example.costs for example in train if example.costs is not None]
    if len(costs) == len(train):
        return {one.name: _mean([row[one.name] for row in costs]) for one in pool}
    return _add_prices(pool) or dict.fromkeys((one.name for one in pool), 0.0)


def _mean(values: Sequence[float]) -> float:
    # An exact sum: the order of the queries must not break ties of means.
    return math.fsum(values) / len(values)


def _draw(*parts: object) -> bytes:
    """Return pseudo-random bytes that depend on `parts` alone; Python's own hash differs between processes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
