"""The log-probability of every target after a prompt, in one forward pass over the prompt and the targets' token trie.

Shape suffixes: B rows of a batch, T positions of the prompt, M inner trie nodes, L all positions (T + M), N trie nodes,
S sequences of the trie, V vocabulary.
"""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from causal_lm_router.models.packed_rows import PACKED, Rows, row_logits
from causal_lm_router.prompting.token_trie import TokenTrie


def target_logprobs(
    model: torch.nn.Module,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    trie: TokenTrie,
    hidden_BTD: Tensor | None = None,
) -> Tensor:
    """Return [B, S]: the log-probability (nats) of every sequence of the trie after each prompt, with its gradient.

    Raises:
        ValueError: see `edge_logprobs`, which has the arguments.
    """
    edges_BN = edge_logprobs(model, input_ids_BT, attention_mask_BT, trie, hidden_BTD)
    # A sequence's log-probability is the sum along its path: a matrix of zeros and ones sums all paths at once.
    passes_NS = torch.zeros(len(trie.tokens) - 1, len(trie.paths), device=edges_BN.device)
    for number, path in enumerate(trie.paths):
        passes_NS[[node - 1 for node in path], number] = 1.0
    return edges_BN @ passes_NS


def edge_logprobs(
    model: torch.nn.Module,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    trie: TokenTrie,
    hidden_BTD: Tensor | None = None,
) -> Tensor:
    """Return [B, N]: log p(token of a node | prompt and its ancestors) for every node but the root, with its gradient.

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
    assert hidden_BTD is None or not inner, "the nodes would have to pass the frozen layers"
    num_rows, num_prompt = input_ids_BT.shape
    device = input_ids_BT.device
    # A node stands as far behind the prompt as its sequence is long there: siblings share a position.
    nodes_M = torch.tensor([trie.tokens[node] for node in inner], dtype=torch.long, device=device)
    depths_M = torch.tensor([len(trie.prefix(node)) for node in inner], dtype=torch.long, device=device)
    lengths_B1 = attention_mask_BT.sum(dim=1, keepdim=True)
    prompt_positions_BT = (attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    rows = Rows(
        input_ids=torch.cat([input_ids_BT, nodes_M.expand(num_rows, -1)], dim=1),
        is_token=pad(attention_mask_BT.bool(), (0, len(inner)), value=True),
        position_ids=torch.cat([prompt_positions_BT, lengths_B1 - 1 + depths_M], dim=1),
        sees=_see_ancestors(inner, trie, num_prompt, device) if inner else None,
        hidden_states=hidden_BTD,
        num_nodes=len(inner),
    )
    # At the last prompt token and at the inner nodes the tokens of the trie are predicted.
    wanted_BL = torch.zeros_like(rows.is_token)
    wanted_BL[:, num_prompt - 1 :] = True
    logits_BMV = row_logits(model, rows, wanted_BL).view(num_rows, 1 + len(inner), -1)
    # Slot of a node among the logits; the root is the end of the prompt.
    slots = {node: slot for slot, node in enumerate([0, *inner])}
    # Only the tokens of the trie are normalised: a log-softmax would hold the whole vocabulary a second time.
    parents_N = torch.tensor([slots[parent] for parent in trie.parents[1:]], device=device)
    tokens_N = torch.tensor(trie.tokens[1:], device=device)
    return logits_BMV[:, parents_N, tokens_N] - logits_BMV.logsumexp(dim=-1)[:, parents_N]


def _check_attention(model: torch.nn.Module, *, needs_mask: bool) -> None:
    kernel = getattr(model.config, "_attn_implementation", "sdpa")
    if needs_mask and kernel not in ("sdpa", "eager", PACKED):
        raise ValueError(
            f"base_model.attn_implementation must be {PACKED}, sdpa or eager for the likelihoods of targets of several "
            f"tokens, got {kernel!r}; target=token takes any"
        )


def _see_ancestors(inner: list[int], trie: TokenTrie, num_prompt: int, device: torch.device) -> Tensor:
    """Return [L, L], bool: which positions of a prompt and the inner nodes after it attend to which, padding apart."""
    num_all = num_prompt + len(inner)
    # Inside the prompt attention is causal, and every node attends to the whole prompt.
    sees_LL = torch.ones(num_all, num_all, dtype=torch.bool, device=device).tril()
    sees_LL[num_prompt:, num_prompt:] = False
    # A node attends to itself and its ancestors, not to the other sequences' nodes.
    slots = {node: num_prompt + number for number, node in enumerate(inner)}
    for node in inner:
        ancestor = node
        while ancestor:
            sees_LL[slots[node], slots[ancestor]] = True
            ancestor = trie.parents[ancestor]
    return sees_LL


Array = TypeVar("Array", Tensor, NDArray[np.float64])


def score_log_odds(logprobs_BS: Array, reference_offset: float) -> Array:
    """Return [B, C]: log p(target) - log p(end at once) - offset, which `per_candidate` trains to be score log-odds.

    The last of the S = C + 1 sequences is the reference, to end at once. It is outside the pool, so candidates do not
    compete with each other: all of them can be good.
    """
    log_odds_BC: Array = logprobs_BS[:, :-1] - logprobs_BS[:, -1:] - reference_offset
    return log_odds_BC
