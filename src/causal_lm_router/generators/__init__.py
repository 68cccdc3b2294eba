"""Text generation behind one protocol, one file per backend."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol

from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import Backend, BaseModelConfig, InferenceConfig, LoraConfig, generating_model
from causal_lm_router.routing import Generation

if TYPE_CHECKING:
    from causal_lm_router.generators.vllm_engine import VllmEngine


class Generator(Protocol):
    """A base model that generates with the weights loaded last."""

    def load_weights(self, weights_dir: Path | None) -> None:
        """Use the trained weights in a folder (PEFT adapter or full checkpoint); None is the bare base model."""

    def generate(self, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        """Return one generation per prompt (token ids), in order."""

    def sleep(self) -> None:
        """Give device memory back until the next call, as far as the backend can."""

    def close(self) -> None:
        """Release everything; the generator cannot be used again."""


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

    vLLM uses the given engine, which outlives the generator; without one the generator has its own.
    """
    base_model = generating_model(base_model, inference)
    match inference.backend:
        case Backend.vllm:
            from causal_lm_router.generators.vllm import VllmGenerator

            return VllmGenerator(inference, base_model, lora, name_or_path, tokenizer, max_prompt_tokens, engine)
        case Backend.transformers:
            from causal_lm_router.generators.transformers import TransformersGenerator

            return TransformersGenerator(inference, base_model, name_or_path, tokenizer)
