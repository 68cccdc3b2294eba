"""Logits of the rows of a batch: padded as they come, or packed without padding, their common beginning computed once.

Packed, a batch is one row: the beginning that all rows share, then what is left of each. All layers but attention
treat tokens one by one, so only attention must know the rows: a token attends to the shared beginning and to its own
row. Values and gradients are those of the padded rows. PACKED is the name of the attention implementation, in
transformers and in `base_model.attn_implementation`.

Shape suffixes: B rows, L positions of a padded row, P of the shared beginning, S of the rest of a row, N of the packed
row, H heads, D width of a head, W wanted logits, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The name of the attention implementation."""
LEAST_SHARED = 16
"""A shorter common beginning is not worth a call of the attention kernel of its own."""
MOST_SCORES = 2**23
"""Attention scores of a layer that are held for the backward pass (6 bytes each). In bfloat16 on a CPU the kernel that
holds none takes 2 to 6 times as long backwards; with more scores than this its memory counts for more."""


class Rows(NamedTuple):
    """Rows padded on the left."""

    input_ids: Tensor
    """[B, L], int64."""
    is_token: Tensor
    """[B, L], bool: False at padding."""
    position_ids: Tensor
    """[B, L], int64: position of a token in its row."""
    sees: Tensor | None = None
    """[L, L], bool: which positions attend to which, padding apart; None where attention is causal."""
    hidden_states: Tensor | None = None
    """[B, L, width of the base model]: what the model starts from in place of the ids."""
    num_nodes: int = 0
    """How many of the last positions are no part of a prompt."""


class Layout(NamedTuple):
    """Which tokens of the packed row attend to which, part by part."""

    masks: tuple[Tensor, ...]
    """What is added to the attention scores of each part, float32: 0, or minus infinity where it does not see. First
    [P, P] of the shared beginning where there is one, then [S, P + S] of each rest."""
    num_shared: int
    """P."""


def row_logits(model: torch.nn.Module, rows: Rows, wanted_BL: Tensor) -> Tensor:
    """Return [W, V], float32: the logits at the wanted positions, row by row."""
    if can_pack(model, rows.is_token.shape[1]):
        return _packed_logits(model, rows, wanted_BL)
    # A column is computed for all rows where one of them wants it.
    columns = wanted_BL.any(dim=0).nonzero().flatten()
    mask = rows.is_token.long() if rows.sees is None else _additive_mask(rows, next(model.parameters()).dtype)
    inputs = {**_model_inputs(rows), "attention_mask": mask, "logits_to_keep": columns, "use_cache": False}
    logits_BCV: Tensor = model(**inputs).logits.float()
    wanted_BC = wanted_BL[:, columns]
    return logits_BCV.flatten(0, 1) if wanted_BC.all() else logits_BCV[wanted_BC]


def can_pack(model: torch.nn.Module, num_positions: int) -> bool:
    """Return whether the model's attention takes a layout; with a sliding window rows must be shorter than that."""
    config: Any = model.config
    takes_layout = config._attn_implementation == PACKED and getattr(model, "_supports_attention_backend", False)
    window = getattr(config, "sliding_window", None)
    return takes_layout and (window is None or num_positions <= window)


def _packed_logits(model: torch.nn.Module, rows: Rows, wanted_BL: Tensor) -> Tensor:
    numbers_BL = rows.is_token.cumsum(dim=1)  # of each token in its row, from 1
    num_shared = _count_shared(rows, numbers_BL[:, -1])
    # In the packed row the shared beginning comes first, then the rests one after another.
    is_rest_BL = rows.is_token & (numbers_BL > num_shared)
    order_BL = is_rest_BL.flatten().cumsum(dim=0).view_as(numbers_BL)
    places_BL = torch.where(is_rest_BL, num_shared + order_BL, numbers_BL).clamp(min=1) - 1
    # It is taken from the first row.
    first_P = (rows.is_token & ~is_rest_BL)[0].nonzero().flatten()
    source_N = torch.cat([first_P, is_rest_BL.flatten().nonzero().flatten()])
    layout = Layout(_make_masks(rows, is_rest_BL.sum(dim=1).tolist(), num_shared), num_shared)
    packed = {name: field.flatten(0, 1)[source_N][None] for name, field in _model_inputs(rows).items()}
    logits_1WV: Tensor = model(
        **packed,
        # Attention takes its masks from the layout; this one keeps the model from making its own.
        attention_mask=layout.masks[0][None, None],
        logits_to_keep=places_BL[wanted_BL],
        layout=layout,
        use_cache=False,
    ).logits
    return logits_1WV.float()[0]


def _make_masks(rows: Rows, num_rests: list[int], num_shared: int) -> tuple[Tensor, ...]:
    """Return the masks of a layout; `num_rests` are the tokens of each row behind the shared beginning."""
    see = _see(rows, max(*num_rests, num_shared))
    unseen = torch.zeros(see.shape, device=see.device).masked_fill(~see, float("-inf"))
    # The rest of a row is its last tokens, and each of them sees the shared beginning.
    rests = [pad(unseen[-num:, -num:], (num_shared, 0)) for num in num_rests]
    # The shared beginning is causal whatever comes behind it.
    shared = [torch.full_like(unseen[:num_shared, :num_shared], float("-inf")).triu(1)] if num_shared else []
    return (*shared, *rests)


def _count_shared(rows: Rows, lengths_B: Tensor) -> int:
    """Return the length of the beginning that is computed once: at most all but the last token of a prompt."""
    longest = int(lengths_B.min()) - rows.num_nodes - 1
    columns_BP = (rows.is_token.shape[1] - lengths_B)[:, None] + torch.arange(longest, device=lengths_B.device)
    ids_BP = rows.input_ids.gather(1, columns_BP)
    num_shared = int((ids_BP == ids_BP[:1]).all(dim=0).cumprod(dim=0).sum())
    return num_shared if num_shared >= LEAST_SHARED and len(lengths_B) > 1 else 0


def _see(rows: Rows, num_last: int) -> Tensor:
    """Return which of the last positions attend to which of them, padding apart: [num_last, num_last], bool."""
    if rows.sees is not None:
        return rows.sees[-num_last:, -num_last:]
    return torch.ones(num_last, num_last, dtype=torch.bool, device=rows.is_token.device).tril()


def _model_inputs(rows: Rows) -> dict[str, Tensor]:
    start = {"input_ids": rows.input_ids} if rows.hidden_states is None else {"inputs_embeds": rows.hidden_states}
    return {**start, "position_ids": rows.position_ids}


def _additive_mask(rows: Rows, dtype: torch.dtype) -> Tensor:
    """Return [B, 1, L, L], what is added to attention scores: 0, or the dtype's lowest number as in transformers."""
    num_all = rows.is_token.shape[1]
    see_BLL = _see(rows, num_all) & rows.is_token[:, None, :]
    see_BLL |= torch.eye(num_all, dtype=torch.bool, device=see_BLL.device)
    mask_BLL = torch.zeros(see_BLL.shape, dtype=dtype, device=see_BLL.device)
    return mask_BLL.masked_fill(~see_BLL, torch.finfo(dtype).min)[:, None]


def _packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention output [1, N, H, D] of a packed row; without a layout that of padded rows, by `sdpa`.

    `query` is [1, H, N, D]; `key` and `value` may have fewer heads. Masks are those of the layout.
    """
    if layout is None:
        options |= {"scaling": scaling, "dropout": dropout}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    key, value = (repeat_kv(part, query.shape[1] // part.shape[1]) for part in (key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    num_scores = query.shape[1] * sum(mask.numel() for mask in layout.masks)
    attend = _multiply if _is_slow_backwards(query) and not dropout and num_scores <= MOST_SCORES else _call_kernel
    # Rows differ in length, and attention costs the square of it: row by row nothing is spent on padding.
    sizes = [len(mask) for mask in layout.masks]
    parts = zip(layout.masks, *(torch.split(part, sizes, dim=2) for part in (query, key, value)), strict=True)
    shared: tuple[Tensor, Tensor] | None = None
    outputs = []
    for mask, query_part, key_part, value_part in parts:
        if shared is not None:
            key_part, value_part = torch.cat([shared[0], key_part], dim=2), torch.cat([shared[1], value_part], dim=2)
        elif layout.num_shared:
            shared = key_part, value_part
        outputs.append(attend(query_part, key_part, value_part, mask, scaling, dropout).transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def _is_slow_backwards(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype is torch.bfloat16


def _call_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, dropout: float) -> Tensor:
    """Return [1, H, S, D]: attention of S queries, without holding their scores."""
    mask = mask.to(query.dtype)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, dropout_p=dropout)


def _multiply(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, _dropout: float) -> Tensor:
    """Return [1, H, S, D]: the same by two products, whose gradients are products again."""
    # Added in float32, as the softmax is taken.
    scores = (query * scaling) @ key.transpose(-1, -2) + mask
    return torch.softmax(scores, dim=-1).to(value.dtype) @ value


AttentionInterface.register(PACKED, _packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
