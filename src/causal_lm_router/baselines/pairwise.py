"""Candidates compared in pairs: which one scores higher on a query, and which one is expected to."""

import numpy as np
from scipy.special import expit

from causal_lm_router.data.arrays import Floats


def pair_wins(scores: Floats) -> Floats:
    """Return 1 where the first candidate scores higher than the second, 0.5 for a tie, else 0; 0 on the diagonal.

    `scores` is queries x candidates, the wins are queries x candidates (first) x candidates (second).
    """
    first, second = scores[:, :, None], scores[:, None, :]
    wins = (first > second) + 0.5 * (first == second)
    return np.asarray(wins * (1 - np.eye(scores.shape[1])))


def mean_win_chances(strengths: Floats) -> Floats:
    """Return each candidate's mean probability to beat another one of the pool; it ranks them as the strengths do.

    The probability of a against b is sigmoid(strength a - strength b). The last axis of `strengths` is the candidates.
    """
    # Minus the 0.5 of each candidate against itself.
    chances = expit(strengths[..., :, None] - strengths[..., None, :])
    return np.asarray((chances.sum(axis=-1) - 0.5) / (strengths.shape[-1] - 1))
