"""What each command runs with: the groups together."""

from dataclasses import dataclass

from causal_lm_router.config.baselines import BaselineConfig
from causal_lm_router.config.checks import require
from causal_lm_router.config.data import DataConfig
from causal_lm_router.config.evaluation import EvaluationConfig
from causal_lm_router.config.generation import DecodingConfig, InferenceConfig, ParsingConfig
from causal_lm_router.config.models import BaseModelConfig, LoraConfig
from causal_lm_router.config.prompting import PromptConfig, TargetConfig
from causal_lm_router.config.sweeps import SweepConfig
from causal_lm_router.config.tracking import TrackingConfig
from causal_lm_router.config.training import ObjectiveConfig, OptimConfig, TrainerConfig


@dataclass
class TrainConfig:
    name: str
    """Name of the experiment: the run folder's parent and the W&B run's name."""
    seed: int
    """Seed of initialisation, data order and dropout."""
    run_dir: str
    """The run folder."""
    base_model: BaseModelConfig
    """The LM being finetuned."""
    lora: LoraConfig
    """The adapter, or none."""
    data: DataConfig
    """What to route: source, split, labels."""
    prompt: PromptConfig
    """Query to prompt text, candidate to target text."""
    target: TargetConfig
    """What stands for a candidate."""
    objective: ObjectiveConfig
    """What training makes likely."""
    optim: OptimConfig
    """AdamW and its schedule."""
    trainer: TrainerConfig
    """Length and hardware of training."""
    inference: InferenceConfig
    """How text is generated."""
    decoding: DecodingConfig
    """How a route is read out of the base model."""
    parsing: ParsingConfig
    """Generated text to candidate."""
    evaluation: EvaluationConfig
    """What is evaluated, and when."""
    tracking: TrackingConfig
    """Where figures are recorded."""
    sweep: SweepConfig
    """What `--multirun` does with its jobs."""

    def __post_init__(self) -> None:
        safe = bool(self.name.strip(".")) and "/" not in self.name
        require(safe, "name", self.name, "a name without /, and not of dots alone")
        has_frozen = not self.trainer.reuse_frozen_layers or (self.lora.use_lora and self.lora.num_layers is not None)
        require(has_frozen, "trainer.reuse_frozen_layers", True, "false unless lora.num_layers leaves layers frozen")
        require(0 <= self.seed < 2**31, "seed", self.seed, "an integer in 0..2147483647")


@dataclass
class BaselineRunConfig(TrainConfig):
    """What the `baseline` command runs with: the settings of a router it compares with, and the baseline."""

    baseline: BaselineConfig
    """The baseline, under the same data, split and evaluation."""


@dataclass
class EvaluateConfig(TrainConfig):
    """A run's own config, with what the `evaluate` command adds."""

    output_dir: str
    """Folder of the report, outcomes and figures."""


@dataclass
class RouteConfig(TrainConfig):
    """A run's own config, with what the `route` command adds."""

    query: str | None
    """One query to route."""
    input: str | None
    """File of queries: .jsonl with a `query` key, else a query a line; - is standard input, a query a line."""
    output: str | None
    """JSONL file for the routes; null prints them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = (self.query is None) != (self.input is None)
        require(one, "query, input", (self.query, self.input), "exactly one of query=... and input=...")


@dataclass
class PrepareConfig:
    """What the `prepare` command needs."""

    base_model: BaseModelConfig
    """The LM being finetuned."""
