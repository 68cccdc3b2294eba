"""Walks through a trie of sequences, for backends that give the log-probabilities of next tokens.

`logprobs_by_node` asks for every inner node once and returns the log-probability of every sequence; `greedy_search`
asks only for the nodes on its way and returns the sequence that it reaches; `greedy_path` has them all and asks nobody.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from causal_lm_router.prompting.token_trie import TokenTrie

NextLogprobs = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[NDArray[np.float64]]]
"""The type of `Generator.next_logprobs`."""


def logprobs_by_node(
    next_logprobs: NextLogprobs, prompts: Sequence[Sequence[int]], trie: TokenTrie
) -> NDArray[np.float64]:
    """Return [number of prompts, number of sequences]: each sequence's log-probability after each prompt.

    The prefixes of one prompt are adjacent, the shortest first, so that a backend's prefix cache has their shared part.
    """
    # 1. Ask for the children of every inner node, after every prompt.
    inner = [node for node, children in enumerate(trie.children) if children]
    following = [[trie.tokens[child] for child in trie.children[node]] for node in inner]
    prefixes = [[*prompt, *trie.prefix(node)] for prompt in prompts for node in inner]
    values = next_logprobs(prefixes, following * len(prompts))
    # 2. The answers become a table of prompts x nodes: each node's log-probability given its parent.
    by_node = np.zeros((len(prompts), len(trie.tokens)))
    for number in range(len(prompts)):
        answers = values[number * len(inner) : (number + 1) * len(inner)]
        for node, answer in zip(inner, answers, strict=True):
            by_node[number, list(trie.children[node])] = answer
    # 3. A sequence's log-probability is the sum along its path.
    return np.stack([by_node[:, list(path)].sum(axis=1) for path in trie.paths], axis=1)


def greedy_search(next_logprobs: NextLogprobs, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[int]:
    """Return for every prompt the number of the sequence that greedy search reaches.

    The base model is asked only where the trie branches, for all prompts of a round together. Of equally likely
    children the one with the lowest token id is taken, as greedy decoding does.
    """
    nodes = [_skip_to_branching(trie, 0)] * len(prompts)
    # A round per branching level; prompts whose node leads to a single sequence are done.
    while walking := [index for index, node in enumerate(nodes) if len(trie.members[node]) > 1]:
        prefixes = [[*prompts[index], *trie.prefix(nodes[index])] for index in walking]
        # Sorted by token id, since `argmax` takes the first of equals.
        children = [sorted(trie.children[nodes[index]], key=lambda node: trie.tokens[node]) for index in walking]
        logprobs = next_logprobs(prefixes, [[trie.tokens[node] for node in row] for row in children])
        for index, row, values in zip(walking, children, logprobs, strict=True):
            nodes[index] = _skip_to_branching(trie, row[int(values.argmax())])
    return [next(iter(trie.members[node])) for node in nodes]


def greedy_path(edge_logprobs: NDArray[np.float64], trie: TokenTrie) -> tuple[list[int], list[float]]:
    """Return the likeliest token at every step from the root to a leaf, and its log-probability among its siblings.

    `edge_logprobs` are those of all nodes but the root, each given its ancestors. Of equally likely children the one
    with the lowest token id is taken.
    """
    node, ids, logprobs = 0, [], []
    while trie.children[node]:
        children = sorted(trie.children[node], key=lambda child: trie.tokens[child])
        values = edge_logprobs[[child - 1 for child in children]]
        best = int(values.argmax())
        node = children[best]
        ids.append(trie.tokens[node])
        logprobs.append(float(values[best] - logsumexp(values)))
    return ids, logprobs


def _skip_to_branching(trie: TokenTrie, node: int) -> int:
    """Return the first node from here on that has several children, or the leaf."""
    while len(trie.children[node]) == 1:
        node = trie.children[node][0]
    return node
