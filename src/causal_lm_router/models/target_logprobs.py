"""The log-probability of every target after a prompt, in one forward pass over the prompt and the targets' token trie.

Shape suffixes: B rows of a batch, T positions of the prompt, M inner trie nodes, L all positions (T + M), N trie nodes,
S sequences of the trie, V vocabulary.
"""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_lm_router.prompting.token_trie import TokenTrie


def target_logprobs(
    model: torch.nn.Module,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    trie: TokenTrie,
    hidden_BTD: Tensor | None = None,
) -> Tensor:
    """Return [B, S]: the log-probability (nats) of every sequence of the trie after each prompt, with its gradient.

    Prompts are padded on the left. Each prompt is computed once: the inner nodes of the trie follow it as further
    positions, and each of them attends to the prompt and to its own ancestors. Where every sequence is a single token
    there are no inner nodes, any attention kernel will do, and the model can start from the output of its frozen layers
    (`hidden_BTD`, see `frozen_layers`) in place of the ids.

    Raises:
        ValueError: the attention kernel takes no mask of our own, which inner nodes need.
    """
    # Leaves are end tokens: they are predicted, and nothing is predicted after them.
    inner = [node for node in range(1, len(trie.tokens)) if trie.children[node]]
    _check_attention(model, needs_mask=bool(inner))
    num_rows, num_prompt = input_ids_BT.shape
    device = input_ids_BT.device
    # A node stands as far behind the prompt as its sequence is long there: siblings share a position.
    nodes_M = torch.tensor([trie.tokens[node] for node in inner], dtype=torch.long, device=device)
    depths_M = torch.tensor([len(trie.prefix(node)) for node in inner], dtype=torch.long, device=device)
    lengths_B1 = attention_mask_BT.sum(dim=1, keepdim=True)
    prompt_positions_BT = (attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    assert hidden_BTD is None or not inner, "the nodes would have to pass the frozen layers"
    start = {"inputs_embeds": hidden_BTD}
    if hidden_BTD is None:
        start = {"input_ids": torch.cat([input_ids_BT, nodes_M.expand(num_rows, -1)], dim=1)}
    # Logits of the last prompt token and of the inner nodes: there the tokens of the trie are predicted.
    logits_BMV = model(
        **start,
        attention_mask=_mask(attention_mask_BT, inner, trie, model) if inner else attention_mask_BT,
        position_ids=torch.cat([prompt_positions_BT, lengths_B1 - 1 + depths_M], dim=1),
        logits_to_keep=torch.arange(num_prompt - 1, num_prompt + len(inner), device=device),
        use_cache=False,
    ).logits.float()
    return _sum_along_paths(logits_BMV, inner, trie)


def _sum_along_paths(logits_BMV: Tensor, inner: list[int], trie: TokenTrie) -> Tensor:
    """Return [B, S] from the logits at the end of the prompt and at the inner nodes (M of them in all)."""
    device = logits_BMV.device
    # Slot of a node among the logits; the root is the end of the prompt.
    slots = {node: slot for slot, node in enumerate([0, *inner])}
    # log p(token of a node | its ancestors), for every node but the root. Only the tokens of the trie are normalised:
    # a log-softmax would hold the whole vocabulary a second time.
    parents_N = torch.tensor([slots[parent] for parent in trie.parents[1:]], device=device)
    tokens_N = torch.tensor(trie.tokens[1:], device=device)
    edges_BN: Tensor = logits_BMV[:, parents_N, tokens_N] - logits_BMV.logsumexp(dim=-1)[:, parents_N]
    # A sequence's log-probability is the sum along its path: a matrix of zeros and ones sums all paths at once.
    passes_NS = torch.zeros(len(trie.tokens) - 1, len(trie.paths), device=device)
    for number, path in enumerate(trie.paths):
        passes_NS[[node - 1 for node in path], number] = 1.0
    return edges_BN @ passes_NS


def _check_attention(model: torch.nn.Module, *, needs_mask: bool) -> None:
    kernel = getattr(model.config, "_attn_implementation", "sdpa")
    if needs_mask and kernel not in ("sdpa", "eager"):
        raise ValueError(
            "base_model.attn_implementation must be sdpa or eager for the likelihoods of targets of several tokens, "
            f"got {kernel!r}; target=token takes any"
        )


def _mask(attention_mask_BT: Tensor, inner: list[int], trie: TokenTrie, model: torch.nn.Module) -> Tensor:
    """Return [B, 1, L, L], what is added to attention scores: 0 where a position may attend to another.

    Elsewhere it is the lowest number of the model's dtype, as in transformers.
    """
    num_rows, num_prompt = attention_mask_BT.shape
    num_all = num_prompt + len(inner)
    device = attention_mask_BT.device
    sees_LL = torch.zeros(num_all, num_all, dtype=torch.bool, device=device)
    # Inside the prompt attention is causal, and every node attends to the whole prompt.
    sees_LL[:num_prompt, :num_prompt] = torch.ones(num_prompt, num_prompt, device=device).tril().bool()
    sees_LL[num_prompt:, :num_prompt] = True
    # A node attends to itself and its ancestors, not to the other sequences' nodes.
    slots = {node: num_prompt + number for number, node in enumerate(inner)}
    for node in inner:
        ancestor = node
        while ancestor:
            sees_LL[slots[node], slots[ancestor]] = True
            ancestor = trie.parents[ancestor]
    # Nobody attends to padding.
    is_token_BL = torch.cat(
        [attention_mask_BT.bool(), torch.ones(num_rows, len(inner), dtype=torch.bool, device=device)], dim=1
    )
    # But padding attends to itself: a softmax over nothing would give NaN.
    sees_BLL = sees_LL & is_token_BL[:, None, :] | torch.eye(num_all, dtype=torch.bool, device=device)
    dtype = next(model.parameters()).dtype
    mask_BLL = torch.zeros(sees_BLL.shape, dtype=dtype, device=device)
    return mask_BLL.masked_fill(~sees_BLL, torch.finfo(dtype).min)[:, None]


Array = TypeVar("Array", Tensor, NDArray[np.float64])


def score_log_odds(logprobs_BS: Array, reference_offset: float) -> Array:
    """Return [B, C]: log p(target) - log p(end at once) - offset, which `per_candidate` trains to be score log-odds.

    The last of the S = C + 1 sequences is the reference, to end at once. It is outside the pool, so candidates do not
    compete with each other: all of them can be good.
    """
    log_odds_BC: Array = logprobs_BS[:, :-1] - logprobs_BS[:, -1:] - reference_offset
    return log_odds_BC
