"""Baselines that learn from query embeddings: nearest neighbours, a support vector machine and a small network.

Each function takes the training queries as vectors (queries x dimensions) with their scores or labels (queries x
candidates), and returns a function from query vectors to predictions (queries x candidates).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVC

from causal_lm_router.data.arrays import Floats


def fit_neighbours(vectors: Floats, targets: Floats, k: int) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to the mean target of the k training queries of highest cosine similarity.

    Targets (queries x candidates) are scores, which makes it a regression, or ones at labels, which makes it a vote.
    All neighbours have the same weight.
    """
    assert k <= len(vectors), "check_fit has seen to it"
    # Brute force: trees are slower at hundreds of dimensions, and know no cosine distance.
    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(vectors)

    def predict(queries: Floats) -> Floats:
        nearest = index.kneighbors(queries, return_distance=False)
        return np.asarray(targets[nearest].mean(axis=1))

    return predict


def fit_svm(vectors: Floats, labels: Floats, c: float) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to the logistic function of each candidate's margin; 0 if it is no label.

    The machine has an RBF kernel of scikit-learn's default width and regularisation 1 / c, and is trained for every
    pair of labels; a margin counts the pairs that a candidate wins, and by how much (`decision_function_shape="ovr"`).
    `labels` holds 1 at every query's label (queries x candidates). The predictions rank candidates; they are not
    probabilities.
    """
    classes = labels.argmax(axis=1)
    present = np.unique(classes)
    # scikit-learn refuses a single class.
    if len(present) == 1:
        return lambda queries: np.tile(labels[0], (len(queries), 1))
    # It draws nothing, but without a random_state it would advance numpy's global generator.
    machine = SVC(C=c, kernel="rbf", decision_function_shape="ovr", random_state=0).fit(vectors, classes)

    def predict(queries: Floats) -> Floats:
        margins = machine.decision_function(queries)
        if len(present) == 2:  # with two classes there is one margin, that of the second
            margins = np.stack([-margins, margins], axis=1)
        predicted = np.zeros((len(queries), labels.shape[1]))
        predicted[:, present] = expit(margins)
        return predicted

    return predict


def fit_mlp(
    vectors: Floats, scores: Floats, hidden_units: Sequence[int], epochs: int, batch_size: int, seed: int
) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to predicted scores, cut to 0..1.

    Hidden layers (ReLU) under squared error, trained by Adam with scikit-learn's defaults for at most `epochs`.
    """
    network = MLPRegressor(
        hidden_layer_sizes=tuple(hidden_units),
        max_iter=epochs,
        batch_size=min(batch_size, len(vectors)),
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Training for exactly the set number of epochs is intended, so the warning about it is not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(vectors, scores)
    return lambda queries: np.clip(network.predict(queries), 0.0, 1.0)
