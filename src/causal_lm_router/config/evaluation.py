"""Settings of the group `evaluation`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import Settings


class Split(StrEnum):
    """A part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


@dataclass
class EvaluationConfig(Settings):
    """What is evaluated, and when."""

    split: Split
    """Split of the evaluations during training."""
    max_queries: int | None
    """Evaluate at most this many queries of a split during training, drawn with data.split_seed; null evaluates all.
    The `evaluate` command evaluates all unless it is given."""
    every_n_epochs: int | None
    """Epochs between evaluations during training; null evaluates none at epoch ends."""
    every_n_steps: int | None
    """Optimizer steps between evaluations during training; null evaluates none by step."""
    final_split: Split
    """Split evaluated whole after training, for the run's report, and by the `evaluate` command."""
    final_validation: bool
    """Evaluate the whole validation split after training too, where it holds queries: what sweeps choose by."""

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("evaluation", "max_queries", "every_n_epochs", "every_n_steps", or_null=True)
