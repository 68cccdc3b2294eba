"""Numbers of queries and candidates as arrays: a row per query, a column per candidate in pool order."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


def matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    """Return the numbers of every row in the order of `names` (rows x names).

    Raises:
        KeyError: a row lacks a name.
    """
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)


def known_matrix(rows: Sequence[Mapping[str, float] | None], names: Sequence[str]) -> Floats | None:
    """Return the matrix of rows that are all known; None where one of them is not."""
    known = [row for row in rows if row is not None]
    return matrix(known, names) if len(known) == len(rows) else None
