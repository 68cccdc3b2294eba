"""Settings of the groups `evaluation` and `tracking`."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import require


class Split(StrEnum):
    """A part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


class WandbMode(StrEnum):
    """How W&B records: `auto` is online with a key and a reachable server, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class EvaluationConfig:
    split: Split
    """Split of the evaluations during training."""
    max_queries: int | None
    """Evaluate at most this many queries during training, drawn with data.split_seed; null evaluates all."""
    every_n_epochs: int | None
    """Epochs between evaluations during training; null evaluates none at epoch ends."""
    every_n_steps: int | None
    """Optimizer steps between evaluations during training; null evaluates none by step."""
    final_split: Split
    """Split evaluated whole after training, for the run's report, and by the `evaluate` command."""
    final_validation: bool
    """Evaluate the whole validation split after training too, where it holds queries: what sweeps choose by."""

    def __post_init__(self) -> None:
        for name in ("max_queries", "every_n_epochs", "every_n_steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"evaluation.{name}", value, "an integer of at least 1, or null")


@dataclass
class WandbConfig:
    mode: WandbMode
    """`auto` records online with a key and a reachable server, else offline."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team; null is the key's own."""
    group: str | None
    """W&B group; null is the sweep's name for the jobs of a sweep, else none."""
    tags: list[str]
    """W&B tags."""
    log_adapter: bool
    """Record the adapter as an artifact."""
    init_timeout_s: int
    """Longest wait for the server before recording offline."""

    def __post_init__(self) -> None:
        short = 1 <= self.init_timeout_s <= 15
        require(short, "tracking.wandb.init_timeout_s", self.init_timeout_s, "an integer in 1..15")


@dataclass
class TrackingConfig:
    wandb: WandbConfig
    """Weights & Biases."""
    tensorboard: bool
    """Write TensorBoard event files."""
