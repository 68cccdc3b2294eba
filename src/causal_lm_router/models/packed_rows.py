"""Logits of the rows of a batch: padded as they come, or packed without padding, their common beginning computed once.

Packed, a batch is one row: the beginning that all rows share, then what is left of each. All layers but attention
treat tokens one by one, so only attention must know the rows: a token attends to the shared beginning and to its own
row. Values and gradients are those of the padded rows. PACKED is the name of the attention implementation, in
transformers and in `base_model.attn_implementation`.

Shape suffixes: B rows, L positions of a padded row, P of the shared beginning, S of the longest rest, N of the packed
row, H heads, D width of a head, W wanted logits, V vocabulary.
"""

from functools import partial
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
"""A shorter common beginning is not worth a second call of the attention kernel."""
MOST_SCORES = 2**23
"""Attention scores of a layer that are held for the backward pass (6 bytes each). In bfloat16 on a CPU the kernel that
holds none takes 2 to 10 times as long backwards; with more scores than this its memory counts for more."""


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
    """Where the tokens of the rows lie in the packed row, as attention needs it."""

    queries: Tensor
    """[B, S]: place of each position of the rests in the packed row; any place at padding."""
    keys: Tensor
    """[B, P + S]: the same with the shared beginning before it."""
    slots: Tensor
    """[N - P]: place of each packed token of the rests among the B * S positions."""
    num_shared: int
    """P."""


def row_logits(model: torch.nn.Module, rows: Rows, wanted_BL: Tensor) -> Tensor:
    """Return [W, V], float32: the logits at the wanted positions, row by row."""
    if _can_pack(model, rows.is_token.shape[1]):
        return _packed_logits(model, rows, wanted_BL)
    # A column is computed for all rows where one of them wants it.
    columns = wanted_BL.any(dim=0).nonzero().flatten()
    mask = rows.is_token.long() if rows.sees is None else _additive_mask(rows, next(model.parameters()).dtype)
    inputs = {**_model_inputs(rows), "attention_mask": mask, "logits_to_keep": columns, "use_cache": False}
    logits_BCV: Tensor = model(**inputs).logits.float()
    wanted_BC = wanted_BL[:, columns]
    return logits_BCV.flatten(0, 1) if wanted_BC.all() else logits_BCV[wanted_BC]


def _can_pack(model: torch.nn.Module, num_positions: int) -> bool:
    """Return whether the model's attention takes a layout; with a sliding window rows must be shorter than that."""
    config: Any = model.config
    takes_layout = config._attn_implementation == PACKED and getattr(model, "_supports_attention_backend", False)
    window = getattr(config, "sliding_window", None)
    return takes_layout and (window is None or num_positions <= window)


def _packed_logits(model: torch.nn.Module, rows: Rows, wanted_BL: Tensor) -> Tensor:
    numbers_BL = rows.is_token.cumsum(dim=1)  # of each token in its row, from 1
    num_shared = _count_shared(rows, numbers_BL[:, -1])
    num_rest = int(numbers_BL[:, -1].max()) - num_shared
    # The rest of a row is its last tokens; all rests end at the last position.
    is_rest_BL = rows.is_token & (numbers_BL > num_shared)
    is_rest_BS = is_rest_BL[:, -num_rest:]
    # In the packed row the shared beginning comes first, then the rests one after another.
    order_BL = is_rest_BL.flatten().cumsum(dim=0).view_as(numbers_BL)
    places_BL = torch.where(is_rest_BL, num_shared + order_BL, numbers_BL).clamp(min=1) - 1
    # It is taken from the first row.
    first_P = (rows.is_token & ~is_rest_BL)[0].nonzero().flatten()
    source_N = torch.cat([first_P, is_rest_BL.flatten().nonzero().flatten()])
    shared_BP = torch.arange(num_shared, device=places_BL.device).expand(len(places_BL), -1)
    layout = Layout(
        places_BL[:, -num_rest:],
        torch.cat([shared_BP, places_BL[:, -num_rest:]], dim=1),
        is_rest_BS.flatten().nonzero().flatten(),
        num_shared,
    )
    see_BSS = _see(rows, num_rest) & is_rest_BS[:, None, :]
    # Padding sees itself: a softmax over nothing would give NaN.
    see_BSS |= torch.eye(num_rest, dtype=torch.bool, device=see_BSS.device)
    packed = {name: field.flatten(0, 1)[source_N][None] for name, field in _model_inputs(rows).items()}
    logits_1WV: Tensor = model(
        **packed,
        attention_mask=pad(see_BSS, (num_shared, 0), value=True)[:, None],
        logits_to_keep=places_BL[wanted_BL],
        layout=layout,
        use_cache=False,
    ).logits
    return logits_1WV.float()[0]


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

    `query` is [1, H, N, D]; `key` and `value` may have fewer heads. `attention_mask` is [B, 1, S, P + S].
    """
    if layout is None:
        options |= {"scaling": scaling, "dropout": dropout}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    key, value = (repeat_kv(part, query.shape[1] // part.shape[1]) for part in (key, value))

    def unpack(packed: Tensor, places: Tensor) -> Tensor:
        """Return [B, H, positions, D] from [1, H, N, D]."""
        return packed[0, :, places].transpose(0, 1)

    assert attention_mask is not None, "a layout comes with a mask"
    attend = partial(_attend, scaling=scaling, dropout=dropout)
    parts = (unpack(query, layout.queries), unpack(key, layout.keys), unpack(value, layout.keys))
    rests_BHSD = attend(*parts, attention_mask)
    # Back to the order of the packed row, without padding.
    output_NHD = rests_BHSD.transpose(1, 2).flatten(0, 1).index_select(0, layout.slots)
    if layout.num_shared:
        query, key, value = (part[:, :, : layout.num_shared] for part in (query, key, value))
        causal_PP = attention_mask.new_ones(layout.num_shared, layout.num_shared).tril()
        shared_HPD = attend(query, key, value, causal_PP)[0]
        output_NHD = torch.cat([shared_HPD.transpose(0, 1), output_NHD])
    return output_NHD[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, sees: Tensor, scaling: float | None, dropout: float) -> Tensor:
    """Return [..., S, D]: attention of S queries over T keys; `sees` says which attend to which."""
    num_scores = query.shape[:-1].numel() * key.shape[-2]
    if query.device.type != "cpu" or query.dtype is not torch.bfloat16 or dropout or num_scores > MOST_SCORES:
        return scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=scaling, dropout_p=dropout)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ key.transpose(-1, -2)
    unseen = torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, float("-inf"))
    # Added in float32, as the softmax is taken.
    return torch.softmax(scores + unseen, dim=-1).to(value.dtype) @ value


AttentionInterface.register(PACKED, _packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
