"""Generation with vLLM: sampling settings, prompts in, texts out, over an engine that several generators can share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, InferenceConfig, LoraConfig
from causal_lm_router.generators.vllm_engine import VllmEngine
from causal_lm_router.routing import Generation

CPU_CACHE_BYTES = 1 << 30
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those vLLM lays memory out for


class VllmGenerator:
    """The vLLM backend. The engine starts at the first use; starting takes seconds to a minute.

    Without `engine` the generator has one of its own; a given one goes on running when the generator is closed.
    """

    def __init__(
        self,
        inference: InferenceConfig,
        base_model: BaseModelConfig,
        lora: LoraConfig,
        name_or_path: str,
        tokenizer: PreTrainedTokenizerBase,
        max_prompt_tokens: int,
        engine: VllmEngine | None = None,
    ) -> None:
        self._inference = inference
        self._lora = lora
        self._base_model = base_model
        self._name_or_path = name_or_path
        self._tokenizer = tokenizer
        self._max_model_len = max_prompt_tokens + inference.max_new_tokens
        self._owns_engine = engine is None
        self._engine = engine or VllmEngine()
        self._weights_dir: Path | None = None

    def load_weights(self, weights_dir: Path | None) -> None:
        """Use the trained weights in a folder; None is the bare base model."""
        self._weights_dir = weights_dir
        self._engine.start(self._engine_args())
        self._engine.load_weights(self, self._name_or_path, self._base_model, weights_dir)

    def generate(self, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        """Return one generation per prompt (token ids), in order."""
        self._engine.start(self._engine_args())
        if not self._engine.is_held_by(self):
            self.load_weights(self._weights_dir)
        sampling = [self._sampling_params(index) for index in range(len(prompts))]
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return [self._generation(output.outputs[0]) for output in self._engine.generate(requests, sampling)]

    def sleep(self) -> None:
        """On a GPU, move the weights to the host and drop the cache until the next use; on a CPU do nothing."""
        self._engine.sleep()

    def close(self) -> None:
        """End the engine, unless it was given."""
        if self._owns_engine:
            self._engine.close()

    def _engine_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._name_or_path,
            "revision": self._base_model.revision,
            "trust_remote_code": self._base_model.trust_remote_code,
            "dtype": self._base_model.dtype,
            "tensor_parallel_size": self._inference.tensor_parallel_size,
            "max_model_len": self._max_model_len,
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
        }
        if self._engine.on_gpu:
            arguments["enable_sleep_mode"] = True
            ranks = [rank for rank in LORA_RANKS if rank >= self._lora.lora_r]
            if self._lora.use_lora and not self._lora.use_dora and ranks:
                arguments |= {"enable_lora": True, "max_lora_rank": ranks[0]}
        else:
            # A block of 32 tokens lets the prompt's fixed part be cached; the default of 128 is longer than most.
            arguments |= {"block_size": 32, "kv_cache_memory_bytes": CPU_CACHE_BYTES, "enforce_eager": True}
        return arguments | self._inference.engine_args

    def _sampling_params(self, index: int) -> Any:
        from vllm import SamplingParams

        arguments: dict[str, Any] = {
            "temperature": self._inference.temperature,
            "top_p": self._inference.top_p,
            "seed": self._inference.seed + index,
            "max_tokens": self._inference.max_new_tokens,
            # Only the end token that was trained ends a generation; a base model's own list may hold others.
            "ignore_eos": True,
            "stop_token_ids": [self._tokenizer.eos_token_id],
            "logprobs": 0,
            "detokenize": False,
        }
        try:
            return SamplingParams(**(arguments | self._inference.sampling_args))
        except (TypeError, ValueError) as error:
            raise ValueError(f"inference.sampling_args: {error}") from error

    def _generation(self, output: Any) -> Generation:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = self._tokenizer.decode(output.token_ids, **options)
        return Generation(str(text), output.finish_reason, len(output.token_ids), output.cumulative_logprob)
