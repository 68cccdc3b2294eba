"""Baselines that know the scores of the query to route: what no router can beat, and at what cost."""

from collections.abc import Sequence

import numpy as np

from causal_lm_router.baselines.score_table import Floats, cost_table, score_table
from causal_lm_router.config import BaselineMethod
from causal_lm_router.routing import Candidate, RoutingExample


def best_scores(examples: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Floats:
    """Return the true scores."""
    return score_table(examples, pool)


def cheapest_best(examples: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Floats:
    """Return 1 for the cheapest (on this query) of the candidates that score best, and 0 for the others.

    Without costs it goes by input plus output price. Raises ValueError where those are unknown too.
    """
    scores = score_table(examples, pool)
    costs = cost_table(examples, pool, BaselineMethod.cheapest_oracle.value)
    is_best = scores == scores.max(axis=1, keepdims=True)
    least = np.where(is_best, costs, np.inf).min(axis=1, keepdims=True)
    return np.where(is_best & (costs == least), 1.0, 0.0)
