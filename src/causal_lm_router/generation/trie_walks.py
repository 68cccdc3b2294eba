"""Log-probabilities of whole sequences from those of next tokens: every inner node of their trie is asked for once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.prompting.token_trie import TokenTrie

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


def greedy_search(next_logprobs: NextLogprobs, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[int]:
    """Return for every prompt the number of the sequence that the greedy walk reaches.

    The base model is asked only where the trie branches, for all prompts of a round together. Of children that are
    equally likely the one with the lowest token id is taken, as greedy decoding does.
    """
    nodes = [_next_branching(trie, 0)] * len(prompts)
    while walking := [index for index, node in enumerate(nodes) if len(trie.members[node]) > 1]:
        prefixes = [[*prompts[index], *trie.prefix(nodes[index])] for index in walking]
        children = [sorted(trie.children[nodes[index]], key=lambda node: trie.tokens[node]) for index in walking]
        logprobs = next_logprobs(prefixes, [[trie.tokens[node] for node in row] for row in children])
        for index, row, values in zip(walking, children, logprobs, strict=True):
            nodes[index] = _next_branching(trie, row[int(values.argmax())])
    return [next(iter(trie.members[node])) for node in nodes]


def _next_branching(trie: TokenTrie, node: int) -> int:
    """Return the first node from here on that has several children, or the leaf."""
    while len(trie.children[node]) == 1:
        node = trie.children[node][0]
    return node
