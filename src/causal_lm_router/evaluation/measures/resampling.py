"""The bootstrap: 95% intervals for figures that have no formula of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.evaluation.intervals import Estimate

MAX_UNDEFINED = 0.1
"""The share of resamples that may leave a figure undefined before its interval counts as unknown."""

Arrays = Sequence[NDArray[Any]]


def bootstrap_estimate(
    statistic: Callable[..., float], arrays: Arrays, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return `statistic(*arrays)` with its standard error and percentile 95% interval over resampled queries.

    Queries are drawn with replacement, the same ones from every array, so that what belongs to a query stays together
    and differences are paired. Resamples on which the statistic is NaN are left out; with more than a tenth of them,
    or a single query, the spread is None. Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap,
    sections 6.2 and 13.3. Raises ValueError for arrays of no or unequal length, and for a statistic that is not finite
    on `arrays` themselves.
    """
    figure = bootstrap_estimates(lambda *rows: {"": statistic(*rows)}, arrays, resamples=resamples, seed=seed)[""]
    if figure is None:
        raise ValueError("the statistic is undefined on the sample itself: allowed is a finite number")
    return figure


def bootstrap_estimates(
    statistics: Callable[..., dict[str, float]], arrays: Arrays, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate | None]:
    """Return a figure, as `bootstrap_estimate` has it, for each number by name that `statistics(*arrays)` returns.

    All of them see the same resamples. None where a number is not finite on `arrays` themselves. Raises ValueError for
    arrays of no or unequal length.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"arrays of lengths {sorted(lengths)}: allowed is one length for all, above 0")
    num_queries = lengths.pop()
    random = np.random.default_rng(seed)
    values = statistics(*arrays)
    rows = [random.integers(num_queries, size=num_queries) for _ in range(resamples if num_queries > 1 else 0)]
    drawn = [list(statistics(*(array[chosen] for array in arrays)).values()) for chosen in rows]
    columns = np.array(drawn, dtype=np.float64).reshape(len(rows), len(values)).T
    return {
        name: _figure(float(value), column) if np.isfinite(value) else None
        for (name, value), column in zip(values.items(), columns, strict=True)
    }


def _figure(value: float, drawn: NDArray[np.float64]) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < max(2, (1 - MAX_UNDEFINED) * len(drawn)):
        return Estimate(value, None, None, None)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value, float(defined.std(ddof=1)), float(low), float(high))
