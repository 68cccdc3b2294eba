"""Settings of the groups `inference`, `decoding` and `parsing`: how a route is generated and read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from causal_lm_router.config.checks import AUTO, DTYPES, Settings, check, check_function, one_of
from causal_lm_router.config.models import BaseModelConfig


class DecodingMethod(StrEnum):
    """How a route is read out of the base model."""

    free = "free"
    constrained = "constrained"
    scored = "scored"
    trie = "trie"
    own = "own"


class ParseMode(StrEnum):
    """How generated text becomes a route."""

    strict = "strict"
    lenient = "lenient"
    fuzzy = "fuzzy"
    llmrouter = "llmrouter"


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
class DecodingConfig(Settings):
    """How a route is read out of the base model."""

    method: DecodingMethod
    """How the route is read: the text that is generated (`free`), the same under the constraint of the targets
    (`constrained`), the most likely whole target (`scored`), or a greedy walk over the targets' token trie (`trie`),
    or what a function of your own reads (`own`)."""
    also: list[DecodingMethod]
    """Further methods to evaluate at the end, each in a folder of its own; `free` always is."""
    normalisation: Normalisation
    """Of `scored`: `sum` of the tokens' log-probabilities, their `mean`, or the sum minus that after an empty query
    (`prior`)."""
    cost_weight: float
    """Of `scored`: route by predicted - cost_weight * mean cost (USD) of the candidate on train."""
    function: str | None
    """Of `own`: the Python function, `package.module:function`, as the protocol `Decode` has it."""
    options: dict[str, Any]
    """Settings of your own, handed to the function."""

    def _own_problems(self) -> Iterator[str]:
        is_own = DecodingMethod.own in (self.method, *self.also)
        yield from check_function("decoding.function", self.function, needed=is_own)
        yield from check(self.cost_weight >= 0, "decoding.cost_weight", "a number of at least 0", self.cost_weight)
        scores = DecodingMethod.scored in (self.method, *self.also)
        fits = scores or self.normalisation is Normalisation.sum
        whose = "sum unless decoding.method is scored"
        yield from check(fits, "decoding.normalisation", whose, self.normalisation)
        weighs = self.cost_weight <= 0 or scores
        yield from check(weighs, "decoding.cost_weight", "0 unless decoding.method is scored", self.cost_weight)


@dataclass
class InferenceConfig(Settings):
    """How text is generated."""

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
    """Dtype of the weights while generating, and of the merged checkpoint: `float32`, `bfloat16`, `float16`, or `auto`,
    which the machine is fast at; null takes `base_model.dtype`."""
    batch_size: int
    """Queries per batch of the transformers backend, and of vLLM's `scored` on a CPU; else vLLM schedules by itself."""
    engine_args: dict[str, Any]
    """Any further argument of `vllm.LLM`."""
    sampling_args: dict[str, Any]
    """Any further argument of `vllm.SamplingParams`, or of `generate` under transformers."""

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("inference", "tensor_parallel_size", "max_new_tokens", "batch_size")
        dtypes = (AUTO, *DTYPES)
        known = self.dtype is None or self.dtype in dtypes
        yield from check(known, "inference.dtype", one_of((*dtypes, "null")), self.dtype)
        yield from check(self.temperature >= 0, "inference.temperature", "a number of at least 0", self.temperature)
        yield from check(0 < self.top_p <= 1, "inference.top_p", "a number in 0..1, above 0", self.top_p)
        # Whether code runs that comes with the weights is decided in one place.
        for name in ("engine_args", "sampling_args"):
            value = getattr(self, name).get("trust_remote_code")
            what = "left out: base_model.trust_remote_code decides"
            yield from check(value is None, f"inference.{name}.trust_remote_code", what, value)


def generating_model(base_model: BaseModelConfig, inference: InferenceConfig) -> BaseModelConfig:
    """Return the base model's config with the dtype it generates in."""
    return replace(base_model, dtype=inference.dtype or base_model.dtype)


@dataclass
class ParsingConfig(Settings):
    """How generated text becomes a route."""

    mode: ParseMode
    """`strict`: the whole generation is a name; `lenient`: it starts with one; `fuzzy`: the nearest name; `llmrouter`:
    LLMRouter's own guess, which never fails."""
    fuzzy_threshold: float
    """Least similarity (rapidfuzz ratio, 0..100) of a fuzzy match."""
    fallback_candidate: str | None
    """Candidate to call after a parse failure; the failure still counts as wrong. null calls none."""

    def _own_problems(self) -> Iterator[str]:
        threshold = self.fuzzy_threshold
        yield from check(0 <= threshold <= 100, "parsing.fuzzy_threshold", "a number in 0..100", threshold)
