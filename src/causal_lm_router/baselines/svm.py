"""Support vector machine: the label as a class."""

from collections.abc import Callable

import numpy as np
from scipy.special import expit
from sklearn.svm import SVC

from causal_lm_router.baselines.score_table import Floats


def fit_svm(vectors: Floats, labels: Floats, c: float) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to the logistic function of each candidate's margin; 0 if it is no label.

    The machine has an RBF kernel of scikit-learn's default width and regularisation 1 / c, and is trained for every
    pair of labels; a margin counts the pairs a candidate wins, and by how much (`decision_function_shape="ovr"`).
    `labels` holds 1 at every query's label (queries x candidates). The predictions rank candidates; they are no
    probabilities.
    """
    classes = labels.argmax(axis=1)
    present = np.unique(classes)
    if len(present) == 1:
        return lambda queries: np.tile(labels[0], (len(queries), 1))
    # It draws nothing, yet without a random_state it would move numpy's global generator on.
    machine = SVC(C=c, kernel="rbf", decision_function_shape="ovr", random_state=0).fit(vectors, classes)

    def predict(queries: Floats) -> Floats:
        margins = machine.decision_function(queries)
        if len(present) == 2:  # then it is one margin, that of the second class
            margins = np.stack([-margins, margins], axis=1)
        predicted = np.zeros((len(queries), labels.shape[1]))
        predicted[:, present] = expit(margins)
        return predicted

    return predict
