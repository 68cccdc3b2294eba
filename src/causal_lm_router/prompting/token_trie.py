"""The token trie of a pool's targets: the tokens that can follow each other, and the targets that are left."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TokenTrie:
    """Several token sequences as one tree.

    Node 0 is the root: the end of the prompt. Every other node stands for one token after its parent's; nodes are
    numbered so that a parent comes before its children. No sequence may be the beginning of another (an end token after
    each prevents that) and none may be given twice.

    Raises:
        ValueError: a sequence is empty, given twice, or the beginning of another.
    """

    sequences: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...] = field(init=False)
    """Token of every node; -1 at the root."""
    parents: tuple[int, ...] = field(init=False)
    """Parent of every node; -1 at the root."""
    paths: tuple[tuple[int, ...], ...] = field(init=False)
    """For every sequence the nodes along it, without the root."""
    children: tuple[tuple[int, ...], ...] = field(init=False)
    """Children of every node."""
    members: tuple[frozenset[int], ...] = field(init=False)
    """For every node the numbers of the sequences that pass it."""

    def __post_init__(self) -> None:
        tokens, parents, paths = [-1], [-1], []
        # (parent, token) -> node: sequences that begin alike share their first nodes.
        found: dict[tuple[int, int], int] = {}
        for sequence in self.sequences:
            node, path = 0, []
            for token in sequence:
                child = found.setdefault((node, token), len(tokens))
                # The number that a new node gets.
                if child == len(tokens):
                    tokens.append(token)
                    parents.append(node)
                node = child
                path.append(node)
            paths.append(tuple(path))
        # What follows from the parents and paths: children of nodes, and sequences through them.
        children: list[list[int]] = [[] for _ in tokens]
        for node, parent in enumerate(parents[1:], start=1):
            children[parent].append(node)
        members: list[set[int]] = [set() for _ in tokens]
        for number, path_nodes in enumerate(paths):
            for node in (0, *path_nodes):
                members[node].add(number)
        # Two equal sequences end at the same node.
        if not all(paths) or not paths or len({path[-1] for path in paths}) < len(paths):
            raise ValueError(f"targets: token sequences {self.sequences} are empty, or two are the same")
        # A sequence that another one continues does not end at a leaf.
        if any(children[path[-1]] for path in paths):
            raise ValueError(f"targets: of the token sequences {self.sequences} one is the beginning of another")
        # A frozen dataclass lets itself be filled in this way alone.
        found_values: dict[str, Iterable[object]] = {"tokens": tokens, "parents": parents, "paths": paths}
        found_values |= {"children": map(tuple, children), "members": map(frozenset, members)}
        for name, values in found_values.items():
            object.__setattr__(self, name, tuple(values))

    def prefix(self, node: int) -> list[int]:
        """Return the tokens from the root to a node, the node's own included; none at the root."""
        tokens = []
        while node:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]


def make_trie(sequences: Sequence[Sequence[int]]) -> TokenTrie:
    """Return the trie of token sequences.

    Raises:
        ValueError: one is empty, given twice, or the beginning of another.
    """
    return TokenTrie(tuple(tuple(sequence) for sequence in sequences))


def cut_when_decided(trie: TokenTrie) -> TokenTrie:
    """Return the trie whose sequences end with the token that leaves no other of them; they keep their numbers."""
    # Along a path from some node on no other sequence passes: a leaf has one member.
    depths = [1 + [len(trie.members[node]) for node in path].index(1) for path in trie.paths]
    return make_trie([sequence[:depth] for sequence, depth in zip(trie.sequences, depths, strict=True)])


def reference_trie(target_ids: Sequence[Sequence[int]], end_id: int) -> TokenTrie:
    """Return the trie of the targets and, as the last sequence, of ending at once: the end token alone."""
    return make_trie([*target_ids, [end_id]])
