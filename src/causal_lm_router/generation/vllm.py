"""Generation and likelihoods with vLLM, over an engine that several generators can share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, InferenceConfig, LoraConfig
from causal_lm_router.generation.batches import run_batches
from causal_lm_router.generation.generated_text import decode_generated, make_constrained_generation
from causal_lm_router.generation.trie_walks import logprobs_by_node
from causal_lm_router.generation.vllm_engine import VllmEngine
from causal_lm_router.prompting.token_trie import TokenTrie, cut_when_decided
from causal_lm_router.routing import Generation

CPU_CACHE_BYTES = 1 << 30
"""Size of the KV cache on a CPU. By default vLLM wants almost all memory, and does not start beside a trainer."""
MAX_LOGPROBS = 128
"""Token ids whose log-probabilities vLLM returns for one request, at most."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM can lay out memory."""


class VllmGenerator:
    """The vLLM backend. The engine starts at the first use, which takes seconds to a minute.

    Without `engine` the generator has its own; a given one keeps running when the generator is closed.
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
        return [self._finish_generation(output, stop_ids) for output in outputs]

    def generate_constrained(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[Generation]:
        """Return one generation per prompt, in order, that is a sequence of the trie, as `Generator` says."""
        # Generation ends with the token that leaves one sequence.
        decided = cut_when_decided(trie)
        self._check_depth(decided)
        sampling = self._constrained_params(decided)
        return [
            make_constrained_generation(self._tokenizer, trie, decided, output.token_ids, _list_logprobs(output))
            for output in self._outputs(prompts, [sampling] * len(prompts))
        ]

    def next_logprobs(
        self, prefixes: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return for every prefix the log-probabilities of its `token_ids` as the next token.

        Raises:
            ValueError: a prefix and the next token do not fit into the engine.
        """
        from vllm import SamplingParams

        room, longest = self._engine_args()["max_model_len"], max(map(len, prefixes), default=0)
        if longest >= room:
            raise ValueError(
                f"inference.max_new_tokens must be at least {self._inference.max_new_tokens + longest + 1 - room}, got "
                f"{self._inference.max_new_tokens}: {longest} tokens and the next one do not fit into {room}"
            )
        # vLLM gives `MAX_LOGPROBS` token ids per request, so a longer list becomes several requests of the same prefix.
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

    def sequence_logprobs(
        self, prompts: Sequence[Sequence[int]], trie: TokenTrie, num_alike: int = 1
    ) -> NDArray[np.float64]:
        """Return [number of prompts, number of sequences]: each sequence's log-probability after each prompt.

        On a CPU that is one pass over a batch of prompts with all their sequences. On a GPU, and for models whose
        attention is of another kind, each trie node is one request, for the log-probabilities of its children; so it is
        where every sequence is a single token, since then one node has them all.
        """
        self._hold_weights()
        if max(map(len, trie.sequences)) == 1 or not self._engine.can_pack():
            return logprobs_by_node(self.next_logprobs, prompts, trie)

        def answers(batch: list[int]) -> list[list[float]]:
            return self._engine.target_logprobs([prompts[index] for index in batch], trie.sequences)

        found = run_batches(prompts, self._inference.batch_size, answers, num_alike=num_alike)
        return np.array(found, dtype=np.float64).reshape(len(prompts), len(trie.sequences))

    def sleep(self) -> None:
        """On a GPU, move the weights to the host and drop the cache until the next use; do nothing on a CPU."""
        self._engine.sleep()

    def close(self) -> None:
        """Shut the engine down, unless it was given."""
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
            "load_format": "safetensors",  # older formats are pickles
            "worker_extension_cls": "causal_lm_router.generation.vllm_worker.WorkerMethods",
            # The other backends have no grammar over tokens, or (xgrammar 0.2.8) confuse grammars of similar shape.
            "structured_outputs_config": {"backend": "guidance"},
        }
        if self._engine.on_gpu:
            # Sleep gives the memory back to the trainer between evaluations.
            arguments["enable_sleep_mode"] = True
            # The smallest rank that is enough, since vLLM reserves memory for it. DoRA is merged instead.
            ranks = [rank for rank in LORA_RANKS if rank >= self._lora.lora_r]
            if self._lora.use_lora and not self._lora.use_dora and ranks:
                arguments |= {"enable_lora": True, "max_lora_rank": ranks[0]}
        else:
            # Only whole blocks are cached: the fixed part of most prompts is shorter than the default of 128 tokens.
            # Eager, since compiling needs a C++ compiler.
            arguments |= {"block_size": 32, "kv_cache_memory_bytes": CPU_CACHE_BYTES, "enforce_eager": True}
        # The user's own arguments win.
        return arguments | self._inference.engine_args

    def _hold_weights(self) -> None:
        self._engine.start(self._engine_args())
        if not self._engine.is_held_by(self):
            self.load_weights(self._weights_dir)

    def _outputs(self, prompts: Sequence[Sequence[int]], sampling: Sequence[Any], unit: str = "queries") -> list[Any]:
        self._hold_weights()
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return [output.outputs[0] for output in self._engine.generate(requests, sampling, unit)]

    def _check_depth(self, trie: TokenTrie) -> None:
        longest, room = max(map(len, trie.sequences)), self._inference.max_new_tokens
        if longest > room:
            raise ValueError(
                f"inference.max_new_tokens must be at least {longest}, the tokens of the longest target, got {room}"
            )

    def _sampling_params(self, index: int, stop_ids: Sequence[int]) -> Any:
        from vllm import SamplingParams

        arguments: dict[str, Any] = {
            "temperature": self._inference.temperature,
            "top_p": self._inference.top_p,
            # A seed per prompt: equal prompts get different samples, and the number of prompts changes none.
            "seed": self._inference.seed + index,
            "max_tokens": self._inference.max_new_tokens,
            # Only the end token that was trained ends a generation; a base model's own list may have others.
            "ignore_eos": True,
            "stop_token_ids": [self._tokenizer.eos_token_id, *stop_ids],
            "logprobs": 0,  # of the sampled token only
            # Texts are decoded in one way for all backends; only where a text ends generation vLLM needs it, too.
            "detokenize": bool(self._inference.sampling_args.get("stop")),
        }
        try:
            return SamplingParams(**(arguments | self._inference.sampling_args))
        except (TypeError, ValueError) as error:
            raise ValueError(f"inference.sampling_args: {error}") from error

    def _constrained_params(self, trie: TokenTrie) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        longest, eos = max(map(len, trie.sequences)), self._tokenizer.eos_token_id
        # A last token that stands elsewhere in the trie too must not end a generation: the grammar does, a token later.
        inner = {token for sequence in trie.sequences for token in sequence[:-1]}
        lasts = {sequence[-1] for sequence in trie.sequences} - inner
        return SamplingParams(
            temperature=0.0,
            max_tokens=longest,
            ignore_eos=True,
            stop_token_ids=[eos, *sorted(lasts)],
            structured_outputs=StructuredOutputsParams(grammar=_write_grammar(trie, eos)),
            logprobs=0,
            detokenize=False,
        )

    def _finish_generation(self, output: Any, stop_ids: Sequence[int]) -> Generation:
        text = decode_generated(self._tokenizer, output.token_ids, stop_ids)
        if isinstance(output.stop_reason, str):
            # The last token may hold more than the text that ended the generation.
            text = text.partition(output.stop_reason)[0]
        return Generation(text, output.finish_reason, len(output.token_ids), output.cumulative_logprob)


def _write_grammar(trie: TokenTrie, eos: int) -> str:
    """Return the trie as a grammar over tokens instead of text, so that a name can be spelled in one way only.

    The end token is left out: at the end of the grammar it is the only one allowed.
    """
    alternatives = [[f"<[{token}]>" for token in sequence if token != eos] for sequence in trie.sequences]
    return "start: " + " | ".join(map(" ".join, alternatives))


def _list_logprobs(output: Any) -> list[float]:
    return [step[token].logprob for token, step in zip(output.token_ids, output.logprobs, strict=True)]
