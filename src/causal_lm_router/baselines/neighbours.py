"""k nearest neighbours: what the training queries most like the query say."""

from collections.abc import Callable

import numpy as np
from sklearn.neighbors import NearestNeighbors

from causal_lm_router.baselines.score_table import Floats


def fit_neighbours(vectors: Floats, targets: Floats, k: int) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to the mean target of the k training queries of highest cosine similarity.

    Targets (queries x candidates) are scores, which makes it a regression, or ones at labels, which makes it a vote.
    All neighbours count alike. Raises ValueError for a k above the number of training queries.
    """
    if k > len(vectors):
        raise ValueError(f"baseline.k={k}: allowed is 1..{len(vectors)}, the number of training queries")
    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(vectors)

    def predict(queries: Floats) -> Floats:
        nearest = index.kneighbors(queries, return_distance=False)
        return np.asarray(targets[nearest].mean(axis=1))

    return predict
