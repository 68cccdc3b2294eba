"""Settings of the group `baseline`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from causal_lm_router.config.checks import Settings, check, check_function


class BaselineMethod(StrEnum):
    """A router to compare with."""

    random = "random"
    cheapest = "cheapest"
    most_expensive = "most_expensive"
    smallest = "smallest"
    largest = "largest"
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
    own = "own"


PROMPTED = (BaselineMethod.zero_shot, BaselineMethod.few_shot)
"""The baselines that generate with the untrained base model."""


@dataclass
class BaselineConfig(Settings):
    """A baseline, with the keys that its method alone has in a subclass."""

    method: BaselineMethod
    """The router to compare with."""


@dataclass
class EmbeddingBaselineConfig(BaselineConfig):
    """What the methods that read queries as vectors share."""

    embedding: str
    """What turns queries into vectors: `minilm` (all-MiniLM-L6-v2, from a Python package), `base_model` (the last
    hidden state of the base model as it is, at the end of the query), or the hub name or folder of a
    sentence-transformers model. Longer queries are cut to its window (256 tokens for `minilm`)."""

    def _own_problems(self) -> Iterator[str]:
        named = bool(self.embedding.strip())
        yield from check(named, "baseline.embedding", "minilm, base_model, a hub name or a folder", self.embedding)


@dataclass
class NeighboursConfig(EmbeddingBaselineConfig):
    """`baseline=knn_vote` and `baseline=knn_regression`."""

    k: int
    """Neighbours that count."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from self.check_counts("baseline", "k")


@dataclass
class SvmConfig(EmbeddingBaselineConfig):
    """`baseline=svm`."""

    svm_c: float
    """Inverse strength of the regularisation."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from check(self.svm_c > 0, "baseline.svm_c", "a number above 0", self.svm_c)


@dataclass
class MlpConfig(EmbeddingBaselineConfig):
    """`baseline=mlp`."""

    mlp_hidden_units: list[int]
    """Widths of the hidden layers."""
    mlp_epochs: int
    """Passes over the training queries, at most: training stops when its loss no longer falls."""
    mlp_batch_size: int
    """Training queries a step."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from self.check_counts("baseline", "mlp_epochs", "mlp_batch_size")
        widths = self.mlp_hidden_units
        fits = bool(widths) and min(widths) >= 1
        yield from check(fits, "baseline.mlp_hidden_units", "a list of integers of at least 1", widths)


@dataclass
class MatrixFactorisationConfig(EmbeddingBaselineConfig):
    """`baseline=matrix_factorisation`."""

    mf_rank: int
    """Size of the space in which queries and candidates are placed."""
    mf_epochs: int
    """Passes over the training queries."""
    mf_noise: float
    """Standard deviation of the noise on embeddings, of coordinates of RMS 1, in training."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from self.check_counts("baseline", "mf_rank", "mf_epochs")
        yield from check(self.mf_noise >= 0, "baseline.mf_noise", "a number of at least 0", self.mf_noise)


@dataclass
class EloConfig(EmbeddingBaselineConfig):
    """`baseline=elo`."""

    elo_gamma: float
    """How much more training queries count that resemble the query: 1 counts all alike, which makes the ratings
    constant; 10 is RouteLLM's similarity-weighted ranking."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from check(self.elo_gamma >= 1, "baseline.elo_gamma", "a number of at least 1", self.elo_gamma)


@dataclass
class EncoderConfig(EmbeddingBaselineConfig):
    """`baseline=encoder_classifier`."""

    encoder_epochs: int
    """Passes over the training queries."""
    encoder_learning_rate: float
    """Peak learning rate."""
    encoder_max_tokens: int
    """Read at most this many tokens of a query, and never more than the encoder's window."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from self.check_counts("baseline", "encoder_epochs")
        rate, tokens = self.encoder_learning_rate, self.encoder_max_tokens
        yield from check(rate > 0, "baseline.encoder_learning_rate", "a number above 0", rate)
        yield from check(tokens >= 8, "baseline.encoder_max_tokens", "an integer of at least 8", tokens)


@dataclass
class FewShotConfig(BaselineConfig):
    """`baseline=few_shot`."""

    num_shots: int
    """Training queries shown with their label."""

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("baseline", "num_shots")


@dataclass
class OwnBaselineConfig(EmbeddingBaselineConfig):
    """`baseline=own`: a Python function of your own fits the baseline."""

    function: str
    """The function, `package.module:function`, as the protocol `FitBaseline` has it."""
    options: dict[str, Any]
    """Settings of your own, handed to the function."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from check_function("baseline.function", self.function, needed=True)


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
    BaselineMethod.own: OwnBaselineConfig,
}
"""The keys of `baseline`, by `baseline.method`."""
