"""Matrix factorisation: queries and candidates in one space, learned from pairs in which one candidate scores higher.

The strength of candidate m on query q is w . (v_m * (W q + b)), with v_m of unit length and q the query's embedding;
P(a beats b on q) = sigmoid(strength a - strength b), trained by binary cross-entropy with noise on the embeddings:
RouteLLM's matrix factorisation router (arXiv 2406.18665, section 4.2, and `train_matrix_factorization.py` of its code,
which leaves b out). Where RouteLLM has one battle per query, this has all pairs of candidates with different scores.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from causal_lm_router.baselines.pairwise import mean_win_chances
from causal_lm_router.data.arrays import Floats
from causal_lm_router.models.torch_state import keep_random_state
from causal_lm_router.terminal import progress_bar

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-5
BATCH_SIZE = 64


class Factors(nn.Module):
    """The factors of queries and candidates."""

    def __init__(self, num_dimensions: int, num_candidates: int, rank: int) -> None:
        super().__init__()
        self.candidates = nn.Embedding(num_candidates, rank)
        self.project = nn.Linear(num_dimensions, rank)
        self.weigh = nn.Linear(rank, 1, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the strengths (queries x candidates)."""
        weighted = self.project(vectors) * self.weigh.weight
        return weighted @ functional.normalize(self.candidates.weight, dim=1).T  # type: ignore[no-any-return]


def fit_factors(
    vectors: Floats, scores: Floats, rank: int, epochs: int, noise: float, seed: int
) -> Callable[[Floats], Floats]:
    """Return a function from query vectors to each candidate's mean probability to beat another one of the pool.

    `noise` is the standard deviation of the noise on embeddings scaled to coordinates of RMS 1. RouteLLM's is far
    stronger: 0.1 on unit vectors of 1,536 dimensions is 4 times their coordinates. Training queries on which all
    candidates tie are not used; if all are such, the factors stay as initialised.
    """
    # To coordinates of RMS 1, so that `noise` means the same for every embedding model.
    size = _measure_rms(vectors)
    inputs, targets = _to_tensor(vectors / size), _to_tensor(scores)
    with keep_random_state():
        torch.manual_seed(seed)
        factors = Factors(vectors.shape[1], scores.shape[1], rank)
        _train(factors, inputs, targets, epochs, noise)

    def predict(queries: Floats) -> Floats:
        with torch.no_grad():
            strengths = factors(_to_tensor(queries / size)).numpy().astype(np.float64)
        return mean_win_chances(strengths)

    return predict


def _train(factors: Factors, inputs: Tensor, targets: Tensor, epochs: int, noise: float) -> None:
    optimizer = torch.optim.Adam(factors.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    # Only queries with a winner: a batch of ties would have no pairs, and nan as its mean loss.
    decided = (targets.max(dim=1).values > targets.min(dim=1).values).nonzero().flatten()
    for _ in progress_bar(range(epochs), name="fitting the factors", unit="epochs"):
        for batch in decided[torch.randperm(len(decided))].split(BATCH_SIZE):  # type: ignore[no-untyped-call]
            noisy = inputs[batch] + noise * torch.randn_like(inputs[batch])
            strengths = factors(noisy)
            # Every ordered pair (first beats second) of a query: batch x first x second.
            is_win = targets[batch][:, :, None] > targets[batch][:, None, :]
            margins = strengths[:, :, None] - strengths[:, None, :]
            # Cross-entropy of sigmoid(margin) against a win; softplus(-m) is -log sigmoid(m) without overflow.
            loss = functional.softplus(-margins[is_win]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _measure_rms(vectors: Floats) -> float:
    return max(float(np.sqrt(np.mean(vectors**2))), 1e-12)


def _to_tensor(values: Floats) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
