"""The simulated source: repeatable, distinct queries, outcomes that follow the documented model."""

import hashlib
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources import simulated
from causal_lm_router.routing import RoutingData, check_pool
from tests.conftest import CHECKOUT

Load = Callable[..., RoutingData]


@pytest.fixture(scope="module")
def load(make_data_config: Callable[..., DataConfig]) -> Load:
    """Function that loads simulated data with the given settings; discrimination 1, 4 attempts, all tasks otherwise."""

    def load_with(max_query_chars: int = 10_000, **settings: object) -> RoutingData:
        fixed = {"num_queries": 630, "num_attempts": 4, "discrimination": 1.0, "seed": 0, "tasks": []}
        config = make_data_config(source="simulated", simulated=fixed | settings, max_query_chars=max_query_chars)
        return simulated.load(config)

    return load_with


@pytest.fixture(scope="module")
def data(load: Load) -> RoutingData:
    return load()


def fingerprint(data: RoutingData) -> str:
    return hashlib.sha256(repr(data).encode()).hexdigest()


@pytest.mark.slow
def test_queries_are_distinct_and_short(data: RoutingData) -> None:
    assert len(data.examples) == 630
    assert len({" ".join(example.query.lower().split()) for example in data.examples}) == 630
    assert len({example.query_id for example in data.examples}) == 630
    lengths = [len(example.query) for example in data.examples]
    assert max(lengths) <= 500
    assert np.mean(lengths) < 240


def test_every_task_has_every_level_in_equal_shares(data: RoutingData) -> None:
    # 21 tasks and 3 levels share 630 queries; ids read task-level-number.
    cells = [example.query_id.rsplit("-", 1)[0] for example in data.examples]
    assert {cells.count(cell) for cell in set(cells)} == {10}
    assert len(set(cells)) == 63
    assert len({example.task for example in data.examples}) == 21


def test_pool_is_usable_and_has_prices(data: RoutingData) -> None:
    check_pool(data.candidate_names)
    assert data.candidate_names[0] == "aster-mini"
    assert any(one != other and one.startswith(other) for one in data.candidate_names for other in data.candidate_names)
    assert all(one.input_price and one.output_price for one in data.pool)
    assert all(list(example.scores) == data.candidate_names for example in data.examples)


@pytest.mark.slow
def test_same_settings_give_the_same_data_in_another_process(data: RoutingData, tmp_path: Path) -> None:
    """The global random state stays as it was there too, although importing reasoning-gym draws from it once."""
    script = tmp_path / "load.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(CHECKOUT)!r}]\n"
        "import test_simulated\nfrom tests import conftest\n"
        "load = test_simulated.load.__wrapped__(conftest.make_data_config.__wrapped__())\n"
        "import random\nrandom.seed(5)\nstate = random.getstate()\n"
        "print(test_simulated.fingerprint(load()))\n"
        "assert random.getstate() == state\n"
    )
    # A fixed hash seed differs from the random one of this process.
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint(data)


def test_loading_draws_nothing_from_the_global_streams(load: Load) -> None:
    states = random.getstate(), np.random.get_state()[1].tobytes()
    load(num_queries=63)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states


@pytest.mark.slow
def test_another_seed_gives_other_queries_and_outcomes(data: RoutingData, load: Load) -> None:
    other = load(seed=1)
    shared = {example.query for example in data.examples} & {example.query for example in other.examples}
    assert len(shared) < 63


@pytest.mark.slow
def test_more_queries_keep_the_first(data: RoutingData, load: Load) -> None:
    fewer = load(num_queries=126)
    by_id = {example.query_id: example for example in data.examples}
    kept = [example for example in fewer.examples if by_id[example.query_id] == example]
    # Only a question that two tasks share could differ.
    assert len(kept) == 126


def test_expected_scores_follow_the_formula(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "ITEM_SPREAD", 0.0)
    data = load(num_queries=30, tasks=["gcd"], discrimination=0.5)
    easy, hard = data.examples[0].expected_scores, data.examples[-1].expected_scores
    assert easy is not None
    assert hard is not None
    # Skills in number theory: 2.4 and -1.4; difficulties: -1.6 and 1.6.
    assert easy["aster-mini-math"] == pytest.approx(0.880797, abs=1e-6)  # sigmoid(0.5 * 4.0)
    assert easy["aster-mini"] == pytest.approx(0.524979, abs=1e-6)  # sigmoid(0.5 * 0.2)
    assert hard["aster-mini-math"] == pytest.approx(0.598688, abs=1e-6)  # sigmoid(0.5 * 0.8)
    assert hard["aster-mini"] == pytest.approx(0.182426, abs=1e-6)  # sigmoid(0.5 * -3.0)


def test_difficulties_spread_around_their_level(load: Load) -> None:
    data = load(num_queries=600, tasks=["chain_sum"])
    chances = np.array([example.expected_scores["aster-mini-math"] for example in data.examples[:200]])
    difficulties = 2.6 - np.log(chances / (1 - chances))
    assert difficulties.mean() == pytest.approx(-1.6, abs=0.15)
    assert difficulties.std() == pytest.approx(0.6, abs=0.1)


def test_scores_are_shares_of_attempts(data: RoutingData) -> None:
    scores = {score for example in data.examples for score in example.scores.values()}
    assert scores == {0.0, 0.25, 0.5, 0.75, 1.0}


@pytest.mark.slow
def test_scores_approach_their_expectation(load: Load) -> None:
    for example in load(num_queries=63, num_attempts=10_000).examples:
        for name, score in example.scores.items():
            assert score == pytest.approx(example.expected_scores[name], abs=0.03)


def test_a_query_takes_less_than_a_kilobyte_beside_its_text(load: Load) -> None:
    """A million of them must fit into the memory of a small machine."""
    load(num_queries=30, tasks=["chain_sum"])
    tracemalloc.start()
    try:
        examples = load(num_queries=600, tasks=["chain_sum"]).examples
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    texts = sum(sys.getsizeof(example.query) for example in examples)
    # With dictionaries for scores, costs and expected scores it is 1,400 bytes.
    assert (used - texts) / len(examples) < 1000


def test_cost_by_hand() -> None:
    (mini,) = [one for one in simulated.CANDIDATES if one.name == "aster-mini"]
    # 40 characters are 10 tokens at 0.05 USD per million, 80 tokens out at 0.2: (0.5 + 16) / 1e6
    assert mini.cost("x" * 40) == pytest.approx(16.5e-6)


def test_data_has_room_for_a_router(data: RoutingData) -> None:
    expected = np.array([[example.expected_scores[name] for name in data.candidate_names] for example in data.examples])
    assert 0.60 < expected.mean(axis=0).max() < 0.68
    assert 0.82 < expected.max(axis=1).mean() < 0.90
    assert 0.40 < expected.mean() < 0.55


def test_best_route_follows_from_the_family(data: RoutingData) -> None:
    best = {family: set() for family in simulated.FAMILIES}
    for example in data.examples:
        family, _ = simulated.TASKS[example.task]
        best[family].add(max(example.expected_scores, key=example.expected_scores.__getitem__))
    assert best == {
        "arithmetic": {"aster-mini-math"},
        "number theory": {"aster-mini-math"},
        "algebra": {"borealis-large-think"},
        "text": {"cobalt-8b-text"},
        "logic": {"borealis-large-think"},
        "dates": {"borealis-large"},
        "puzzles": {"dorado-24b"},
    }


def test_tasks_can_be_chosen(load: Load) -> None:
    data = load(num_queries=31, tasks=["lcm", "spell_backward"])
    counts = [sum(example.task == task for example in data.examples) for task in ("lcm", "spell_backward")]
    # Six cells of five queries; the one left over goes to the first.
    assert counts == [16, 15]


def test_max_query_chars_bounds_the_queries(load: Load) -> None:
    data = load(num_queries=60, tasks=["chain_sum"], max_query_chars=100)
    assert max(len(example.query) for example in data.examples) <= 100


@pytest.mark.parametrize("tasks", [["gdc"], ["gcd", "gcd"]], ids=["unknown", "repeated"])
def test_bad_tasks_are_refused(load: Load, tasks: list[str]) -> None:
    with pytest.raises(ValueError, match=r"data\.simulated\.tasks .*basic_arithmetic, chain_sum, .*got \['g"):
        load(tasks=tasks)


@pytest.mark.slow
def test_too_few_distinct_questions_are_reported(load: Load) -> None:
    # The easy prime factorisations are those of 2 to 4999.
    with pytest.raises(ValueError, match=r"data\.simulated\.num_queries .*6000 .*'prime_factorization' at level 0"):
        load(num_queries=18_000, tasks=["prime_factorization"])
