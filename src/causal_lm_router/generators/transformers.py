"""Generation with transformers' `generate`: slower than vLLM, runs wherever torch does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.base_model import load_base_model, load_trained
from causal_lm_router.config import BaseModelConfig, InferenceConfig
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
        # The settings here alone count, not defaults that come with the base model.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._model = model.eval()  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        """Return one generation per prompt (token ids), in order."""
        if self._model is None:
            self.load_weights(None)
        assert self._model is not None
        self._model.to(self._device)  # type: ignore[arg-type]
        size = self._inference.batch_size
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        found: dict[int, Generation] = {}
        with torch.random.fork_rng():
            torch.manual_seed(self._inference.seed)
            for batch in track(batches, "generating", disable=len(batches) < 3, transient=True):
                found |= zip(batch, self._generate_batch([prompts[index] for index in batch]), strict=True)
        return [found[index] for index in range(len(prompts))]

    def sleep(self) -> None:
        """Move the weights to the host until the next use."""
        if self._model is not None:
            self._model.to("cpu")  # type: ignore[arg-type]

    def close(self) -> None:
        """Drop the weights."""
        self._model = None

    def _generate_batch(self, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        assert self._model is not None
        longest = max(len(ids) for ids in prompts)
        pad, eos = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        input_ids = torch.tensor([[pad] * (longest - len(ids)) + list(ids) for ids in prompts])
        attention_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        output: Any = self._model.generate(  # type: ignore[operator]
            input_ids=input_ids.to(self._device),
            attention_mask=attention_mask.to(self._device),
            **self._generation_args(pad, eos),
        )
        new_ids = output.sequences[:, longest:].cpu()
        logits = torch.stack(output.logits, dim=1).float().cpu()
        return [self._generation(ids, row, eos) for ids, row in zip(new_ids, logits, strict=True)]

    def _generation_args(self, pad: int, eos: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "max_new_tokens": self._inference.max_new_tokens,
            "do_sample": self._inference.temperature > 0,
            "pad_token_id": pad,
            "eos_token_id": eos,
            "return_dict_in_generate": True,
            "output_logits": True,
        }
        if self._inference.temperature > 0:
            arguments |= {"temperature": self._inference.temperature, "top_p": self._inference.top_p, "top_k": 0}
        unknown = GenerationConfig().update(**self._inference.sampling_args)  # type: ignore[no-untyped-call]
        if unknown:
            raise ValueError(f"inference.sampling_args: transformers knows no {', '.join(map(str, unknown))}")
        return arguments | self._inference.sampling_args

    def _generation(self, ids: Tensor, logits: Tensor, eos: int) -> Generation:
        ended = (ids == eos).nonzero()
        length = int(ended[0]) + 1 if len(ended) else len(ids)
        logprobs = logits[:length].log_softmax(dim=-1)
        logprob = logprobs.gather(1, ids[:length, None]).sum().item()
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = self._tokenizer.decode(ids[:length], **options)
        return Generation(str(text), "stop" if len(ended) else "length", length, logprob)
