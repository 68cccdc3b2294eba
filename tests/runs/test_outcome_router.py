"""Routers of `target=outcome`: what they learn from records, what a run folder keeps, and candidates added later."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from causal_lm_router import CausalLMRouter
from causal_lm_router.config import EvaluateConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.runs import router as router_module
from causal_lm_router.runs import session
from causal_lm_router.runs.evaluate_run import evaluate_run
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.training.callback import PrunedError

NUM_TOPICS = 24
Config = Callable[..., Any]


class Topics:
    """Embeds a text by the topic that it names: texts of one topic are all alike, others have nothing in common."""

    def __init__(self, name: str, key: str = "", *, keeps: bool = True) -> None:
        assert key == "target.embedding"

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.eye(NUM_TOPICS, dtype=np.float32)[[int(text.split()[0][1:]) for text in texts]]


@pytest.fixture(autouse=True, scope="module")
def embed_topics() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (session, router_module):
            patch.setattr(module, "Embedder", Topics)
        yield


def is_right(topic: int) -> bool:
    """Whether alpha answers right on a topic, and beta does not; nothing in the topic's number says so."""
    return bool(np.random.default_rng(topic).integers(2))


@pytest.fixture(scope="module")
def make_config(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Function that returns the config of a run on eight queries of each topic, the last of them for test."""
    rows = [
        {
            "query": f"t{topic} {number}",
            "task": "topics",
            "split": "test" if number == 7 else "train",
            "scores": {"alpha": float(is_right(topic)), "beta": float(not is_right(topic))},
        }
        for topic in range(NUM_TOPICS)
        for number in range(8)
    ]
    path = tmp_path_factory.mktemp("data") / "topics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ["target=outcome", "objective=soft", "decoding=scored", "data=jsonl", f"data.path={path}"]
    settings += ["data.use_source_split=true", "data.validation_fraction=0", "target.num_neighbours=4"]
    settings += ["target.num_averaged=4", "evaluation=final_only", "lora.use_lora=false", "optim.learning_rate=0.002"]
    settings += ["target.record=\n{outcomes}\nRight:", "prompt.template={query}\nBest:", "trainer.batch_size=4"]
    return lambda *overrides: tiny_config(*settings, *overrides)


@pytest.fixture(scope="module")
def trained(make_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RoutingReport]:
    """The folder and the report of a run that had its time to learn."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    report = train_router(make_config(f"run_dir={folder}", "trainer.num_epochs=3"))
    assert report is not None
    return folder, report


@pytest.mark.slow
def test_a_planted_signal_is_learnt(trained: tuple[Path, RoutingReport]) -> None:
    # Topics have no more in their texts than a number, and candidates are not named: the record alone tells.
    report = trained[1]
    assert report.mean_score.value > 0.9
    assert report.references["best_single"].mean_score.value < 0.75
    assert report.parse_failure_rate.value == 0
    assert report.decoding is not None
    assert report.decoding.mean_scores["free"].value > 0.9
    assert report.decoding.free_parse_failure_rate.value == 0


TEST_QUERIES = [f"t{topic} 7" for topic in range(NUM_TOPICS)]


@pytest.mark.slow
def test_a_run_folder_alone_routes_as_the_run_was_evaluated(
    trained: tuple[Path, RoutingReport], tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(trained[0], folder)
    outcomes = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]
    with CausalLMRouter.from_run(folder) as router:
        routes = router.route_batch(TEST_QUERIES)
        assert [route["model_name"] for route in routes] == [outcome["called"] for outcome in outcomes]
        assert [route["generation"] for route in routes] == [outcome["generation"] for outcome in outcomes]
    content = (folder / "neighbours.safetensors").read_bytes()
    (folder / "neighbours.safetensors").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"neighbours.safetensors: damaged"), CausalLMRouter.from_run(folder) as router:
        router.route(TEST_QUERIES[:1])


@pytest.mark.slow
def test_other_decodings_of_a_run(trained: tuple[Path, RoutingReport], tmp_path: Path) -> None:
    also = ["decoding=trie", "decoding.also=[constrained,scored]", f"output_dir={tmp_path / 'evaluation'}"]
    config = compose_on_run("evaluate", trained[0], also)
    assert isinstance(config, EvaluateConfig)
    report = evaluate_run(config)
    assert report.decoding is not None
    assert min(score.value for score in report.decoding.mean_scores.values()) > 0.9
    assert report.decoding.differing_routes["trie~constrained"].value == 0


@pytest.mark.slow
def test_a_candidate_is_added_without_training(trained: tuple[Path, RoutingReport]) -> None:
    # Gamma answers the topics that alpha and beta have in equal parts: those with an even number.
    queries = [f"t{topic} new {number}" for topic in range(NUM_TOPICS) for number in range(5)]
    scores = [float(int(query.split()[0][1:]) % 2 == 0) for query in queries]
    with CausalLMRouter.from_run(trained[0]) as router:
        before = router.route(TEST_QUERIES)
        router.add_candidate("gamma", queries, scores)
        after = router.route(TEST_QUERIES)
        for topic, (old, new) in enumerate(zip(before, after, strict=True)):
            assert old.predicted is not None
            assert new.predicted is not None
            assert list(new.predicted) == ["alpha", "beta", "gamma"]
            assert (new.predicted["gamma"] > 0.5) == (topic % 2 == 0)
            # What is known of the others is what it was.
            assert new.predicted["alpha"] == pytest.approx(old.predicted["alpha"], abs=1e-4)


@pytest.mark.slow
def test_candidates_that_cannot_be_added(trained: tuple[Path, RoutingReport], smoke_run: Path) -> None:
    with CausalLMRouter.from_run(trained[0]) as router:
        for name, queries, scores, message in (
            ("alpha", ["t1 x"], [1.0], "candidate names must differ"),
            ("gamma", [], [], "scores must be one for each query, at least 1, got 0 of 0"),
            ("gamma", ["t1 x"], [1.0, 0.0], "got 2 of 1"),
            ("gamma", [" "], [1.0], "query is empty"),
            ("gamma", ["t1 x"], [1.5], "score must be a number in 0..1, got 1.5"),
        ):
            with pytest.raises(ValueError, match=message):
                router.add_candidate(name, queries, scores)
        assert list(router.route(TEST_QUERIES[:1])[0].predicted or {}) == ["alpha", "beta"]
    with (
        CausalLMRouter.from_run(smoke_run) as router,
        pytest.raises(ValueError, match=r"target.kind must be outcome .*, got 'name'"),
    ):
        router.add_candidate("gamma", ["x"], [1.0])


@pytest.mark.slow
def test_a_candidate_that_training_held_out_is_routed_to(make_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = make_config(f"run_dir={folder}", "trainer.batch_size=32")
    rows = [json.loads(line) for line in Path(config.data.path).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["scores"]["gamma"] = 1.0 if row["query"] < "t2" else 0.0
    (tmp_path / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config.data.path, config.data.held_out_candidates = str(tmp_path / "three.jsonl"), ["gamma"]
    config.trainer.num_epochs = 1
    assert train_router(config) is not None
    # Eight rows a topic less one, and two candidates each: gamma has none.
    with CausalLMRouter.from_run(folder) as router:
        assert list(router.route(TEST_QUERIES[:1])[0].predicted or {}) == ["alpha", "beta", "gamma"]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(make_config: Config, tmp_path: Path) -> None:
    def config(name: str) -> Any:
        steps = ["trainer.batch_size=32", "trainer.num_epochs=1", "trainer.checkpoint_every_n_steps=2"]
        return make_config(f"run_dir={tmp_path / name}", *steps, "evaluation.every_n_steps=3", "evaluation.split=test")

    def interrupt(report: RoutingReport, step: int) -> None:
        raise PrunedError

    train_router(config("whole"))
    with pytest.raises(PrunedError):
        train_router(config("parted"), on_evaluation=interrupt)
    train_router(config("parted"))
    whole, parted = (RunFolder(tmp_path / name) for name in ("whole", "parted"))
    assert (parted.weights / "model.safetensors").read_bytes() == (whole.weights / "model.safetensors").read_bytes()
    assert parted.neighbours.read_bytes() == whole.neighbours.read_bytes()


def test_more_neighbours_than_queries_are_refused_before_anything_is_written(
    make_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"target.num_neighbours must be in 1..167, .*, got 168"):
        train_router(make_config(f"run_dir={tmp_path / 'run'}", "target.num_neighbours=168"))
    assert not (tmp_path / "run" / "config.yaml").exists()
