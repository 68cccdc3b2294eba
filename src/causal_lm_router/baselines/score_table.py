"""Examples as numbers: a row per query, a column per candidate in pool order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from causal_lm_router.data.arrays import Floats, known_matrix, matrix
from causal_lm_router.routing import Candidate, RoutingExample

Predictor = Callable[[Sequence[RoutingExample]], Floats]
"""Function from examples to predictions (queries x candidates), the higher the better."""


def score_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Floats:
    """Return the scores (queries x candidates)."""
    return matrix([example.scores for example in examples], [one.name for one in pool])


def label_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate], labels: Mapping[str, str]) -> Floats:
    """Return 1 at every query's label and 0 elsewhere (queries x candidates).

    Raises ValueError for a query without a label, or with one outside the pool.
    """
    columns = {one.name: column for column, one in enumerate(pool)}
    for example in examples:
        if labels.get(example.query_id) not in columns:
            label = labels.get(example.query_id)
            raise ValueError(f"query {example.query_id!r}: label={label!r}, allowed is {' | '.join(columns)}")
    return np.eye(len(pool))[[columns[labels[example.query_id]] for example in examples]]


def cost_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate], method: str) -> Floats:
    """Return the costs (USD; queries x candidates); where a query's are unknown, all rows are input plus output prices.

    Raises ValueError where neither all costs nor all prices are known.
    """
    costs = known_matrix([example.costs for example in examples], [one.name for one in pool])
    if costs is not None:
        return costs
    pairs = [(one.input_price, one.output_price) for one in pool]
    prices = [into + out for into, out in pairs if into is not None and out is not None]
    if len(prices) < len(pool):
        num_unknown = sum(example.costs is None for example in examples)
        raise ValueError(
            f"baseline.method={method!r} needs costs: {num_unknown} of {len(examples)} queries have none "
            "and the pool has not all prices (data.pool_path); allowed without them are the methods that go by scores"
        )
    return np.tile(np.array(prices), (len(examples), 1))
