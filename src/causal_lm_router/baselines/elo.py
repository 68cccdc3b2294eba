"""Elo ratings: the strengths of candidates that explain best who scores higher than whom on the training queries.

Ratings are the maximum-likelihood ones of the Bradley-Terry model, P(a beats b) = sigmoid(rating a - rating b), fitted
by logistic regression with a tie as half a win each: what Chatbot Arena (arXiv 2403.04132, section 4) calls Elo. They
are in nats; times 400 / ln 10 they are Elo points. Every pair starts with one tie, which keeps the ratings finite where
a candidate never loses.
"""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression

from causal_lm_router.baselines.pairwise import mean_win_chances, pair_wins
from causal_lm_router.data.arrays import Floats


def win_chances(scores: Floats) -> Floats:
    """Return each candidate's chance to beat another one of the pool, by its rating on `scores` (queries x candidates).

    The same for every query: a constant route, to the candidate that wins most, which need not score best on average.
    """
    return mean_win_chances(_ratings(pair_wins(scores).sum(axis=0)))


def fit_similar(vectors: Floats, scores: Floats, gamma: float) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to the chances by ratings in which similar training queries count more.

    Training query i weighs gamma ** (cos(query, i) / max_j cos(query, j)), scaled to a mean of 1: RouteLLM's
    similarity-weighted ranking (arXiv 2406.18665, section 4.2, where gamma is 10), but over single candidates instead
    of tiers of them, and over all pairs of candidates on every training query instead of one battle each.
    """
    wins = pair_wins(scores)
    num_candidates = scores.shape[1]
    units = _unit(vectors)

    def predict(queries: Floats) -> Floats:
        cosines = _unit(queries) @ units.T
        weights = gamma ** (cosines / np.maximum(cosines.max(axis=1, keepdims=True), 1e-6))
        weights /= weights.mean(axis=1, keepdims=True)
        totals = (weights @ wins.reshape(len(wins), -1)).reshape(-1, num_candidates, num_candidates)
        return mean_win_chances(np.stack([_ratings(total) for total in totals]))

    return predict


def _ratings(wins: Floats) -> Floats:
    """Ratings of mean 0 from the number of wins of each candidate (row) over each other one (column)."""
    first, second = np.triu_indices(len(wins), k=1)
    one_hot = np.eye(len(wins))
    pairs = one_hot[first] - one_hot[second]
    counts = np.concatenate([wins[first, second], wins[second, first]]) + 0.5
    won = np.repeat([1, 0], len(pairs))
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    # Shares instead of counts: the loss would otherwise outgrow the solver's tolerance.
    regression.fit(np.concatenate([pairs, pairs]), won, sample_weight=counts / counts.sum())
    ratings = regression.coef_[0]
    return np.asarray(ratings - ratings.mean())


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
