"""What vLLM's workers do for us beside generating: methods called by name, since the engine may run in another process.

Arguments and results are plain lists, which travel between processes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface

from causal_lm_router.models.packed_rows import PACKED, Layout
from causal_lm_router.models.target_logprobs import target_logprobs
from causal_lm_router.prompting.token_trie import make_trie


class WorkerMethods:
    """A mixin for vLLM's workers, added by the engine argument `worker_extension_cls`."""

    def refresh_tied_head(self) -> None:
        """Give a head that shares the embedding's weights the new ones.

        vLLM's reload changes the embedding only: the head (on a CPU, its packed copy too) keeps the old weights.
        """
        worker: Any = self
        model = worker.get_model()
        if getattr(model.config, "tie_word_embeddings", False):
            model.lm_head.tie_weights(model.model.embed_tokens)
            # Packs the weights for the CPU's kernels again.
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)

    def rewind_generators(self) -> None:
        """Let the random generators of sampled requests be set back, as vLLM asks where it cuts a prompt into parts.

        It asks those of a GPU alone for less than a new start, which those of a CPU cannot do.
        """
        worker: Any = self
        worker.model_runner.input_batch.generators = _Generators()

    def can_pack(self) -> bool:
        """Return whether attention can be computed outside of vLLM: plain and causal in every layer, on one CPU."""
        worker: Any = self
        layers = worker.vllm_config.compilation_config.static_forward_context.values()
        return not worker.model_runner.uses_mrope and all(map(_is_plain, layers))

    def target_logprobs(
        self, prompts: Sequence[Sequence[int]], sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return the log-probability of every sequence after each prompt, all of them in one pass without the cache.

        The sequences must be fit for a token trie, and `can_pack` must be true.
        """
        longest = max(map(len, prompts))
        input_ids = torch.stack([pad(torch.tensor(ids), (longest - len(ids), 0)) for ids in map(list, prompts)])
        attention_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        with torch.inference_mode():
            model: Any = _PackedModel(self)
            found: list[list[float]] = target_logprobs(model, input_ids, attention_mask, make_trie(sequences)).tolist()
        return found


class _CpuGenerator(torch.Generator):
    """A generator whose draw before the end of the prompt can be taken back: it starts again from its seed.

    A request that vLLM interrupted and computes anew starts again there too.
    """

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        return self.manual_seed(self.initial_seed())


class _Generators(dict[int, torch.Generator]):
    """The generators of vLLM's requests by their place in its batch, each one that can be set back."""

    def __setitem__(self, place: int, generator: torch.Generator) -> None:
        if not isinstance(generator, _CpuGenerator):
            seed = generator.initial_seed()
            generator = _CpuGenerator()
            generator.manual_seed(seed)
        super().__setitem__(place, generator)


def _is_plain(layer: Any) -> bool:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

    impl = getattr(layer, "impl", None)
    if not isinstance(impl, CPUAttentionBackendImpl):
        return False
    special = (impl.alibi_slopes, impl.sinks, impl.kv_sharing_target_layer_name)
    return (
        impl.attn_type == "decoder"
        and impl.sliding_window == -1
        and not impl.logits_soft_cap
        and special == (None,) * 3
    )


class _PackedModel:
    """The model of a worker as `row_logits` calls the models of transformers: for one packed row."""

    _supports_attention_backend = True

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.config = SimpleNamespace(_attn_implementation=PACKED)

    def __call__(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: Tensor,
        layout: Layout,
        use_cache: bool,
    ) -> SimpleNamespace:
        """Return the logits [1, W, V] at the places to keep."""
        from vllm.forward_context import set_forward_context

        assert not use_cache, "the cache belongs to vLLM's own requests"
        config, model = self._worker.vllm_config, self._worker.get_model()
        attend = partial(_attend, layout)
        with (
            set_forward_context(None, config, num_tokens=input_ids.shape[1], slot_mapping={}),
            _replace_attention(config, attend),
        ):
            hidden_states = model(input_ids=input_ids[0], positions=position_ids[0])
        return SimpleNamespace(logits=model.compute_logits(hidden_states[logits_to_keep])[None])


@contextlib.contextmanager
def _replace_attention(config: Any, attend: Any) -> Iterator[None]:
    """Have every attention layer call `attend` until the block ends."""
    impls = [layer.impl for layer in config.compilation_config.static_forward_context.values()]
    for impl in impls:
        impl.forward = attend
    try:
        yield
    finally:
        for impl in impls:
            del impl.forward


def _attend(
    layout: Layout,
    layer: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: object,
    metadata: object,
    output: Tensor,
    **_scales: object,
) -> Tensor:
    """Do what vLLM's attention does with the arguments from `layer` on, for a packed row."""
    # From [N, H, D] to [1, H, N, D].
    parts = [part.transpose(0, 1)[None] for part in (query, key, value)]
    packed = AttentionInterface()[PACKED]  # type: ignore[no-untyped-call]
    found, _ = packed(layer, *parts, None, layout=layout, scaling=layer.impl.scale)
    return output.copy_(found[0])
