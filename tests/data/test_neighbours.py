"""Scored queries: who is near, who may not be, what is unknown, and what a file brings back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from causal_lm_router.data.neighbours import ScoredQueries, read_scored_queries, score_queries
from causal_lm_router.routing import RoutingExample

NAMES = ["alpha", "beta"]
# Angles on a circle, in degrees: what is closer is more similar.
ANGLES = {"at 0": 0, "at 10": 10, "at 20": 20, "at 90": 90}
SCORES = {"at 0": (1.0, 0.0), "at 10": (0.5, 0.25), "at 20": (0.0, 1.0), "at 90": (0.25, 0.75)}


def embed(texts: list[str]) -> np.ndarray:
    angles = np.deg2rad([float(text.split()[-1]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def example(query: str, **fields: str) -> RoutingExample:
    return RoutingExample(query, query, "task", dict(zip(NAMES, SCORES[query], strict=True)), **fields)


def scored(**fields: dict[str, str]) -> ScoredQueries:
    examples = [example(query, **fields.get(query.replace(" ", "_"), {})) for query in ANGLES]
    return score_queries(examples, NAMES, embed(list(ANGLES)))


def nearest(neighbours: ScoredQueries, query: str, num: int) -> list[list[float | None]]:
    """Of each candidate the scores on the nearest queries; None where there are fewer."""
    found = neighbours.nearest([query], embed([query]), num).scores[0]
    return [[None if np.isnan(score) else float(score) for score in row] for row in found]


def test_the_most_similar_come_first() -> None:
    assert nearest(scored(), "at 12", 3) == [[0.5, 0.0, 1.0], [0.25, 1.0, 0.0]]
    assert scored().nearest(["at 12"], embed(["at 12"]), 1).means.tolist() == [[0.4375, 0.5]]


@pytest.mark.parametrize("query", ["at 10", "AT   10"])
def test_a_querys_own_row_is_no_neighbour(query: str) -> None:
    assert nearest(scored(), query, 4) == [[1.0, 0.0, 0.25, None], [0.0, 1.0, 0.75, None]]
    means = scored().nearest([query], embed([query]), 1).means[0]
    assert means == pytest.approx([1.25 / 3, 1.75 / 3])


@pytest.mark.parametrize("kind", ["family", "group"])
def test_family_and_group_are_no_neighbours(kind: str) -> None:
    related = scored(at_10={kind: "x"}, at_0={kind: "x"}, at_90={kind: "y"})
    assert nearest(related, "at 10", 3) == [[0.0, 0.25, None], [1.0, 0.75, None]]
    # A new query has no family that is known.
    assert nearest(related, "at 11", 1) == [[0.5], [0.25]]


def test_one_name_for_a_family_and_a_group_is_not_the_same() -> None:
    related = scored(at_10={"family": "x"}, at_0={"group": "x"})
    assert nearest(related, "at 10", 1) == [[1.0], [0.0]]


def test_candidates_have_the_neighbours_that_they_have_scores_on() -> None:
    partly = scored().with_known(1, [2, 3])
    assert nearest(partly, "at 0.5", 3) == [[1.0, 0.5, 0.0], [1.0, 0.75, None]]
    assert partly.nearest(["at 1"], embed(["at 1"]), 1).means[0] == pytest.approx([0.4375, 0.875])
    assert partly.best_first == (1, 0)


def test_all_that_a_candidate_has_may_be_the_query_itself() -> None:
    only = scored().with_known(1, [1])
    assert nearest(only, "at 10", 2)[1] == [None, None]
    assert np.isnan(only.nearest(["at 10"], embed(["at 10"]), 1).means[0, 1])


def test_an_added_candidate_brings_queries_of_its_own() -> None:
    added = scored().with_candidate(["at 11", "at 50"], embed(["at 11", "at 50"]), [0.9, 0.1])
    assert added.num_candidates == 3
    assert nearest(added, "at 12", 2) == [[0.5, 0.0], [0.25, 1.0], pytest.approx([0.9, 0.1])]
    assert nearest(added, "at 11", 2)[2] == [pytest.approx(0.1), None]


def test_many_queries_are_looked_up_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.integers(0, 2, size=(700, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = np.nan
    many = ScoredQueries(vectors, scores, np.zeros((700, 3), dtype=np.int64))
    asked = rng.normal(size=(600, 8)).astype(np.float32)
    found = many.nearest([str(number) for number in range(600)], asked, 5)
    for query in (0, 255, 256, 599):
        similarity = np.round(asked[query : query + 1] @ vectors.T, 5)[0]
        for column in range(3):
            order = sorted(np.flatnonzero(~np.isnan(scores[:, column])), key=lambda row: (-similarity[row], row))
            assert found.scores[query, column].tolist() == scores[order[:5], column].tolist()
            assert found.means[query, column] == pytest.approx(np.nanmean(scores[:, column]))


def test_a_file_brings_all_back(tmp_path: Path) -> None:
    before = scored(at_10={"family": "x"}).with_known(0, [1, 2])
    path = tmp_path / "neighbours.safetensors"
    before.write(path)
    after = read_scored_queries(path)
    assert after.content_hash == before.content_hash
    assert replace(after, keys=after.keys + 1).content_hash != before.content_hash
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="damaged"):
        read_scored_queries(path)
    (tmp_path / "checksums.txt").unlink()
    path.write_bytes(b"no such file")
    with pytest.raises(ValueError, match="must hold vectors, scores and keys"):
        read_scored_queries(path)
