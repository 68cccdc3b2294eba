"""Generation and likelihoods with vLLM, over an engine that several generators can share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, InferenceConfig, LoraConfig
from causal_lm_router.generation.generated_text import constrained_generation, generated_text
from causal_lm_router.generation.trie_walks import logprobs_by_node
from causal_lm_router.generation.vllm_engine import VllmEngine
from causal_lm_router.prompting.token_trie import TokenTrie
from causal_lm_router.routing import Generation

CPU_CACHE_BYTES = 1 << 30
MAX_LOGPROBS = 128  # token ids whose log-probabilities vLLM gives for one request
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

    def generate(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = ()) -> list[Generation]:
        """Return one generation per prompt, in order, as `Generator` says."""
        outputs = self._outputs(prompts, [self._sampling_params(index, stop_ids) for index in range(len(prompts))])
        return [self._generation(output, stop_ids) for output in outputs]

    def generate_constrained(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[Generation]:
        """Return one generation per prompt, in order, that is a sequence of the trie, as `Generator` says."""
        self._check_depth(trie)
        sampling = self._constrained_params(trie)
        return [
            constrained_generation(self._tokenizer, trie, output.token_ids, _logprobs(output))
            for output in self._outputs(prompts, [sampling] * len(prompts))
        ]

    def next_logprobs(
        self, prefixes: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return for every prefix the log-probabilities of its `token_ids` as the next token."""
        from vllm import SamplingParams

        room, longest = self._engine_args()["max_model_len"], max(map(len, prefixes), default=0)
        if longest >= room:
            raise ValueError(
                f"inference.max_new_tokens={self._inference.max_new_tokens}: {longest} tokens and the next one do not "
                f"fit into {room}, allowed is at least {self._inference.max_new_tokens + longest + 1 - room}"
            )
        parts = [
            (index, tokens[start : start + MAX_LOGPROBS])
            for index, tokens in enumerate(map(list, token_ids))
            for start in range(0, len(tokens), MAX_LOGPROBS)
        ]
        options = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        sampling = [SamplingParams(**options, logprob_token_ids=tokens) for _, tokens in parts]
        outputs = self._outputs([prefixes[index] for index, _ in parts], sampling, unit="prefixes")
        found: list[list[float]] = [[] for _ in prefixes]
        for (index, tokens), output in zip(parts, outputs, strict=True):
            found[index] += [output.logprobs[0][token].logprob for token in tokens]
        return [np.array(values, dtype=np.float64) for values in found]

    def sequence_logprobs(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> NDArray[np.float64]:
        """Return [number of prompts, number of sequences]: each sequence's log-probability after each prompt.

        The prompt is in the prefix cache after its first request. On a CPU one request a sequence has its tokens
        forced. The model runner for GPUs takes no such request: there one a trie node asks for its children, as it does
        where every sequence is a single token and one node tells of all.
        """
        self._check_depth(trie)
        if self._engine.on_gpu or max(map(len, trie.sequences)) == 1:
            return logprobs_by_node(self.next_logprobs, prompts, trie)
        from causal_lm_router.generation.vllm_forced_tokens import forcing_params

        sequences = trie.sequences * len(prompts)
        repeated = [prompt for prompt in prompts for _ in trie.sequences]
        forced = [forcing_params(ids) for ids in trie.sequences] * len(prompts)
        outputs = self._outputs(repeated, forced, per_unit=len(trie.sequences))
        if [tuple(output.token_ids) for output in outputs] != list(sequences):
            raise ValueError(
                "inference.engine_args: logits_processors or another argument keeps tokens from being forced"
            )
        logprobs = [output.cumulative_logprob for output in outputs]
        return np.array(logprobs, dtype=np.float64).reshape(len(prompts), len(trie.sequences))

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
            "worker_extension_cls": "causal_lm_router.generation.vllm_tied_head.TiedHead",
            # The other backends know no grammar over tokens, or (xgrammar 0.2.8) confuse several of like shape.
            "structured_outputs_config": {"backend": "guidance"},
        }
        if self._engine.on_gpu:
            arguments["enable_sleep_mode"] = True
            ranks = [rank for rank in LORA_RANKS if rank >= self._lora.lora_r]
            if self._lora.use_lora and not self._lora.use_dora and ranks:
                arguments |= {"enable_lora": True, "max_lora_rank": ranks[0]}
        else:
            # A block of 32 tokens lets the prompt's fixed part be cached; the default of 128 is longer than most.
            arguments |= {"block_size": 32, "kv_cache_memory_bytes": CPU_CACHE_BYTES, "enforce_eager": True}
            arguments["logits_processors"] = ["causal_lm_router.generation.vllm_forced_tokens:ForcedTokens"]
        return arguments | self._inference.engine_args

    def _outputs(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Any], unit: str = "queries", per_unit: int = 1
    ) -> list[Any]:
        self._engine.start(self._engine_args())
        if not self._engine.is_held_by(self):
            self.load_weights(self._weights_dir)
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return [output.outputs[0] for output in self._engine.generate(requests, sampling, unit, per_unit)]

    def _check_depth(self, trie: TokenTrie) -> None:
        longest, room = max(map(len, trie.sequences)), self._inference.max_new_tokens
        if longest > room:
            raise ValueError(
                f"inference.max_new_tokens={room}: the longest target takes {longest}, allowed is at least {longest}"
            )

    def _sampling_params(self, index: int, stop_ids: Sequence[int]) -> Any:
        from vllm import SamplingParams

        arguments: dict[str, Any] = {
            "temperature": self._inference.temperature,
            "top_p": self._inference.top_p,
            "seed": self._inference.seed + index,
            "max_tokens": self._inference.max_new_tokens,
            # Only the end token that was trained ends a generation; a base model's own list may hold others.
            "ignore_eos": True,
            "stop_token_ids": [self._tokenizer.eos_token_id, *stop_ids],
            "logprobs": 0,
            "detokenize": False,
        }
        try:
            return SamplingParams(**(arguments | self._inference.sampling_args))
        except (TypeError, ValueError) as error:
            raise ValueError(f"inference.sampling_args: {error}") from error

    def _constrained_params(self, trie: TokenTrie) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        longest, eos = max(map(len, trie.sequences)), self._tokenizer.eos_token_id
        return SamplingParams(
            temperature=0.0,
            max_tokens=longest,
            ignore_eos=True,
            stop_token_ids=[eos],
            structured_outputs=StructuredOutputsParams(grammar=_grammar(trie, eos)),
            logprobs=0,
            detokenize=False,
        )

    def _generation(self, output: Any, stop_ids: Sequence[int]) -> Generation:
        text = generated_text(self._tokenizer, output.token_ids, stop_ids)
        return Generation(text, output.finish_reason, len(output.token_ids), output.cumulative_logprob)


def _grammar(trie: TokenTrie, eos: int) -> str:
    """Return the trie as a grammar over tokens instead of text, so that a name has one way to be spelled.

    The end token stays out: the grammar's end allows it, and nothing else.
    """
    alternatives = [[f"<[{token}]>" for token in sequence if token != eos] for sequence in trie.sequences]
    return "start: " + " | ".join(map(" ".join, alternatives))


def _logprobs(output: Any) -> list[float]:
    return [step[token].logprob for token, step in zip(output.token_ids, output.logprobs, strict=True)]
