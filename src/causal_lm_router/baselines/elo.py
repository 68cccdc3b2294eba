"""Elo ratings: one strength per candidate that best explains which candidate scores higher on the training queries.

Ratings are the maximum-likelihood ones of the Bradley-Terry model, P(a beats b) = sigmoid(rating a - rating b), fitted
by logistic regression with a tie as half a win each: what Chatbot Arena (arXiv 2403.04132, section 4) calls Elo. They
are in nats; times 400 / ln 10 they are Elo points. Every pair starts with one tie, which keeps the ratings finite if a
candidate never loses.
"""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression

from causal_lm_router.baselines.pairwise import mean_win_chances, pair_wins
from causal_lm_router.data.arrays import Floats


def mean_elo_chances(scores: Floats) -> Floats:
    """Return each candidate's mean probability to beat another one, by its rating on `scores` (queries x candidates).

    It is the same for every query: a constant route to the candidate that wins most, which may not have the best mean.
    """
    return mean_win_chances(_fit_ratings(pair_wins(scores).sum(axis=0)))


def fit_similar(vectors: Floats, scores: Floats, gamma: float) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to mean win probabilities; similar training queries count more.

    Training query i weighs gamma ** (cos(query, i) / max_j cos(query, j)), scaled to a mean of 1: RouteLLM's
    similarity-weighted ranking (arXiv 2406.18665, section 4.2, where gamma is 10), but over single candidates instead
    of tiers of them, and over all pairs of candidates on every training query instead of one battle each.
    """
    wins = pair_wins(scores)
    num_candidates = scores.shape[1]
    units = _scale_to_unit(vectors)

    def predict(queries: Floats) -> Floats:
        cosines = _scale_to_unit(queries) @ units.T
        # The bound keeps a query that resembles no training query from dividing by 0 or flipping the signs.
        weights = gamma ** (cosines / np.maximum(cosines.max(axis=1, keepdims=True), 1e-6))
        # A mean of 1 keeps the tie that every pair starts with as strong as one training query.
        weights /= weights.mean(axis=1, keepdims=True)
        # Weighted wins of every pair, one table per query; each table gets ratings of its own.
        totals = (weights @ wins.reshape(len(wins), -1)).reshape(-1, num_candidates, num_candidates)
        return mean_win_chances(np.stack([_fit_ratings(total) for total in totals]))

    return predict


def _fit_ratings(wins: Floats) -> Floats:
    """Return ratings of mean 0 from the number of wins of each candidate (row) over each other one (column)."""
    # A row per pair, +1 for the first and -1 for the second: its product with the ratings is their difference.
    first, second = np.triu_indices(len(wins), k=1)
    one_hot = np.eye(len(wins))
    pairs = one_hot[first] - one_hot[second]
    # Each pair occurs twice, as won and as lost, weighted by the numbers of wins; 0.5 each is the tie to start with.
    counts = np.concatenate([wins[first, second], wins[second, first]]) + 0.5
    won = np.repeat([1, 0], len(pairs))
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    # Shares instead of counts: with counts the loss grows with the data, but the solver's tolerance does not.
    regression.fit(np.concatenate([pairs, pairs]), won, sample_weight=counts / counts.sum())
    # Only differences of ratings matter: the mean is set to 0.
    ratings = regression.coef_[0]
    return np.asarray(ratings - ratings.mean())


def _scale_to_unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
