"""Forced tokens in vLLM's V1 model runner, the one for CPUs: the engine emits given ids and says how likely they were.

vLLM records log-probabilities before its logits processors run, so forcing leaves them as the base model has them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

_KEY = "forced_ids"


def forcing_params(ids: Sequence[int]) -> SamplingParams:
    """Return sampling settings under which an engine with the processor generates exactly these ids."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=len(ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        extra_args={_KEY: list(ids)},
    )


class ForcedTokens(AdapterLogitsProcessor):  # type: ignore[misc]
    """Makes the next of a request's forced ids the likeliest token; other requests stay as they are."""

    def is_argmax_invariant(self) -> bool:
        """It changes which token is the likeliest."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[[list[int], Tensor], Tensor] | None:
        """Return what forces the ids of one request, None where it has none."""
        arguments: dict[str, Any] = params.extra_args or {}
        ids = arguments.get(_KEY)
        if ids is None:
            return None

        def force(output_ids: list[int], logits: Tensor) -> Tensor:
            logits[ids[len(output_ids)]] = torch.inf
            return logits

        return force
