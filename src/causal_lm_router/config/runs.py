"""What each command runs with: the groups together."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.baselines import PROMPTED, BaselineConfig
from causal_lm_router.config.checks import AT_LEAST_1, Settings, check, check_file_name
from causal_lm_router.config.data import DataConfig
from causal_lm_router.config.evaluation import EvaluationConfig
from causal_lm_router.config.generation import (
    DecodingConfig,
    DecodingMethod,
    InferenceConfig,
    Normalisation,
    ParsingConfig,
)
from causal_lm_router.config.models import BaseModelConfig, LoraConfig
from causal_lm_router.config.prompting import PromptConfig, TargetConfig, TargetKind
from causal_lm_router.config.sweeps import SweepConfig
from causal_lm_router.config.tracking import TrackingConfig
from causal_lm_router.config.training import ObjectiveConfig, ObjectiveKind, OptimConfig, TrainerConfig


@dataclass
class TrainConfig(Settings):
    """What training a router runs with."""

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
    """Who records the run."""
    sweep: SweepConfig
    """What `--multirun` does with its jobs."""

    def _own_problems(self) -> Iterator[str]:
        yield from check_file_name("name", self.name)  # the run folder's parent
        # NumPy, torch and vLLM all take seeds of 31 bits.
        yield from check(0 <= self.seed < 2**31, "seed", "an integer in 0..2147483647", self.seed)
        # Checks above are about one key; these are about several that must fit together.
        yield from self._objective_problems()

    def _objective_problems(self) -> Iterator[str]:
        """Yield what does not go together with the objective."""
        kind, target = self.objective.kind, self.target.kind
        is_completion = kind is ObjectiveKind.completion
        # A class says how good one candidate is: other objectives need a target for each candidate.
        fits = is_completion or target is not TargetKind.score_class
        yield from check(fits, "objective.kind", "completion where target.kind is score_class", kind)
        if target is TargetKind.outcome:
            yield from self._outcome_problems()
        # A new token ends the generation by itself.
        fits = self.objective.end_token or target in (TargetKind.name, TargetKind.short_id)
        yield from check(fits, "objective.end_token", f"true where target.kind is {target}", self.objective.end_token)
        # The scores were trained on sums of log-probabilities.
        normalisation = self.decoding.normalisation
        fits = kind is not ObjectiveKind.per_candidate or normalisation is Normalisation.sum
        yield from check(fits, "decoding.normalisation", "sum after objective.kind=per_candidate", normalisation)
        # Frozen layers can only be run once for all epochs where some layers are frozen and rows never change.
        if self.trainer.reuse_frozen_layers:
            has_frozen = self.lora.use_lora and self.lora.num_layers is not None
            yield from check(has_frozen, "trainer.reuse_frozen_layers", "false unless lora.num_layers is set", True)
            # Targets of several tokens share a row with a mask of their own, which the kept states do not have.
            fits = is_completion or target in (TargetKind.token, TargetKind.score_class)
            needed = "false unless target.kind is token or objective.kind is completion"
            yield from check(fits, "trainer.reuse_frozen_layers", needed, True)

    def _outcome_problems(self) -> Iterator[str]:
        """Yield what does not go together with a yes or no for each candidate."""
        of_outcome = "where target.kind is outcome"
        kind, decoding = self.objective.kind, self.decoding
        yield from check(kind is ObjectiveKind.soft, "objective.kind", f"soft {of_outcome}", kind)
        # A query teaches both targets, each with some candidate.
        balances = self.objective.balance_targets
        yield from check(not balances, "objective.balance_targets", f"false {of_outcome}", balances)
        # Its names would tell the candidates apart, and a new candidate has none that training knows.
        template = self.prompt.template
        nameless = "{candidates}" not in template
        yield from check(nameless, "prompt.template", f"a text without {{candidates}} {of_outcome}", template)
        fits = DecodingMethod.own not in (decoding.method, *decoding.also)
        yield from check(fits, "decoding.method", f"another than own {of_outcome}", decoding.method)
        # Two short answers to one question: there is nothing to make comparable.
        fits = decoding.normalisation is Normalisation.sum
        yield from check(fits, "decoding.normalisation", f"sum {of_outcome}", decoding.normalisation)


@dataclass
class BaselineRunConfig(TrainConfig):
    """What the `baseline` command runs with: the settings of a router it compares with, and the baseline."""

    baseline: BaselineConfig
    """The baseline, under the same data, split and evaluation."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        method, kind = self.baseline.method, self.target.kind
        # No base model knows new tokens before it is trained.
        fits = method not in PROMPTED or kind in (TargetKind.name, TargetKind.short_id)
        yield from check(fits, "target.kind", f"name or short_id for baseline.method={method.value}", kind)


@dataclass
class EvaluateConfig(TrainConfig):
    """A run's own config, with what the `evaluate` command adds."""

    output_dir: str
    """Folder of the report, outcomes and drawings."""
    latency_calls: int | None
    """Calls whose latency is measured too, for each of 1, 8 and 32 queries a call and 1 and 4 threads; null measures
    none. The report has the 95th percentile from 20 calls, and the 99th from 100."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        fits = self.latency_calls is None or self.latency_calls >= 1
        yield from check(fits, "latency_calls", f"{AT_LEAST_1}, or null", self.latency_calls)


@dataclass
class RouteConfig(TrainConfig):
    """A run's own config, with what the `route` command adds."""

    query: str | None
    """One query to route."""
    input: str | None
    """File of queries: .jsonl, .csv or .parquet with the text under `query`, else a query a line; - is standard input,
    a query a line. Without `query` and `input` the terminal asks for one query after the other."""
    output: str | None
    """File for the routes: .csv, .parquet, else JSONL; null prints them as JSONL."""
    chunk_size: int
    """Queries of `input` that are read, routed and written at a time: memory holds as many, a kill loses as many."""
    num_actors: int | None
    """Routers that route `input` side by side, on a Ray cluster; null routes in this process."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        # Both would leave open which one is meant. Without either, queries are typed one after the other.
        given = {"query": self.query, "input": self.input}
        one = self.query is None or self.input is None
        yield from check(one, "query, input", "given one at a time: query=... or input=...", given)
        # Routes of queries that are typed are printed as they come.
        writes = self.output is None or any(given.values())
        yield from check(writes, "output", "null unless query=... or input=... is given", self.output)
        yield from check(self.chunk_size >= 1, "chunk_size", AT_LEAST_1, self.chunk_size)
        fits = self.num_actors is None or (self.num_actors >= 1 and self.input is not None)
        yield from check(fits, "num_actors", "null, or at least 1 beside input=...", self.num_actors)


class PushedWeights(StrEnum):
    """What the `push` command uploads."""

    adapter = "adapter"
    merged = "merged"


@dataclass
class PushConfig(TrainConfig):
    """A run's own config, with what the `push` command adds."""

    repo: str
    """Repository on the hub: owner/name. It is made where it does not exist."""
    what: PushedWeights
    """`adapter` (the run's trained weights) or `merged` (the merged checkpoint)."""
    private: bool
    """Make a new repository private."""
    dry_run: bool
    """List what would be uploaded, and upload nothing."""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used, the repository's name last."""
        yield from super().problems()
        # The hub allows letters, digits, and the characters _ . - in both parts.
        fits = re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo) is not None
        yield from check(fits, "repo", "a repository of the hub as owner/name", self.repo)


@dataclass
class PrepareConfig(Settings):
    """What the `prepare` command needs."""

    base_model: BaseModelConfig
    """The LM being finetuned."""
