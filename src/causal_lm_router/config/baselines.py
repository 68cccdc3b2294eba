"""Settings of the group `baseline`."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import require


class BaselineMethod(StrEnum):
    """A router to compare with."""

    random = "random"
    cheapest = "cheapest"
    most_expensive = "most_expensive"
    best_single = "best_single"
    per_task_best = "per_task_best"
    majority_label = "majority_label"
    knn_vote = "knn_vote"
    knn_regression = "knn_regression"
    svm = "svm"
    mlp = "mlp"
    matrix_factorisation = "matrix_factorisation"
    elo = "elo"
    encoder_classifier = "encoder_classifier"
    zero_shot = "zero_shot"
    few_shot = "few_shot"
    oracle = "oracle"
    cheapest_oracle = "cheapest_oracle"


@dataclass
class BaselineConfig:
    method: BaselineMethod
    """The router to compare with."""
    embedding: str
    """What turns queries into vectors: `minilm` (all-MiniLM-L6-v2, from a Python package), or the hub name or folder of
    a sentence-transformers model. Longer queries are cut to its window (256 tokens for `minilm`)."""
    k: int
    """Neighbours of `knn_vote` and `knn_regression`."""
    svm_c: float
    """Inverse strength of the regularisation of `svm`."""
    mlp_hidden_units: int
    """Width of the hidden layer of `mlp`."""
    mlp_epochs: int
    """Passes of `mlp` over the training queries, at most: it stops when its loss no longer falls."""
    mf_rank: int
    """Size of the space in which `matrix_factorisation` places queries and candidates."""
    mf_epochs: int
    """Passes of `matrix_factorisation` over the training queries."""
    elo_gamma: float
    """How much more `elo` counts training queries that resemble the query: 1 counts all alike, which makes its ratings
    constant; 10 is RouteLLM's similarity-weighted ranking."""
    encoder_epochs: int
    """Passes of `encoder_classifier` over the training queries."""
    encoder_learning_rate: float
    """Peak learning rate of `encoder_classifier`."""
    encoder_max_tokens: int
    """`encoder_classifier` reads at most this many tokens of a query, and never more than the encoder's window."""
    num_shots: int
    """Training queries shown with their label by `few_shot`."""

    def __post_init__(self) -> None:
        require(bool(self.embedding.strip()), "baseline.embedding", self.embedding, "minilm, a hub name or a folder")
        for name in ("k", "mlp_hidden_units", "mlp_epochs", "mf_rank", "mf_epochs", "encoder_epochs", "num_shots"):
            value = getattr(self, name)
            require(value >= 1, f"baseline.{name}", value, "an integer of at least 1")
        for name in ("svm_c", "encoder_learning_rate"):
            require(getattr(self, name) > 0, f"baseline.{name}", getattr(self, name), "a number above 0")
        require(self.elo_gamma >= 1, "baseline.elo_gamma", self.elo_gamma, "a number of at least 1")
        tokens = self.encoder_max_tokens
        require(tokens >= 8, "baseline.encoder_max_tokens", tokens, "an integer of at least 8")
