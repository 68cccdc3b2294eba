"""Log-probabilities of whole sequences from those of next tokens: every inner node of their trie is asked for once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.trie import TokenTrie

NextLogprobs = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[NDArray[np.float64]]]
"""`Generator.next_logprobs`."""


def logprobs_by_node(
    next_logprobs: NextLogprobs, prompts: Sequence[Sequence[int]], trie: TokenTrie
) -> NDArray[np.float64]:
    """Return [number of prompts, number of sequences]: each sequence's log-probability after each prompt.

    The prefixes of a prompt follow one another, its own first, so that a backend's prefix cache holds what they share.
    """
    inner = [node for node, children in enumerate(trie.children) if children]
    following = [[trie.tokens[child] for child in trie.children[node]] for node in inner]
    prefixes = [[*prompt, *trie.prefix(node)] for prompt in prompts for node in inner]
    values = next_logprobs(prefixes, following * len(prompts))
    of_nodes = np.zeros((len(prompts), len(trie.tokens)))
    for number in range(len(prompts)):
        answers = values[number * len(inner) : (number + 1) * len(inner)]
        for node, answer in zip(inner, answers, strict=True):
            of_nodes[number, list(trie.children[node])] = answer
    return np.stack([of_nodes[:, list(path)].sum(axis=1) for path in trie.paths], axis=1)
