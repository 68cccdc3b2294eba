"""Scored queries as vectors: the most similar ones to a query, and what the candidates scored on them.

Shape suffixes: N scored queries, D dimensions, C candidates, Q queries, K neighbours.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from causal_lm_router.data.arrays import Bools, Floats, Integers, matrix
from causal_lm_router.data.sources.rows import hash_query
from causal_lm_router.files.checksums import add_checksum, check_file, drop_checksum
from causal_lm_router.files.writing import write_bytes
from causal_lm_router.routing import RoutingExample

CHUNK = 256
"""Queries whose similarities are held at a time."""
SIMILARITY_DIGITS = 5
"""Decimals of a similarity that count: what lies behind them depends on the machine."""


class NearestScores(NamedTuple):
    """What candidates scored on the queries most similar to each of some queries."""

    scores: NDArray[np.float32]
    """[Q, C, K], the most similar first; NaN where a candidate has fewer."""
    means: Floats
    """[Q, C], on all queries whose score is known, however similar; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Queries with the scores of candidates, as many as are known.

    A query's own row is never among its neighbours, nor are the rows of its family and its group.
    """

    vectors: NDArray[np.float32]
    """[N, D], of unit length."""
    scores: NDArray[np.float32]
    """[N, C], NaN where a score is unknown."""
    keys: Integers
    """[N, 3]: hashes of a query's text, family and group; 0 for none."""

    @property
    def num_candidates(self) -> int:
        """C."""
        return int(self.scores.shape[1])

    @functools.cached_property
    def best_first(self) -> tuple[int, ...]:
        """Columns of the candidates in the order of their mean score, ties in the order of the columns."""
        means = np.nanmean(self.scores, axis=0, dtype=np.float64)
        return tuple(map(int, np.argsort(-means, kind="stable")))

    @functools.cached_property
    def content_hash(self) -> str:
        """Hash of everything that neighbours depend on."""
        digest = hashlib.sha256()
        for part in (self.vectors, self.scores, self.keys):
            digest.update(f"{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def find_rows(self, queries: Sequence[str]) -> list[int | None]:
        """Return the row of each query, up to case and white space; None where there is none."""
        return [self._rows.get(_hash_text(query)) for query in queries]

    @functools.cached_property
    def _rows(self) -> dict[int, int]:
        # Of rows with the same text the first: those that were added later know no family.
        return {int(key): row for row, key in reversed(list(enumerate(self.keys[:, 0])))}

    def nearest(self, queries: Sequence[str], query_vectors: NDArray[np.float32], num: int) -> NearestScores:
        """Return what every candidate scored on the `num` most similar queries that its score is known of."""
        # A query that is itself a row has the row's family and group; of another one the text alone is known.
        rows = self.find_rows(queries)
        unknown = np.zeros(3, dtype=np.int64)
        query_keys = np.stack([unknown if row is None else self.keys[row] for row in rows])
        nearest_scores = np.full((len(queries), self.num_candidates, num), np.nan, dtype=np.float32)
        means = np.empty((len(queries), self.num_candidates))
        for start in range(0, len(queries), CHUNK):
            part = slice(start, start + CHUNK)
            excluded = _share_a_key(query_keys[part], self.keys)
            similarity = np.round(query_vectors[part] @ self.vectors.T, SIMILARITY_DIGITS)
            similarity[excluded] = -np.inf
            self._fill(nearest_scores[part], similarity)
            means[part] = self._means(~excluded)
        return NearestScores(nearest_scores, means)

    def _fill(self, nearest_scores: NDArray[np.float32], similarity: NDArray[np.float32]) -> None:
        """Write the scores on the nearest rows; rows of similarity minus infinity are left out."""
        num = nearest_scores.shape[2]
        for is_known, columns in self._by_known:
            known = np.flatnonzero(is_known)
            order = np.argsort(-similarity[:, known], axis=1, kind="stable")[:, :num]
            nearest = known[order]
            values = self.scores[nearest][:, :, columns]
            values[np.isneginf(np.take_along_axis(similarity, nearest, axis=1))] = np.nan
            nearest_scores[:, columns, : nearest.shape[1]] = values.transpose(0, 2, 1)

    @functools.cached_property
    def _by_known(self) -> list[tuple[Bools, Integers]]:
        """Candidates whose scores are known of the same queries have the same neighbours: these queries, columns."""
        masks, numbers = np.unique(~np.isnan(self.scores), axis=1, return_inverse=True)
        return [(masks[:, number], np.flatnonzero(numbers.ravel() == number)) for number in range(masks.shape[1])]

    def _means(self, counted: Bools) -> Floats:
        known = ~np.isnan(self.scores)
        counts = counted.astype(np.float64)
        with np.errstate(invalid="ignore"):
            means: Floats = (counts @ np.nan_to_num(self.scores.astype(np.float64))) / (counts @ known)
        return means

    def with_candidate(
        self, queries: Sequence[str], query_vectors: NDArray[np.float32], scores: Sequence[float]
    ) -> "ScoredQueries":
        """Return these and further queries that one more candidate, the last column, has scores on."""
        old, new = self.scores, np.asarray(scores, dtype=np.float32)[:, None]
        others = np.full((len(queries), self.num_candidates), np.nan, dtype=np.float32)
        unknown = np.full((len(old), 1), np.nan, dtype=np.float32)
        keys = np.zeros((len(queries), 3), dtype=np.int64)
        keys[:, 0] = [_hash_text(query) for query in queries]
        return ScoredQueries(
            vectors=np.concatenate([self.vectors, query_vectors]),
            scores=np.block([[old, unknown], [others, new]]),
            keys=np.concatenate([self.keys, keys]),
        )

    def with_known(self, column: int, rows: Sequence[int]) -> "ScoredQueries":
        """Return the same with the scores of one candidate known of these rows alone."""
        scores = self.scores.copy()
        scores[:, column] = np.nan
        scores[list(rows), column] = self.scores[list(rows), column]
        return replace(self, scores=scores)

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all, and its checksum."""
        drop_checksum(path)
        write_bytes(path, save({"vectors": self.vectors, "scores": self.scores, "keys": self.keys}))
        add_checksum(path)


def read_scored_queries(path: Path) -> ScoredQueries:
    """Return what `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or is not such a file.
    """
    check_file(path)
    try:
        stored = load(path.read_bytes())
        return ScoredQueries(stored["vectors"], stored["scores"], stored["keys"])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: must hold vectors, scores and keys, got {error}; restore it from a copy") from error


def score_queries(
    examples: Sequence[RoutingExample], candidate_names: Sequence[str], vectors: NDArray[np.float32]
) -> ScoredQueries:
    """Return examples as scored queries; all their scores are known."""
    keys = [
        (_hash_text(one.query), _hash_name("family", one.family), _hash_name("group", one.group)) for one in examples
    ]
    scores = matrix([one.scores for one in examples], candidate_names)
    return ScoredQueries(vectors, scores.astype(np.float32), np.array(keys, dtype=np.int64))


def _share_a_key(query_keys: Integers, keys: Integers) -> Bools:
    """Return [Q, N]: whether two queries have the same text, family or group."""
    shares: Bools = np.zeros((len(query_keys), len(keys)), dtype=np.bool_)
    for column in range(keys.shape[1]):
        own = query_keys[:, column, None]
        shares |= (own == keys[:, column]) & (own != 0)
    return shares


def _hash_text(query: str) -> int:
    return _as_integer(hash_query(query))


def _hash_name(kind: str, name: str | None) -> int:
    if name is None:
        return 0
    return _as_integer(hashlib.blake2b(f"{kind} {name}".encode(errors="surrogatepass"), digest_size=8).hexdigest())


def _as_integer(digits: str) -> int:
    # 63 bits, which an int64 holds.
    return int(digits, 16) >> 1
