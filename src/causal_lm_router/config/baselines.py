"""Settings of the group `baseline`."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import require

AT_LEAST_1 = "an integer of at least 1"


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
    """A baseline, with the keys that its method alone has in a subclass."""

    method: BaselineMethod
    """The router to compare with."""


@dataclass
class EmbeddingBaselineConfig(BaselineConfig):
    """What the methods that read queries as vectors share."""

    embedding: str
    """What turns queries into vectors: `minilm` (all-MiniLM-L6-v2, from a Python package), or the hub name or folder of
    a sentence-transformers model. Longer queries are cut to its window (256 tokens for `minilm`)."""

    def __post_init__(self) -> None:
        require(bool(self.embedding.strip()), "baseline.embedding", self.embedding, "minilm, a hub name or a folder")


@dataclass
class NeighboursConfig(EmbeddingBaselineConfig):
    """`baseline=knn_vote` and `baseline=knn_regression`."""

    k: int
    """Neighbours that count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "baseline.k", self.k, AT_LEAST_1)


@dataclass
class SvmConfig(EmbeddingBaselineConfig):
    """`baseline=svm`."""

    svm_c: float
    """Inverse strength of the regularisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.svm_c > 0, "baseline.svm_c", self.svm_c, "a number above 0")


@dataclass
class MlpConfig(EmbeddingBaselineConfig):
    """`baseline=mlp`."""

    mlp_hidden_units: int
    """Width of the hidden layer."""
    mlp_epochs: int
    """Passes over the training queries, at most: training stops when its loss no longer falls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mlp_hidden_units >= 1, "baseline.mlp_hidden_units", self.mlp_hidden_units, AT_LEAST_1)
        require(self.mlp_epochs >= 1, "baseline.mlp_epochs", self.mlp_epochs, AT_LEAST_1)


@dataclass
class MatrixFactorisationConfig(EmbeddingBaselineConfig):
    """`baseline=matrix_factorisation`."""

    mf_rank: int
    """Size of the space in which queries and candidates are placed."""
    mf_epochs: int
    """Passes over the training queries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mf_rank >= 1, "baseline.mf_rank", self.mf_rank, AT_LEAST_1)
        require(self.mf_epochs >= 1, "baseline.mf_epochs", self.mf_epochs, AT_LEAST_1)


@dataclass
class EloConfig(EmbeddingBaselineConfig):
    """`baseline=elo`."""

    elo_gamma: float
    """How much more training queries count that resemble the query: 1 counts all alike, which makes the ratings
    constant; 10 is RouteLLM's similarity-weighted ranking."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.elo_gamma >= 1, "baseline.elo_gamma", self.elo_gamma, "a number of at least 1")


@dataclass
class EncoderConfig(EmbeddingBaselineConfig):
    """`baseline=encoder_classifier`."""

    encoder_epochs: int
    """Passes over the training queries."""
    encoder_learning_rate: float
    """Peak learning rate."""
    encoder_max_tokens: int
    """Read at most this many tokens of a query, and never more than the encoder's window."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.encoder_epochs >= 1, "baseline.encoder_epochs", self.encoder_epochs, AT_LEAST_1)
        rate, tokens = self.encoder_learning_rate, self.encoder_max_tokens
        require(rate > 0, "baseline.encoder_learning_rate", rate, "a number above 0")
        require(tokens >= 8, "baseline.encoder_max_tokens", tokens, "an integer of at least 8")


@dataclass
class FewShotConfig(BaselineConfig):
    """`baseline=few_shot`."""

    num_shots: int
    """Training queries shown with their label."""

    def __post_init__(self) -> None:
        require(self.num_shots >= 1, "baseline.num_shots", self.num_shots, AT_LEAST_1)


BASELINE_SCHEMAS: dict[BaselineMethod, type[BaselineConfig]] = {
    **dict.fromkeys(BaselineMethod, BaselineConfig),
    BaselineMethod.knn_vote: NeighboursConfig,
    BaselineMethod.knn_regression: NeighboursConfig,
    BaselineMethod.svm: SvmConfig,
    BaselineMethod.mlp: MlpConfig,
    BaselineMethod.matrix_factorisation: MatrixFactorisationConfig,
    BaselineMethod.elo: EloConfig,
    BaselineMethod.encoder_classifier: EncoderConfig,
    BaselineMethod.few_shot: FewShotConfig,
}
"""The keys of `baseline`, by `baseline.method`."""
