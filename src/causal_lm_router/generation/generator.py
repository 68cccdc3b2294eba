"""The protocol of text generation and likelihoods; each backend implements it in a file of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import Backend, BaseModelConfig, InferenceConfig, LoraConfig, generating_model
from causal_lm_router.prompting.token_trie import TokenTrie
from causal_lm_router.routing import Generation

if TYPE_CHECKING:
    from causal_lm_router.generation.vllm_engine import VllmEngine


class Generator(Protocol):
    """A base model that generates with the weights that were loaded last.

    Prompts and prefixes are token ids, results are in their order, log-probabilities are in nats over the whole
    vocabulary at temperature 1.
    """

    def load_weights(self, weights_dir: Path | None) -> None:
        """Use the trained weights in a folder (PEFT adapter or full checkpoint); None is the bare base model."""

    def generate(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = ()) -> list[Generation]:
        """Return one generation per prompt, sampled as configured.

        It ends with the end token, which is not part of its text, or with one of `stop_ids`, which is part of it. Other
        special tokens are left out of the text.
        """

    def generate_constrained(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[Generation]:
        """Return one generation per prompt, a sequence of the trie: at each step the likeliest allowed token.

        It is always greedy and ignores the configured sampling settings. Its `logprob` is the one under the constraint:
        of each token among those that are allowed in its place.
        """

    def next_logprobs(
        self, prefixes: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return for every prefix the log-probabilities of its `token_ids` as the next token."""

    def sequence_logprobs(
        self, prompts: Sequence[Sequence[int]], trie: TokenTrie, num_alike: int = 1
    ) -> NDArray[np.float64]:
        """Return [number of prompts, number of sequences]: each sequence's log-probability after each prompt.

        The log-probability of a sequence is the sum over its tokens. Shared beginnings are computed once if the backend
        can do so; every `num_alike` prompts begin alike.
        """

    def sleep(self) -> None:
        """Free device memory until the next call, as far as the backend can."""

    def close(self) -> None:
        """Release all resources; the generator cannot be used again."""


def open_generator(
    inference: InferenceConfig,
    base_model: BaseModelConfig,
    lora: LoraConfig,
    name_or_path: str,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    engine: Optional["VllmEngine"] = None,
) -> Generator:
    """Return the configured backend over the base model at `name_or_path` (a prepared folder or a hub name).

    vLLM uses the given engine, which outlives the generator; without one the generator starts its own.
    """
    # Backends are imported here: vLLM takes 10 seconds, and may not be installed.
    base_model = generating_model(base_model, inference)
    match inference.backend:
        case Backend.vllm:
            from causal_lm_router.generation.vllm import VllmGenerator

            return VllmGenerator(inference, base_model, lora, name_or_path, tokenizer, max_prompt_tokens, engine)
        case Backend.transformers:
            from causal_lm_router.generation.transformers import TransformersGenerator

            return TransformersGenerator(inference, base_model, name_or_path, tokenizer)
