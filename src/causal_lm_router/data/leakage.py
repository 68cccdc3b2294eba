"""The leakage audit: how many held-out queries also are, exactly or nearly, among the training queries.

Near-duplicates are pairs of queries whose sets of character 5-grams (after normalising case and white space) have a
Jaccard similarity of at least `data.near_duplicate_threshold`. MinHash (Broder 1997) with locality-sensitive hashing
proposes pairs, and the exact similarity decides. So no pair is reported by mistake. A pair at the threshold (of 0.1 or
more) is proposed with a probability of at least `MIN_RECALL`, a more similar one with a higher probability; of the
pairs proposed for a query, the `MAX_VERIFIED` with the most similar signatures are checked.
"""

import dataclasses
import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from causal_lm_router.data.arrays import Integers
from causal_lm_router.routing import RoutingExample
from causal_lm_router.terminal import progress_bar

Signatures = NDArray[np.uint32]

SHINGLE_CHARS = 5
NUM_PERM = 64
"""Hash functions of a MinHash signature."""
MIN_RECALL = 0.99
"""Least probability with which a pair at the threshold is proposed."""
MAX_CHECKED = 10_000
"""Held-out queries of a split that are compared with the training queries; bounds memory on large data."""
MAX_VERIFIED = 30
"""Training queries per held-out query whose exact similarity is computed: those with the most similar signatures."""
NUM_EXAMPLES = 5
"""Near-duplicates of a split that the audit shows."""
EXCERPT_CHARS = 80
"""Characters shown of each of their queries."""
SHINGLES_PER_UPDATE = 20_000
"""Shingles hashed at once; bounds memory for a long query."""


@dataclass(frozen=True, slots=True)
class DuplicateCounts:
    """Numbers of queries left out because an earlier one is the same.

    `exact` ones are equal in every character, `normalised` ones only up to case and white space. `conflicting` counts
    those of both kinds whose scores differ from the scores of the query that was kept.
    """

    exact: int
    normalised: int
    conflicting: int


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A held-out query, a similar training query, their Jaccard similarity, and the beginnings of both."""

    split: str
    query_id: str
    train_query_id: str
    similarity: float
    query: str
    train_query: str


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """How many of a split's `num_checked` queries have a near-duplicate in train; `examples` are the most similar."""

    num_checked: int
    num_found: int
    examples: tuple[NearDuplicate, ...]


@dataclass(frozen=True, slots=True)
class LeakageAudit:
    """The duplicates found within the data and between its splits."""

    num_read: int
    """Queries the source yielded."""
    num_distinct: int
    """Queries left after deduplication."""
    exact_duplicates: int
    normalised_duplicates: int
    conflicting_duplicates: int
    source_test_in_train: int | None
    """Distinct queries of the source's own test split that are also in its train split; None if it has no splits."""
    near_duplicate_threshold: float
    validation: NearDuplicates
    test: NearDuplicates

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain dictionaries, lists, numbers and texts, for JSON."""
        audit = dataclasses.asdict(self)
        for split in ("validation", "test"):
            audit[split]["examples"] = list(audit[split]["examples"])
        return audit


def find_near_duplicates(
    held_out: Mapping[str, Sequence[RoutingExample]], train: Iterable[RoutingExample], threshold: float
) -> dict[str, NearDuplicates]:
    """Return for each split of `held_out` (name -> queries) how many of its queries have a near-duplicate in `train`.

    Of a split with more than `MAX_CHECKED` queries, only that many, evenly spread, are checked.
    """
    # All splits go through one index, so the training queries are hashed once.
    checked = [(split, example) for split, examples in held_out.items() for example in _spread(examples)]
    proposals = _propose_pairs([example for _, example in checked], train, threshold)
    found: dict[str, list[NearDuplicate]] = {split: [] for split in held_out}
    for (split, example), proposed in zip(checked, proposals, strict=True):
        pair = _verify_pair(split, example, proposed, threshold)
        if pair is not None:
            found[split].append(pair)
    num_checked = Counter(split for split, _ in checked)
    return {
        split: NearDuplicates(num_checked[split], len(pairs), _pick_closest(pairs)) for split, pairs in found.items()
    }


def _spread(examples: Sequence[RoutingExample]) -> list[RoutingExample]:
    # Evenly spread, since sources list their queries task by task.
    num = min(len(examples), MAX_CHECKED)
    return [examples[index * len(examples) // num] for index in range(num)]


def _pick_closest(pairs: Iterable[NearDuplicate]) -> tuple[NearDuplicate, ...]:
    return tuple(sorted(pairs, key=lambda pair: (-pair.similarity, pair.query_id))[:NUM_EXAMPLES])


def _verify_pair(
    split: str, example: RoutingExample, proposed: Iterable[RoutingExample], threshold: float
) -> NearDuplicate | None:
    """Return the first proposed pair whose exact similarity reaches the threshold."""
    shingles = _cut_shingles(example.query)
    for other in proposed:
        similarity = _jaccard(shingles, _cut_shingles(other.query))
        if similarity >= threshold:
            query, train_query = (" ".join(one.query.split())[:EXCERPT_CHARS] for one in (example, other))
            return NearDuplicate(split, example.query_id, other.query_id, round(similarity, 4), query, train_query)
    return None


def _propose_pairs(
    held_out: Sequence[RoutingExample], train: Iterable[RoutingExample], threshold: float
) -> list[list[RoutingExample]]:
    """Return for each held-out query the training queries proposed for it, the most similar signatures first.

    Only the held-out queries are indexed, and the training queries are read once: memory does not grow with them.
    """
    if not held_out:
        return []
    # 1. Index the held-out queries: signatures that agree in a whole band fall into one bucket.
    signatures = np.array([signature for _, signature in _hash_shingles(held_out)])
    index = _BandIndex(signatures, *_choose_banding(threshold))
    # 2. Look up every training query. A heap of (equal hashes, -training query's number, training query) keeps the most
    # similar ones of each held-out query, with the least similar on top; of equals the earlier training query wins.
    heaps: list[list[tuple[int, int, RoutingExample]]] = [[] for _ in held_out]
    # Equal hashes that are not enough for a heap. Queries of one template meet in their thousands, and few of them
    # count: the others must cost no Python each.
    too_few = np.full(len(held_out), -1)
    for train_number, (example, signature) in enumerate(_hash_shingles(train)):
        proposed = index.find(signature)
        # The share of equal hashes estimates the Jaccard similarity.
        num_equal = (signatures[proposed] == signature).sum(axis=1)
        counts = num_equal > too_few[proposed]
        for number, equal in zip(proposed[counts].tolist(), num_equal[counts].tolist(), strict=True):
            heap, entry = heaps[number], (equal, -train_number, example)
            if len(heap) < MAX_VERIFIED:
                heapq.heappush(heap, entry)
            else:
                heapq.heapreplace(heap, entry)
            if len(heap) == MAX_VERIFIED:
                too_few[number] = heap[0][0]
    # 3. Most similar first. Only the numbers are compared, as examples have no order.
    return [[example for _, _, example in sorted(heap, key=lambda entry: entry[:2], reverse=True)] for heap in heaps]


class _BandIndex:
    """Finds the signatures that agree with a given one in a whole band."""

    def __init__(self, signatures: Signatures, num_bands: int, num_rows: int) -> None:
        starts = range(0, num_bands * num_rows, num_rows)
        self._bands = [slice(start, start + num_rows) for start in starts]
        self._buckets: list[dict[bytes, Integers]] = []
        for band in self._bands:
            buckets: dict[bytes, list[int]] = defaultdict(list)
            for number, signature in enumerate(signatures):
                buckets[signature[band].tobytes()].append(number)
            self._buckets.append({key: np.array(numbers) for key, numbers in buckets.items()})

    def find(self, signature: Signatures) -> Integers:
        """Return the numbers of the signatures that agree with this one in a band, in their order."""
        none = np.empty(0, dtype=np.int64)
        keys = (signature[band].tobytes() for band in self._bands)
        found = [buckets.get(key, none) for buckets, key in zip(self._buckets, keys, strict=True)]
        return np.unique(np.concatenate(found))


def _choose_banding(threshold: float) -> tuple[int, int]:
    """Return (bands, rows): the most selective ones that propose a pair at the threshold with probability `MIN_RECALL`.

    Signatures of similarity s agree in one band of r rows with probability s^r, so in one of b bands with probability
    1 - (1 - s^r)^b.
    """
    # More rows in a band propose fewer pairs by chance, so the search starts with the most.
    for rows in range(NUM_PERM // 2, 1, -1):
        bands = NUM_PERM // rows
        if 1 - (1 - threshold**rows) ** bands >= MIN_RECALL:
            return bands, rows
    return NUM_PERM, 1


def _hash_shingles(examples: Iterable[RoutingExample]) -> Iterator[tuple[RoutingExample, Signatures]]:
    """Yield every example with its signature of `NUM_PERM` hashes."""
    # The permutations are drawn once, with datasketch's fixed seed; a copy shares them.
    empty = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32)
    for example in progress_bar(examples, name="looking for near-duplicates", unit="queries"):
        min_hash = empty.copy()
        shingles = [shingle.encode() for shingle in _cut_shingles(example.query)]
        # In pieces, since datasketch makes an array of `NUM_PERM` numbers per shingle.
        for start in range(0, len(shingles), SHINGLES_PER_UPDATE):
            min_hash.update_batch(shingles[start : start + SHINGLES_PER_UPDATE])
        # Hashes have 32 bits; datasketch keeps them in 64.
        yield example, min_hash.hashvalues.astype(np.uint32)


def _cut_shingles(query: str) -> set[str]:
    text = " ".join(query.casefold().split())
    # A text shorter than a shingle is one shingle itself: an empty set has no similarity.
    return {text[start : start + SHINGLE_CHARS] for start in range(max(1, len(text) - SHINGLE_CHARS + 1))}


def _jaccard(first: set[str], second: set[str]) -> float:
    num_shared = len(first & second)
    return num_shared / (len(first) + len(second) - num_shared)
