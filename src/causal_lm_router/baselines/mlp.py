"""Multi-layer perceptron: the scores of all candidates from one hidden layer."""

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from causal_lm_router.baselines.score_table import Floats


def fit_mlp(vectors: Floats, scores: Floats, hidden_units: int, epochs: int, seed: int) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to predicted scores, cut to 0..1.

    One hidden layer (ReLU) under squared error, trained by Adam with scikit-learn's defaults for at most `epochs`.
    """
    network = MLPRegressor(hidden_layer_sizes=(hidden_units,), max_iter=epochs, random_state=seed)
    with warnings.catch_warnings():
        # The number of epochs is a setting, not a limit that was hit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(vectors, scores)
    return lambda queries: np.clip(network.predict(queries), 0.0, 1.0)
