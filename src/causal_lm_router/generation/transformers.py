"""Generation with transformers' `generate`, targets by one forward pass; runs wherever torch runs."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, InferenceConfig
from causal_lm_router.generation.batches import Answer, run_batches
from causal_lm_router.generation.generated_text import decode_generated, make_constrained_generation
from causal_lm_router.generation.trie_walks import greedy_path
from causal_lm_router.models.adapter import load_trained
from causal_lm_router.models.base_model import load_base_model
from causal_lm_router.models.packed_rows import Rows, row_logits
from causal_lm_router.models.target_logprobs import edge_logprobs, target_logprobs
from causal_lm_router.prompting.token_trie import TokenTrie, cut_when_decided
from causal_lm_router.routing import Generation


class TransformersGenerator:
    """The transformers backend; adapters are merged when loaded."""

    def __init__(
        self,
        inference: InferenceConfig,
        base_model: BaseModelConfig,
        name_or_path: str,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._inference = inference
        self._base_model = base_model
        self._name_or_path = name_or_path
        self._tokenizer = tokenizer
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: PreTrainedModel | None = None

    def load_weights(self, weights_dir: Path | None) -> None:
        """Use the trained weights in a folder; None is the bare base model."""
        if weights_dir is None:
            model = load_base_model(self._name_or_path, self._base_model)
        else:
            model = load_trained(self._name_or_path, self._base_model, weights_dir)
        model.config.use_cache = True
        # Only the settings here count, not generation defaults that come with the base model.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._model = model.eval()  # type: ignore[no-untyped-call]

    def generate(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = ()) -> list[Generation]:
        """Return one generation per prompt, in order, as `Generator` says."""
        ends = [self._tokenizer.eos_token_id, *stop_ids]
        arguments = {"eos_token_id": ends, "output_logits": True} | self._sampling_args()

        def answers(batch: list[int]) -> list[Generation]:
            generated = self._generate_ids([prompts[index] for index in batch], arguments)
            return [self._finish_generation(ids, logprobs, stop_ids) for ids, logprobs in generated]

        def short_answers(batch: list[int]) -> list[Generation]:
            logprobs, tokens = self._last_logprobs([prompts[index] for index in batch]).max(dim=-1)
            first = zip(batch, tokens.tolist(), logprobs.tolist(), strict=True)
            done = {
                index: self._finish_generation([token], [logprob], stop_ids)
                for index, token, logprob in first
                if token in ends
            }
            if longer := [index for index in batch if index not in done]:
                done |= zip(longer, answers(longer), strict=True)
            return [done[index] for index in batch]

        # Where a target is one token nearly all texts end with their first one, which a forward pass gives.
        is_greedy = self._inference.temperature == 0 and not self._inference.sampling_args
        if stop_ids and is_greedy:
            return self._run_batches(prompts, short_answers)
        # Training in this process must not depend on what was sampled here.
        with torch.random.fork_rng():
            torch.manual_seed(self._inference.seed)
            return self._run_batches(prompts, answers)

    def generate_constrained(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[Generation]:
        """Return one generation per prompt, in order, that is a sequence of the trie, as `Generator` says."""
        # All nodes at which a token decides are computed in one pass with their prompt.
        decided = cut_when_decided(trie)

        def answers(batch: list[int]) -> list[Generation]:
            input_ids, attention_mask = self._pad([prompts[index] for index in batch])
            edges = edge_logprobs(self._loaded(), input_ids, attention_mask, decided).double().cpu().numpy()
            paths = [greedy_path(row, decided) for row in edges]
            return [make_constrained_generation(self._tokenizer, trie, decided, *path) for path in paths]

        return self._run_batches(prompts, answers)

    def next_logprobs(
        self, prefixes: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return for every prefix the log-probabilities of its `token_ids` as the next token."""

        def answers(batch: list[int]) -> list[NDArray[np.float64]]:
            logprobs = self._last_logprobs([prefixes[index] for index in batch]).cpu().numpy()
            return [row[list(token_ids[index])].astype(np.float64) for index, row in zip(batch, logprobs, strict=True)]

        return self._run_batches(prefixes, answers, unit="prefixes")

    def sequence_logprobs(
        self, prompts: Sequence[Sequence[int]], trie: TokenTrie, num_alike: int = 1
    ) -> NDArray[np.float64]:
        """Return [number of prompts, number of sequences]: each sequence's log-probability, as `Generator` says."""

        def answers(batch: list[int]) -> list[NDArray[np.float64]]:
            input_ids, attention_mask = self._pad([prompts[index] for index in batch])
            logprobs = target_logprobs(self._loaded(), input_ids, attention_mask, trie)
            return list(logprobs.double().cpu().numpy())

        found = self._run_batches(prompts, answers, num_alike=num_alike)
        return np.array(found).reshape(len(prompts), len(trie.sequences))

    def sleep(self) -> None:
        """Move the weights to host memory until the next use."""
        if self._model is not None:
            self._model.to("cpu")  # type: ignore[arg-type]

    def close(self) -> None:
        """Drop the weights."""
        self._model = None

    def _loaded(self) -> Any:
        if self._model is None:
            self.load_weights(None)
        assert self._model is not None
        return self._model.to(self._device)  # type: ignore[arg-type]

    @torch.inference_mode()
    def _run_batches(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Callable[[list[int]], Sequence[Answer]],
        unit: str = "queries",
        num_alike: int = 1,
    ) -> list[Answer]:
        return run_batches(prompts, self._inference.batch_size, answers, unit, num_alike)

    def _last_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return [prompts, vocabulary], float32: the log-probability of every token behind each prompt."""
        input_ids, attention_mask = self._pad(prompts)
        # Padding on the left must not shift positions.
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        rows = Rows(input_ids=input_ids, is_token=attention_mask.bool(), position_ids=positions)
        is_last = torch.zeros_like(rows.is_token)
        is_last[:, -1] = True
        return row_logits(self._loaded(), rows, is_last).log_softmax(dim=-1)

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the prompts as ids and attention mask, padded on the left."""
        longest, pad = max(len(ids) for ids in prompts), self._tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (longest - len(ids)) + list(ids) for ids in prompts])
        attention_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        return input_ids.to(self._device), attention_mask.to(self._device)

    def _generate_ids(
        self, prompts: Sequence[Sequence[int]], arguments: dict[str, Any]
    ) -> Iterator[tuple[list[int], list[float]]]:
        """Yield the new ids of every prompt and the base model's own log-probability of each id.

        The arguments ask for the steps' logits, from which the log-probabilities come.
        """
        input_ids, attention_mask = self._pad(prompts)
        output: Any = self._loaded().generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pad_token_id=self._tokenizer.pad_token_id,
            return_dict_in_generate=True,
            **arguments,
        )
        logits = torch.stack(output.logits, dim=1).float().cpu()
        for ids, row in zip(output.sequences[:, input_ids.shape[1] :].cpu(), logits, strict=True):
            yield ids.tolist(), row.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0].tolist()

    def _sampling_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "max_new_tokens": self._inference.max_new_tokens,
            "do_sample": self._inference.temperature > 0,
        }
        # `generate` warns about sampling settings in greedy decoding. `top_k=0` turns off its default of 50.
        if self._inference.temperature > 0:
            arguments |= {"temperature": self._inference.temperature, "top_p": self._inference.top_p, "top_k": 0}
        unknown = GenerationConfig().update(**self._inference.sampling_args)  # type: ignore[no-untyped-call]
        if unknown:
            raise ValueError(
                f"inference.sampling_args must be settings of transformers, got {', '.join(map(str, unknown))}"
            )
        return arguments | self._inference.sampling_args

    def _finish_generation(self, ids: Sequence[int], logprobs: Sequence[float], stop_ids: Sequence[int]) -> Generation:
        # A batch runs until its longest generation ends: ids after an end token are padding.
        ends = {self._tokenizer.eos_token_id, *stop_ids}
        length = next((number for number, token in enumerate(ids, start=1) if token in ends), None)
        text = decode_generated(self._tokenizer, ids[:length], stop_ids)
        return Generation(text, "stop" if length else "length", length or len(ids), sum(logprobs[:length]))
