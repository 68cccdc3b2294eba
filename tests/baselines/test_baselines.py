"""Baselines: every method against values by hand or by another way, and what it may not look at."""

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from causal_lm_router.baselines import fit_baseline
from causal_lm_router.baselines.elo import fit_similar, mean_elo_chances
from causal_lm_router.baselines.matrix_factorisation import Factors, fit_factors
from causal_lm_router.baselines.pairwise import mean_win_chances, pair_wins
from causal_lm_router.config import BaselineConfig, BaselineMethod, BaselineRunConfig, TieBreak
from causal_lm_router.config.compose import compose_config
from causal_lm_router.data.labels import choose_labels
from causal_lm_router.models import embeddings
from causal_lm_router.models.embeddings import Embedder
from causal_lm_router.routing import Candidate, RoutingExample

NAMES = ("large", "small", "tiny")
POOL = tuple(Candidate(name, size=size) for name, size in zip(NAMES, (70.0, 7.0, 7.0), strict=True))
PRICED = (
    Candidate("large", 2.0, 8.0, size=70.0),
    Candidate("small", 0.2, 0.8, size=7.0),
    Candidate("tiny", 0.3, 0.7, size=7.0),
)
ORACLES = {"oracle", "cheapest_oracle"}
PROMPTING = {"zero_shot", "few_shot"}
FITTED = [method.value for method in BaselineMethod if method not in (*PROMPTING, BaselineMethod.own)]
QUICK = [method for method in FITTED if method != "encoder_classifier"]


@functools.cache
def shipped_settings(method: str) -> BaselineConfig:
    composed = compose_config([f"baseline={method}", "data=simulated", "run_dir=x"], "baseline")
    assert isinstance(composed, BaselineRunConfig)
    return composed.baseline


def make_settings(method: str, **changes: Any) -> BaselineConfig:
    """The shipped settings of a method, with 3 neighbours, and with those changes that it has a key for."""
    settings = shipped_settings(method)
    return replace(settings, **{key: value for key, value in ({"k": 3} | changes).items() if hasattr(settings, key)})


def example(
    query_id: str, *scores: float, costs: Sequence[float] | None = None, task: str = "t", query: str = ""
) -> RoutingExample:
    by_name = None if costs is None else dict(zip(NAMES, costs, strict=False))
    return RoutingExample(query_id, query or f"query {query_id}", task, dict(zip(NAMES, scores, strict=False)), by_name)


def no_vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    raise AssertionError("needs no embeddings")


def look_up(vectors: dict[str, Sequence[float]]) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    return lambda texts: np.array([vectors[text] for text in texts], dtype=np.float64)


def text_vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    """Vectors that depend on the text alone."""
    return np.stack([np.random.default_rng(list(text.encode())).normal(size=6) for text in texts])


def predict(
    method: str,
    train: Sequence[RoutingExample],
    examples: Sequence[RoutingExample],
    embed: Callable[[Sequence[str]], NDArray[np.float64]] = no_vectors,
    pool: Sequence[Candidate] = POOL,
    seed: int = 0,
    **changes: Any,
) -> NDArray[np.float64]:
    labels = choose_labels(train, TieBreak("best_on_train"), pool, train, seed=0)
    return fit_baseline(make_settings(method, **changes), train, pool, labels, seed, embed)(examples)


@pytest.fixture(scope="module")
def table() -> tuple[list[RoutingExample], list[RoutingExample]]:
    """Queries to learn from and queries to route, with costs, of two tasks."""
    draw = np.random.default_rng(5)
    rows = [
        example(
            str(index), *draw.integers(0, 5, 3) / 4, costs=draw.uniform(0.1, 1, 3).tolist(), task="ab"[int(index) % 2]
        )
        for index in range(60)
    ]
    return rows[:40], rows[40:]


# --- rules


def test_random_draws_every_candidate_alike() -> None:
    rows = [example(str(index), 1, 1, 1) for index in range(3000)]
    predicted = predict("random", rows[:1], rows)
    assert set(map(tuple, predicted.tolist())) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    # 1,000 expected, standard deviation 26
    assert all(abs(count - 1000) < 110 for count in predicted.sum(axis=0))
    assert np.array_equal(predict("random", rows[:1], rows[::-1]), predicted[::-1]), "neither order nor number matter"
    assert not np.array_equal(predict("random", rows[:1], rows, seed=1), predicted)


def test_random_knows_nothing_of_random_labels() -> None:
    rows = [example(str(index), 1, 1, 1) for index in range(3000)]
    labels = choose_labels(rows, TieBreak("random"), POOL, rows, seed=0)
    routes = predict("random", rows[:1], rows).argmax(axis=1)
    agreed = sum(labels[row.query_id] == NAMES[route] for row, route in zip(rows, routes, strict=True))
    assert abs(agreed - 1000) < 110


@pytest.mark.slow
def test_cheapest_and_most_expensive_go_by_mean_train_cost() -> None:
    # means 0.3, 0.2, 0.4
    train = [example("1", 1, 1, 1, costs=(0.1, 0.3, 0.4)), example("2", 1, 1, 1, costs=(0.5, 0.1, 0.4))]
    there = [example("3", 1, 1, 1, costs=(0.0, 9.0, 0.0)), example("4", 1, 1, 1)]
    assert predict("cheapest", train, there, pool=PRICED).tolist() == [[0, 1, 0]] * 2
    assert predict("most_expensive", train, there, pool=PRICED).tolist() == [[0, 0, 1]] * 2


def test_cheapest_goes_by_prices_where_costs_are_unknown() -> None:
    train = [example("1", 1, 1, 1, costs=(0.1, 0.3, 0.4)), example("2", 1, 1, 1)]
    # 10.0, 1.0 and 1.0 USD: a tie, left to the order on train
    assert predict("cheapest", train, train, pool=PRICED).tolist() == [[0, 1, 1]] * 2
    assert predict("most_expensive", train, train, pool=PRICED).tolist() == [[1, 0, 0]] * 2


@pytest.mark.parametrize("method", ["cheapest", "most_expensive", "cheapest_oracle"])
def test_costs_have_to_be_known(method: str) -> None:
    rows = [example("1", 1, 1, 1, costs=(0.1, 0.3, 0.4)), example("2", 1, 1, 1)]
    with pytest.raises(ValueError, match=rf"baseline\.method .*got '{method}': 1 of 2 queries have none"):
        predict(method, rows, rows)


def test_best_single_is_the_highest_mean_on_train() -> None:
    train = [example("1", 0.2, 0.5, 0.9), example("2", 0.3, 0.6, 0.4)]
    assert predict("best_single", train, [example("3", 1, 0, 0)]).tolist() == [[0.25, 0.55, 0.65]]


def test_per_task_best_goes_by_the_task_and_by_all_of_train_for_a_new_one() -> None:
    train = [
        example("1", 1, 0, 0, task="maths"),
        example("2", 0, 0, 1, task="law"),
        example("3", 0, 1, 1, task="law"),
    ]
    there = [example("4", 0, 0, 0, task=task) for task in ("law", "maths", "cooking")]
    expected = [[0, 0.5, 1], [1, 0, 0], [1 / 3, 1 / 3, 2 / 3]]
    assert predict("per_task_best", train, there) == pytest.approx(np.array(expected))


def test_majority_label_is_the_share_of_labels() -> None:
    train = [example("1", 1, 0, 0), example("2", 0, 0.1, 0), example("3", 0, 0.9, 0.8), example("4", 0, 0.3, 0.1)]
    assert predict("majority_label", train, train[:2]).tolist() == [[0.25, 0.75, 0]] * 2


# --- oracles


def test_oracle_keeps_ties_and_the_cheapest_oracle_ends_them_by_cost() -> None:
    rows = [
        example("1", 0.5, 0.5, 0, costs=(0.3, 0.2, 0.1)),
        example("2", 0, 0.2, 1, costs=(0.3, 0.2, 0.9)),
        example("3", 1, 1, 1, costs=(0.1, 0.1, 0.2)),
    ]
    assert predict("oracle", rows, rows).tolist() == [[0.5, 0.5, 0], [0, 0.2, 1], [1, 1, 1]]
    assert predict("cheapest_oracle", rows, rows).tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]


# --- nearest neighbours


@pytest.mark.slow
def test_neighbours_by_hand() -> None:
    train = [
        example("1", 1.0, 0.0, 0.5, query="east"),
        example("2", 0.5, 0.0, 1.0, query="east by north"),
        example("3", 0.0, 1.0, 0.0, query="west"),
    ]
    # Lengths do not matter: the angle does.
    embed = look_up({"east": (9, 0), "east by north": (3, 1), "west": (-1, 0), "here": (0.2, 0.1)})
    there = [example("4", 0, 0, 0, query="here")]
    assert predict("knn_regression", train, there, embed, k=2).tolist() == [[0.75, 0, 0.75]]
    assert predict("knn_vote", train, there, embed, k=2).tolist() == [[0.5, 0, 0.5]]
    assert predict("knn_vote", train, there, embed, k=1).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("k", [1, 7, 40])
def test_neighbours_are_those_of_a_plain_search(k: int, table: tuple[list[RoutingExample], ...]) -> None:
    train, there = table
    labels = choose_labels(train, TieBreak("best_on_train"), POOL, train, seed=0)
    regressed = predict("knn_regression", train, there, text_vectors, k=k)
    voted = predict("knn_vote", train, there, text_vectors, k=k)
    for row, query in enumerate(there):
        (v,) = text_vectors([query.query])
        angles = [float(v @ w / np.sqrt(v @ v * (w @ w))) for w in text_vectors([one.query for one in train])]
        nearest = [train[index] for index in sorted(range(len(train)), key=lambda index: -angles[index])[:k]]
        votes = Counter(labels[one.query_id] for one in nearest)
        for column, name in enumerate(NAMES):
            assert regressed[row, column] == pytest.approx(sum(one.scores[name] for one in nearest) / k)
            assert voted[row, column] == pytest.approx(votes[name] / k)


def test_sums_that_differ_by_rounding_are_tied() -> None:
    train = [example("1", 0.1, 0.3, 0), example("2", 0.2, 0.2, 0), example("3", 0.3, 0.1, 0)]
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    large, small, _ = predict("knn_regression", train, train[:1], text_vectors, k=3)[0]
    assert large == small


def test_there_are_no_more_neighbours_than_training_queries(table: tuple[list[RoutingExample], ...]) -> None:
    for method in ("knn_vote", "knn_regression"):
        with pytest.raises(ValueError, match=r"baseline\.k .*40.*got 41"):
            predict(method, *table, text_vectors, k=41)


# --- learners on embeddings

CORNERS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0)}
BEST = {"east": (1, 0, 0.5), "north": (0, 1, 0.5), "west": (0, 0.5, 1)}


def around(number: int, noise: float = 0.1) -> tuple[list[RoutingExample], Callable[[Sequence[str]], Any]]:
    """Queries scattered around three corners, of which each has its best candidate."""
    draw = np.random.default_rng(1)
    vectors = {f"{corner} {i}": draw.normal(CORNERS[corner], noise) for corner in CORNERS for i in range(number)}
    return [example(text, *BEST[text.split()[0]], query=text) for text in vectors], look_up(vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["svm", "mlp", "matrix_factorisation"])
@pytest.mark.slow
def test_learners_find_the_best_candidate_of_queries_not_seen(method: str) -> None:
    rows, embed = around(40)
    train, there = rows[::2], rows[1::2]
    predicted = predict(method, train, there, embed, mlp_epochs=300, mf_epochs=100)
    assert [NAMES[column] for column in predicted.argmax(axis=1)] == [one.best_candidates()[0] for one in there]
    if method == "mlp":
        true = np.array([list(one.scores.values()) for one in there])
        assert np.abs(predicted - true).mean() < 0.1, "it predicts the scores themselves"


def test_svm_never_routes_to_what_is_no_label() -> None:
    rows, embed = around(10)
    two = [one for one in rows if not one.query.startswith("west")]
    predicted = predict("svm", two, rows, embed)
    assert (predicted[:, 2] == 0).all()
    assert predicted[:20].argmax(axis=1).tolist() == [0] * 10 + [1] * 10
    assert predicted[:, 0] == pytest.approx(1 - predicted[:, 1]), "one margin for two labels"
    assert predict("svm", rows[:10], rows, embed).tolist() == [[1, 0, 0]] * 30, "a single label"


def test_factors_are_the_formula() -> None:
    torch.manual_seed(0)
    factors = Factors(num_dimensions=2, num_candidates=3, rank=4)
    vector = torch.tensor([0.3, -0.7])
    factors.requires_grad_(False)
    (strengths,) = factors(vector[None])
    place = factors.project.weight @ vector + factors.project.bias
    for column, candidate in enumerate(factors.candidates.weight):
        unit = candidate / candidate.square().sum().sqrt()
        by_hand = sum(factors.weigh.weight[0, i] * unit[i] * place[i] for i in range(4))
        assert float(strengths[column]) == pytest.approx(float(by_hand), abs=1e-6)


def test_factors_learn_nothing_from_ties() -> None:
    units = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, -0.6]], dtype=np.float64)
    scores = np.array([[1, 0], [0, 1], [1, 1], [0.5, 0.5]])
    fitted = [fit_factors(units[:n], scores[:n], rank=4, epochs=5, noise=0.1, seed=3)(units) for n in (2, 4)]
    assert fitted[0] == pytest.approx(fitted[1], abs=1e-6)
    assert fitted[0].sum(axis=1) == pytest.approx(np.ones(4)), "of two, one beats the other"


# --- Elo


def test_wins_and_chances_by_hand() -> None:
    assert pair_wins(np.array([[0.9, 0.2, 0.9]])).tolist() == [[[0, 1, 0.5], [0, 0, 0], [0.5, 1, 0]]]
    # sigmoid(ln 3) = 3/4, sigmoid(ln 9) = 9/10
    strengths = np.log([[9.0, 3.0, 1.0]])
    expected = [(0.75 + 0.9) / 2, (0.25 + 0.75) / 2, (0.1 + 0.25) / 2]
    assert mean_win_chances(strengths)[0] == pytest.approx(np.array(expected))


def test_elo_of_two_is_the_share_of_wins() -> None:
    # 3 won, 1 lost, 2 tied, and the tie to start with: 3 + 1 + 0.5 against 1 + 1 + 0.5
    scores = np.array([[1, 0], [0.6, 0.5], [0.2, 0.1], [0, 1], [1, 1], [0, 0]])
    assert mean_elo_chances(scores) == pytest.approx(np.array([4.5 / 7, 2.5 / 7]), abs=1e-6)


def test_elo_of_several_is_that_of_another_algorithm(table: tuple[list[RoutingExample], ...]) -> None:
    train, there = table
    scores = np.array([list(one.scores.values()) for one in train])
    wins = pair_wins(scores).sum(axis=0) + 0.5 * (1 - np.eye(3))
    # Zermelo's fixed point (Hunter 2004, Annals of Statistics 32, 384-406)
    strength = np.ones(3)
    for _ in range(2000):
        met = (wins + wins.T) / (strength[:, None] + strength[None, :])
        strength = wins.sum(axis=1) / met.sum(axis=1)
        strength /= strength.sum()
    expected = mean_win_chances(np.log(strength))
    predicted = predict("elo", train, there, elo_gamma=1.0)
    assert predicted == pytest.approx(np.tile(expected, (len(there), 1)), abs=1e-6)


def test_elo_of_a_candidate_that_never_loses_is_finite() -> None:
    chances = mean_elo_chances(np.tile([1.0, 0.5, 0.0], (50, 1)))
    assert chances[0] > chances[1] == pytest.approx(0.5, abs=1e-6)
    assert chances[0] < 1


def test_elo_counts_similar_queries_more() -> None:
    vectors, scores = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    # Weights 9 ** 1 and 9 ** 0, scaled to 1.8 and 0.2; half a win more for each.
    predicted = fit_similar(vectors, scores, gamma=9.0)(np.array([[0.5, 0.0], [1.0, 1.0]]))
    assert predicted == pytest.approx(np.array([[2.3 / 3, 0.7 / 3], [0.5, 0.5]]), abs=1e-6)


def test_elo_without_preference_for_similar_queries_is_constant(table: tuple[list[RoutingExample], ...]) -> None:
    plain = predict("elo", *table, elo_gamma=1.0)
    assert predict("elo", *table, text_vectors, elo_gamma=1.0 + 1e-9) == pytest.approx(plain, abs=1e-6)
    assert not np.allclose(predict("elo", *table, text_vectors, elo_gamma=10.0), plain, atol=1e-3)


# --- all methods


@pytest.mark.parametrize("method", sorted(set(QUICK) - ORACLES))
def test_scores_of_the_queries_to_route_are_not_looked_at(method: str, table: tuple[list[RoutingExample], ...]) -> None:
    train, there = table
    gamma = {"elo_gamma": 10.0}
    honest = predict(method, train, there, text_vectors, **gamma)
    assert len(set(map(tuple, honest.tolist()))) > 1 or method in {
        "cheapest",
        "most_expensive",
        "smallest",
        "largest",
        "best_single",
        "majority_label",
    }
    poisoned = [
        replace(
            one,
            scores=dict.fromkeys(NAMES, -1e9) | {"tiny": 1e9},
            costs=dict.fromkeys(NAMES, 1e9) | {"tiny": -1e9},
            expected_scores=dict.fromkeys(NAMES, 1e9),
            task=one.task if method == "per_task_best" else "another",
        )
        for one in there
    ]
    assert np.array_equal(predict(method, train, poisoned, text_vectors, **gamma), honest)


def test_the_oracles_do_look_and_per_task_best_goes_by_the_task(table: tuple[list[RoutingExample], ...]) -> None:
    train, there = table
    flat = [replace(one, scores=dict.fromkeys(NAMES, 0.5), costs=dict.fromkeys(NAMES, 1.0)) for one in there]
    for method in sorted(ORACLES):
        assert not np.array_equal(predict(method, train, flat), predict(method, train, there))
    moved = [replace(one, task="another") for one in there]
    assert not np.array_equal(predict("per_task_best", train, moved), predict("per_task_best", train, there))


@pytest.mark.parametrize("method", QUICK)
def test_the_same_arguments_give_the_same(method: str, table: tuple[list[RoutingExample], ...]) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = predict(method, *table, text_vectors, seed=4, elo_gamma=10.0)
    drawn = random.random(), np.random.rand(), float(torch.rand(()))
    assert np.array_equal(predict(method, *table, text_vectors, seed=4, elo_gamma=10.0), first)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), float(torch.rand(()))), "the process's generators are untouched"
    assert first.shape == (20, 3)
    assert ((first >= 0) & (first <= 1)).all()
    if method in {"random", "mlp", "matrix_factorisation"}:
        assert not np.array_equal(predict(method, *table, text_vectors, seed=5), first)


@pytest.mark.parametrize("method", QUICK)
def test_no_queries_give_no_rows(method: str, table: tuple[list[RoutingExample], ...]) -> None:
    assert predict(method, table[0], [], text_vectors).shape == (0, 3)


@pytest.mark.parametrize("method", sorted(PROMPTING))
@pytest.mark.slow
def test_prompting_is_not_fitted(method: str, table: tuple[list[RoutingExample], ...]) -> None:
    with pytest.raises(ValueError, match=rf"baseline\.method .*got '{method}', which prompts"):
        predict(method, *table)


def test_unusable_training_queries() -> None:
    # As many as a baseline has neighbours.
    rows = [example(str(number), 1, 0, 0) for number in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"train .*at least 1 query"):
        fit_baseline(make_settings("best_single"), [], POOL, {}, 0, no_vectors)
    for method in ("majority_label", "knn_vote", "svm"):
        with pytest.raises(ValueError, match=r"query '1' .*large, small, tiny.*got None"):
            fit_baseline(make_settings(method), rows, POOL, {"2": "large", "3": "tiny"}, 0, text_vectors)
    with pytest.raises(ValueError, match=r"baseline\.k must be in 1\.\.2, the number of training queries, got 3"):
        fit_baseline(make_settings("knn_vote"), rows[:2], POOL, {}, 0, text_vectors)


# --- the packaged encoder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_packaged_model_embeds_each_text_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "one two three four " * 80  # 320 tokens, more than its window
    texts = ["How do I bake bread?", "A recipe for a loaf", "Solve x + 3 = 5", long, long + "and then some"]
    vectors = Embedder("minilm")(texts)
    assert vectors.shape == (5, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert vectors[3] @ vectors[4] == pytest.approx(1, abs=1e-5), "what is beyond the window does not count"

    asked: list[list[str]] = []

    class Recorder:
        def register_forward_hook(self, hook: object) -> None:
            """As a model does, for the progress bar."""

        def encode(self, batch: list[str], **_: object) -> NDArray[np.float32]:
            asked.append(batch)
            return np.zeros((len(batch), 384), dtype=np.float32)

    monkeypatch.setattr(embeddings, "load_encoder", lambda name, key: Recorder())
    again = Embedder("minilm")
    assert np.array_equal(again(texts[::-1]), vectors[::-1])
    assert asked == []
    assert np.array_equal(again(["new", texts[0], "new"]), np.stack([np.zeros(384), vectors[0], np.zeros(384)]))
    assert asked == [["new"]]
    assert [path for path in cache.rglob("*") if path.name.endswith(".tmp")] == []


def test_what_is_stopped_loses_one_part(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Stopped:
        """Embeds a text as its length; is stopped at the third call."""

        def register_forward_hook(self, hook: object) -> None:
            """As a model does, for the progress bar."""

        def encode(self, batch: list[str], **_: object) -> NDArray[np.float32]:
            asked.append(batch)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return np.array([[len(text), 0] for text in batch], dtype=np.float32)

    monkeypatch.setattr(embeddings, "load_encoder", lambda name, key: Stopped())
    monkeypatch.setattr(embeddings, "PART", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    with pytest.raises(KeyboardInterrupt):
        Embedder("minilm")(texts)
    assert Embedder("minilm")(texts)[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert asked == [["eeeee", "dddd"], ["ccc", "bb"], ["a"], ["a"]], "longest first; only the lost part again"


@pytest.mark.parametrize("damage", ["cut", "zeroed", "flipped"])
def test_damaged_embeddings_are_made_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    class Letters:
        """Embeds a text as the counts of two letters in it."""

        def register_forward_hook(self, hook: object) -> None:
            """As a model does, for the progress bar."""

        def encode(self, batch: list[str], **_: object) -> NDArray[np.float32]:
            return np.array([[text.count("a"), text.count("b")] for text in batch], dtype=np.float32)

    monkeypatch.setattr(embeddings, "load_encoder", lambda name, key: Letters())
    texts = ["abba", "ab", "b"]
    vectors = Embedder("minilm")(texts)
    (path,) = cache.rglob("*.npz")
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"cut": content[:middle], "zeroed": bytes(len(content)), "flipped": flipped}[damage])
    assert np.array_equal(Embedder("minilm")(texts), vectors)
    assert str(path) in caplog.text
    assert path.read_bytes() == content


@pytest.mark.slow
def test_encoder_classifier_learns_from_the_text_alone(cache: Path) -> None:
    words = ["bread", "soup", "cake", "pasta", "rice", "salad", "tea", "curry"]
    cooking = [example(f"c{word}", 1, 0, 0.5, query=f"How do I cook {word}?") for word in words]
    maths = [example(f"m{i}", 0, 1, 0.5, query=f"Solve {i} x + 3 = {i * i}") for i in range(1, 9)]
    train, there = [*cooking[1:], *maths[1:]], [cooking[0], maths[0]]
    few = {"encoder_learning_rate": 3e-4, "encoder_max_tokens": 16}
    predicted = predict("encoder_classifier", train, there, encoder_epochs=12, **few)
    assert predicted.argmax(axis=1).tolist() == [0, 1]
    assert predicted == pytest.approx(np.array([[1, 0, 0.5], [0, 1, 0.5]]), abs=0.25)

    poisoned = [replace(one, scores=dict.fromkeys(NAMES, 1e9), task="another") for one in there]
    short = predict("encoder_classifier", train, there, encoder_epochs=1, **few)
    assert predict("encoder_classifier", train, poisoned, encoder_epochs=1, **few) == pytest.approx(short, abs=1e-3)
    assert predict("encoder_classifier", train, [], encoder_epochs=1, **few).shape == (0, 3)


def test_unknown_embedding(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "hub_answers", lambda: False)
    for name in ("no-such/model", str(tmp_path)):
        with pytest.raises(ValueError) as caught:
            Embedder(name)(["text"])
        assert str(caught.value).startswith(f"baseline.embedding must be a model that can be loaded, got {name!r} (")


def test_another_model_in_the_same_folder_has_other_vectors(cache: Path) -> None:
    folder = cache / "model"
    folder.mkdir()
    places = set()
    for content in ("1", "2"):
        (folder / "weights").write_text(content, encoding="utf-8")
        places.add(embeddings.Embedder(str(folder))._folder)
    assert len(places) == 2


def test_sizes_decide_where_they_are_known() -> None:
    train = [example("a", 1, 0, 0)]
    assert predict("largest", train, train).tolist() == [[1, 0, 0]]
    assert predict("smallest", train, train).tolist() == [[0, 1, 1]], "tied: the better on train is called"
    unknown = (*POOL[:2], Candidate("tiny"))
    with pytest.raises(ValueError, match=r"size of every candidate \(data.pool_path, .*\), got none of tiny"):
        predict("largest", train, train, pool=unknown)


def test_a_network_of_two_layers_differs_from_one_of_one() -> None:
    train = [example(str(number), *np.random.default_rng(number).random(3)) for number in range(20)]
    shallow, deep = (predict("mlp", train, train, text_vectors, mlp_hidden_units=units) for units in ([8], [8, 4]))
    assert shallow.shape == deep.shape == (20, 3)
    assert not np.allclose(shallow, deep)
