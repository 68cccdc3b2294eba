"""Settings of the groups `inference`, `decoding` and `parsing`: how routes come about."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from causal_lm_router.config.checks import DTYPES, require
from causal_lm_router.config.models import BaseModelConfig


class DecodingMethod(StrEnum):
    """How a route is read out of the base model."""

    free = "free"
    constrained = "constrained"
    scored = "scored"
    trie = "trie"


class ParseMode(StrEnum):
    """How generated text becomes a route."""

    strict = "strict"
    lenient = "lenient"
    fuzzy = "fuzzy"


class Normalisation(StrEnum):
    """What is done to the log-likelihoods of targets before they are compared."""

    sum = "sum"
    mean = "mean"
    prior = "prior"


class Backend(StrEnum):
    """The library that generates."""

    vllm = "vllm"
    transformers = "transformers"


@dataclass
class DecodingConfig:
    method: DecodingMethod
    """How the route is read: the text that is generated (`free`), the same under the constraint of the targets
    (`constrained`), the most likely whole target (`scored`), or a greedy walk over the targets' token trie (`trie`)."""
    also: list[DecodingMethod]
    """Further methods to evaluate at the end, each in a folder of its own; `free` always is."""
    normalisation: Normalisation
    """Of `scored`: `sum` of the tokens' log-probabilities, their `mean`, or the sum minus that after an empty query
    (`prior`)."""
    cost_weight: float
    """Of `scored`: route by predicted - cost_weight * mean cost (USD) of the candidate on train."""

    def __post_init__(self) -> None:
        require(self.cost_weight >= 0, "decoding.cost_weight", self.cost_weight, "a number of at least 0")
        weighs = self.cost_weight == 0 or DecodingMethod.scored in (self.method, *self.also)
        require(weighs, "decoding.cost_weight", self.cost_weight, "0, but for decoding.method=scored")


@dataclass
class InferenceConfig:
    backend: Backend
    """`vllm` or `transformers`."""
    tensor_parallel_size: int
    """GPUs vLLM splits the base model over."""
    max_new_tokens: int
    """Longest generation, in tokens."""
    temperature: float
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float
    """Nucleus sampling: the share of probability sampled from."""
    seed: int
    """Seed of sampling."""
    dtype: str | None
    """Dtype of the weights while generating, and of the merged checkpoint; null takes `base_model.dtype`."""
    batch_size: int
    """Queries per batch of the transformers backend; vLLM schedules by itself."""
    engine_args: dict[str, Any]
    """Any further argument of `vllm.LLM`."""
    sampling_args: dict[str, Any]
    """Any further argument of `vllm.SamplingParams`, or of `generate` under transformers."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel_size", "max_new_tokens", "batch_size"):
            require(getattr(self, name) >= 1, f"inference.{name}", getattr(self, name), "an integer of at least 1")
        known = self.dtype is None or self.dtype in DTYPES
        require(known, "inference.dtype", self.dtype, f"null | {' | '.join(DTYPES)}")
        require(self.temperature >= 0, "inference.temperature", self.temperature, "a number of at least 0")
        require(0 < self.top_p <= 1, "inference.top_p", self.top_p, "a number in 0..1, above 0")


def generating_model(base_model: BaseModelConfig, inference: InferenceConfig) -> BaseModelConfig:
    """Return the base model's config with the dtype it generates in."""
    return replace(base_model, dtype=inference.dtype or base_model.dtype)


@dataclass
class ParsingConfig:
    mode: ParseMode
    """`strict`: the whole generation is a name; `lenient`: it starts with one; `fuzzy`: the nearest name."""
    fuzzy_threshold: float
    """Least similarity (rapidfuzz ratio, 0..100) of a fuzzy match."""
    fallback_candidate: str | None
    """Candidate to call after a parse failure; the failure still counts as wrong. null calls none."""

    def __post_init__(self) -> None:
        in_range = 0 <= self.fuzzy_threshold <= 100
        require(in_range, "parsing.fuzzy_threshold", self.fuzzy_threshold, "a number in 0..100")
