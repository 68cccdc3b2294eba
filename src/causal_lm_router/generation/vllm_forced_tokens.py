"""Forced tokens in vLLM's V1 model runner, which CPUs use: the engine emits given ids with their log-probabilities.

vLLM records log-probabilities before its logits processors run, so they are the base model's own despite the forcing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

_KEY = "forced_ids"
"""Key of the ids in a request's `extra_args`, which vLLM passes to the processor."""


def forcing_params(ids: Sequence[int]) -> SamplingParams:
    """Return sampling settings with which an engine that has the processor generates exactly these ids."""
    return SamplingParams(
        # Greedy, so that the one infinite logit wins; an end token among the ids must not end the request early.
        temperature=0.0,
        max_tokens=len(ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        extra_args={_KEY: list(ids)},
    )


class ForcedTokens(AdapterLogitsProcessor):  # type: ignore[misc]
    """Makes the next forced id of a request its likeliest token; other requests stay as they are."""

    def is_argmax_invariant(self) -> bool:
        """Return False: it changes which token is the likeliest."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[[list[int], Tensor], Tensor] | None:
        """Return the function that forces the ids of one request, or None if it has none."""
        arguments: dict[str, Any] = params.extra_args or {}
        ids = arguments.get(_KEY)
        if ids is None:
            return None

        def force(output_ids: list[int], logits: Tensor) -> Tensor:
            # The number of ids generated so far is the position of the next one.
            logits[ids[len(output_ids)]] = torch.inf
            return logits

        return force
