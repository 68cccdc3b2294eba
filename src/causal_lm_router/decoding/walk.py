"""The greedy walk over a token trie: likeliest child at each branching, until one sequence is left."""

from collections.abc import Sequence

from causal_lm_router.generators.node_logprobs import NextLogprobs
from causal_lm_router.trie import TokenTrie


def walk_trie(next_logprobs: NextLogprobs, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[int]:
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
