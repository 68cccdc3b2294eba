"""Candidates compared two by two: who scores higher on a query, and who is expected to."""

import numpy as np
from scipy.special import expit

from causal_lm_router.data.arrays import Floats


def pair_wins(scores: Floats) -> Floats:
    """Return 1 where the first candidate scores higher than the second, 0.5 where they tie, 0 else and on the diagonal.

    `scores` is queries x candidates, the wins are queries x candidates (first) x candidates (second).
    """
    first, second = scores[:, :, None], scores[:, None, :]
    wins = (first > second) + 0.5 * (first == second)
    return np.asarray(wins * (1 - np.eye(scores.shape[1])))


def mean_win_chances(strengths: Floats) -> Floats:
    """Return each candidate's mean chance to beat another one of the pool, in the order that the strengths have.

    The chance of a against b is sigmoid(strength a - strength b). `strengths` has candidates in its last axis.
    """
    chances = expit(strengths[..., :, None] - strengths[..., None, :])
    return np.asarray((chances.sum(axis=-1) - 0.5) / (strengths.shape[-1] - 1))
