"""Settings of the groups `objective`, `optim` and `trainer`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from causal_lm_router.config.checks import AUTO, Settings, check, check_fraction, check_function, one_of

PRECISIONS = (AUTO, "32-true", "bf16-mixed", "bf16-true")


class ObjectiveKind(StrEnum):
    """What training makes likely."""

    completion = "completion"
    multi_positive = "multi_positive"
    soft = "soft"
    per_candidate = "per_candidate"
    expected_score = "expected_score"
    own = "own"


@dataclass
class ObjectiveConfig(Settings):
    """What training makes likely."""

    kind: ObjectiveKind
    """What training makes likely: the label (`completion`), any best candidate (`multi_positive`), candidates in the
    shares softmax(score / temperature) (`soft`), each by its own score (`per_candidate`), those that raise the expected
    score (`expected_score`), or what a function of your own says (`own`)."""
    temperature: float
    """tau of `soft`: the smaller, the more the best candidates count."""
    reference_offset: float
    """`per_candidate` reads the log-odds of a candidate's score from the log-likelihood of its target minus that of
    ending at once, minus this offset: the larger, the less likely a generation is to end without a name."""
    valid_weight: float
    """Weight, in `per_candidate` and `expected_score`, of the negative log-probability of naming any candidate at all:
    what keeps free generations in the pool."""
    undecided_weight: float
    """Weight of the training queries on which all candidates score the same; others have 1."""
    balance_targets: bool
    """Weigh the training queries so that those whose target calls each candidate count the same in sum, as the labels
    that RouteLLM balances do; by `target.kind=score_class` two groups: classes 1 to 3, and 4 and 5."""
    whole_row: bool
    """Of `completion`: count the loss over the prompt too, as LLMRouter does, not over the target alone."""
    end_token: bool
    """Of `completion`: teach that the end token follows the target; LLMRouter does not."""
    cut_rows: bool
    """Of `completion`: cut a training row that is longer than prompt.max_length at its right end, which holds the
    target, as LLMRouter does, instead of cutting the query."""
    function: str | None
    """Of `own`: the Python function, `package.module:function`, as the protocol `RowLoss` has it."""
    options: dict[str, Any]
    """Settings of your own, handed to the function."""

    def _own_problems(self) -> Iterator[str]:
        is_own = self.kind is ObjectiveKind.own
        yield from check_function("objective.function", self.function, needed=is_own)
        is_completion = self.kind is ObjectiveKind.completion
        for name, value, default in (
            ("whole_row", self.whole_row, False),
            ("end_token", self.end_token, True),
            ("cut_rows", self.cut_rows, False),
        ):
            allowed = f"{str(default).lower()} unless objective.kind is completion"
            yield from check(is_completion or value is default, f"objective.{name}", allowed, value)
        yield from check(self.temperature > 0, "objective.temperature", "a number above 0", self.temperature)
        for name in ("reference_offset", "valid_weight", "undecided_weight"):
            value = getattr(self, name)
            yield from check(value >= 0, f"objective.{name}", "a number of at least 0", value)


class Schedule(StrEnum):
    """Shape of the learning rate after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


@dataclass
class OptimConfig(Settings):
    """AdamW and its schedule."""

    learning_rate: float
    """Peak learning rate of AdamW."""
    weight_decay: float
    """Decoupled weight decay."""
    adam_betas: list[float]
    """AdamW's two decay rates."""
    warmup_ratio: float
    """Share of all optimizer steps over which the learning rate rises from 0."""
    schedule: Schedule
    """Shape after warm-up."""
    max_grad_norm: float | None
    """Gradient norm to clip to; null does not clip."""

    def _own_problems(self) -> Iterator[str]:
        yield from check(self.learning_rate > 0, "optim.learning_rate", "a number above 0", self.learning_rate)
        yield from check(self.weight_decay >= 0, "optim.weight_decay", "a number of at least 0", self.weight_decay)
        betas = self.adam_betas
        fits = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        yield from check(fits, "optim.adam_betas", "two numbers in 0..1, below 1", betas)
        yield from check_fraction("optim.warmup_ratio", self.warmup_ratio)
        clips = self.max_grad_norm is None or self.max_grad_norm > 0
        yield from check(clips, "optim.max_grad_norm", "a number above 0, or null", self.max_grad_norm)


@dataclass
class TrainerConfig(Settings):
    """Length and hardware of training."""

    num_epochs: int
    """Passes over the training queries."""
    batch_size: int
    """Queries per device and gradient accumulation."""
    accumulate_grad_batches: int
    """Batches per optimizer step; the loss is normalised over the whole step, so 1 x 8 equals 8 x 1."""
    max_tokens_per_batch: int
    """A batch is cut into micro-batches of at most this many tokens, as they are computed: bounds the memory. With
    padding, or where `base_model.attn_implementation` is `packed`, without it and the beginning of all prompts once."""
    precision: str
    """Lightning's precision: `32-true`, `bf16-mixed`, `bf16-true`, or `auto`, which the machine is fast at."""
    accelerator: str
    """Lightning's accelerator: `auto`, `cpu`, `gpu`, ..."""
    devices: str
    """Lightning's devices: a number, a list such as `0,1`, or `auto`."""
    strategy: str
    """Lightning's strategy: `auto`, `ddp`, `ddp_spawn`, ..."""
    reuse_frozen_layers: bool
    """With lora.num_layers, compute the hidden states of the frozen layers once for every training row and keep them in
    the cache: later epochs, seeds and objectives start from them."""
    num_threads: int | None
    """CPU threads of torch; null leaves torch's default. Fixed threads make CPU runs bitwise repeatable."""
    log_every_n_steps: int
    """Optimizer steps between logged training losses."""
    checkpoint_every_n_steps: int
    """Optimizer steps between resumable checkpoints; the last one is kept."""
    progress_bar: bool
    """Show a progress bar."""
    extra: dict[str, Any]
    """Any further argument of `pytorch_lightning.Trainer`."""

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("trainer", "num_epochs", "batch_size", "accumulate_grad_batches")
        yield from self.check_counts("trainer", "max_tokens_per_batch", "log_every_n_steps", "checkpoint_every_n_steps")
        yield from self.check_counts("trainer", "num_threads", or_null=True)
        yield from check(self.precision in PRECISIONS, "trainer.precision", one_of(PRECISIONS), self.precision)
