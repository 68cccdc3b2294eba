"""The bootstrap: 95% intervals for estimates that have no formula of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.intervals import Estimate

MAX_UNDEFINED = 0.1
"""The share of resamples that may leave a statistic undefined before its interval counts as unknown."""


def bootstrap_estimates(
    statistics: Callable[..., dict[str, float]],
    arrays: Sequence[NDArray[Any]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate | None]:
    """Return the statistics by name with their standard errors and percentile 95% intervals over resampled queries.

    `statistics(*arrays)` returns a number for each name. Queries are drawn with replacement, the same ones from every
    array and for every statistic, so that what belongs to a query stays together and differences are paired. A number
    that is not finite on `arrays` themselves is None. Resamples on which a statistic is not finite are left out of its
    interval; with more than a tenth of them, or a single query, the interval is unknown. Source: Efron and Tibshirani
    (1993), An Introduction to the Bootstrap, sections 6.2 and 13.3.

    Raises:
        ValueError: the arrays are of different lengths, or without rows.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"arrays must have one length above 0, got lengths {sorted(lengths)}")
    num_queries = lengths.pop()
    random = np.random.default_rng(seed)
    values = statistics(*arrays)
    # A single query can only be drawn again and again: its spread is unknown.
    rows = [random.integers(num_queries, size=num_queries) for _ in range(resamples if num_queries > 1 else 0)]
    drawn = [list(statistics(*(array[chosen] for array in arrays)).values()) for chosen in rows]
    # A row per statistic; without resamples numpy cannot tell how many columns there are.
    columns = np.array(drawn, dtype=np.float64).reshape(len(rows), len(values)).T
    return {
        name: _estimate(float(value), column) if np.isfinite(value) else None
        for (name, value), column in zip(values.items(), columns, strict=True)
    }


def _estimate(value: float, drawn: Floats) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < max(2, (1 - MAX_UNDEFINED) * len(drawn)):
        return Estimate(value=value)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value=value, standard_error=float(defined.std(ddof=1)), low=float(low), high=float(high))
