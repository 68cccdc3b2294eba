"""What a router said of every candidate, beside what came of it."""

from dataclasses import dataclass

import numpy as np

from causal_lm_router.data.arrays import Floats


@dataclass(frozen=True)
class Predictions:
    """What a router said of every candidate on some queries, and what came of it.

    Arrays have a row per query and a column per candidate, in the order of `names`: scores and predictions in 0..1,
    costs in USD (None where unknown), and in `called` the weights of the actual route (1 for the candidate called,
    all 0 where none is). Raises ValueError for arrays of other shapes or values.
    """

    candidate_names: tuple[str, ...]
    scores: Floats
    costs: Floats | None
    predicted: Floats
    called: Floats

    def __post_init__(self) -> None:
        shape = (len(self.scores), len(self.candidate_names))
        if shape[0] == 0 or shape[1] < 2:
            raise ValueError(f"predictions: got {shape[0]} queries x {shape[1]} candidates, allowed is at least 1 x 2")
        for key, high in (("scores", 1.0), ("predicted", 1.0), ("called", 1.0), ("costs", np.inf)):
            values = getattr(self, key)
            if values is None and key == "costs":
                continue
            if values.shape != shape:
                raise ValueError(f"predictions.{key}: got shape {values.shape}, allowed is {shape}")
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= high):
                raise ValueError(f"predictions.{key}: got {values.min()}..{values.max()}, allowed is 0..{high}, finite")
