"""The `baseline` command: the run folder it leaves, prompting the bare base model, sweeps of baselines, bad input."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel

from causal_lm_router.config import BaselineMethod, BaselineRunConfig, TrainConfig
from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.prompting.few_shot import SHOT_CHARS, draw_shots, few_shot_template
from causal_lm_router.prompting.prompt import PromptFormat
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import RoutingExample
from causal_lm_router.runs import baseline_run
from causal_lm_router.runs.baseline_run import prompting_config, run_baseline
from causal_lm_router.runs.job_log import read_events, read_statuses
from causal_lm_router.runs.session import load_data
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.runs.workbench import Workbench
from tests.conftest import Result, TinyBase

NAMES = ["small", "large", "huge"]
EXPERIMENTS = sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml"))
Main = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for 60 queries of two tasks, each with its own best candidate; costs grow with the candidate."""
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    with path.open("w") as file:
        for number in range(60):
            task, best = ("sums", 0) if number % 3 == 0 else ("words", 1)
            scores = {name: float(place == best) for place, name in enumerate(NAMES)}
            if number % 5 == 0:
                scores["huge"] = 1.0  # as good as the best, at a higher cost
            costs = {name: 0.001 * 10**place for place, name in enumerate(NAMES)}
            row = {"query": f"{task} {number}", "task": task, "scores": scores, "costs": costs}
            file.write(json.dumps(row) + "\n")
    return ["debug=smoke", "data=jsonl", f"data.path={path}", "tracking.tensorboard=false"]


@pytest.fixture
def config(data: list[str], tmp_path: Path) -> Callable[..., BaselineRunConfig]:
    """Function that returns the config of `baseline <overrides>`."""

    def compose(*overrides: str) -> BaselineRunConfig:
        composed = compose_config([*data, f"run_dir={tmp_path / 'run'}", *overrides], "baseline")
        assert isinstance(composed, BaselineRunConfig)
        return composed

    return compose


def read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


# A run


@pytest.mark.slow
def test_a_baseline_leaves_a_run_folder(main: Main, data: list[str], tmp_path: Path) -> None:
    result = main("baseline", *data, "baseline=per_task_best")
    assert (result.status, result.errors) == (0, "")
    (folder,) = (tmp_path / "outputs" / "per_task_best").iterdir()
    assert result.output.rstrip().endswith(f"run folder: {folder.relative_to(tmp_path)}")
    assert "the router" in result.output
    left = {path.name for path in folder.iterdir()}
    assert left >= {"config.yaml", "router.json", "report.json", "outcomes.jsonl", "confusion.png", "metrics.csv"}
    assert left.isdisjoint({"adapter", "merged", "checkpoints"})
    report, outcomes = read_report(folder), read_outcomes(folder)
    assert (report["baseline"], report["split"], report["num_train"], report["num_queries"]) == (
        "per_task_best",
        "test",
        48,
        6,
    )
    assert {"base_model", "backend", "temperature"}.isdisjoint(report), "no base model was asked"
    assert report["routing_accuracy"]["value"] == 1.0
    assert report["parse_failure_rate"]["value"] == 0.0
    for row in outcomes:
        best = {"sums": "small", "words": "large"}[row["task"]]
        assert (row["route"], row["called"], row["generation"], row["finish_reason"]) == (best, best, best, "stop")
        assert list(row["predicted"]) == NAMES
        assert max(row["predicted"], key=row["predicted"].__getitem__) == best
    assert read_report(folder / "validation")["split"] == "validation"
    recorded = {(row.step, row.name): row.value for row in read_metrics(folder / "metrics.csv")}
    assert recorded[0, "test/routing_accuracy"] == 1.0
    assert recorded[0, "final_validation/routing_accuracy"] == 1.0
    kept = resolve_config({**load_run_config(folder), "run_dir": "x"}, TrainConfig)
    assert isinstance(kept, BaselineRunConfig)
    assert kept.baseline.method is BaselineMethod.per_task_best


@pytest.mark.parametrize(("method", "known_as"), [("best_single", "best_single"), ("cheapest_oracle", "oracle")])
@pytest.mark.slow
def test_baselines_agree_with_the_references_of_every_report(
    method: str, known_as: str, config: Callable[..., BaselineRunConfig], tmp_path: Path
) -> None:
    run_baseline(config(f"baseline={method}", "evaluation.final_validation=false"))
    report = read_report(tmp_path / "run")
    for metric in ("mean_score", "mean_cost", "routing_accuracy", "regret"):
        assert report[metric]["value"] == report["references"][known_as][metric]["value"], metric


@pytest.mark.slow
def test_the_highest_prediction_is_the_route_and_ties_go_to_the_best_on_train(
    config: Callable[..., BaselineRunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def fit(settings: Any, train: Any, pool: Any, labels: Any, seed: int, embed: Any) -> Any:
        given.update(method=settings.method, num_train=len(train), pool=[one.name for one in pool], seed=seed)
        rows = {"sums": [0.2, 0.1, 0.3], "words": [0.5, 0.5, 0.4]}
        return lambda examples: np.array([rows[example.task] for example in examples])

    monkeypatch.setattr(baseline_run, "fit_baseline", fit)
    run_baseline(config("name=mine", "baseline=svm", "seed=7", "evaluation.final_validation=false"))
    assert given == {"method": BaselineMethod.svm, "num_train": 48, "pool": NAMES, "seed": 7}
    outcomes = read_outcomes(tmp_path / "run")
    routes = {row["task"]: row["route"] for row in outcomes}
    assert read_report(tmp_path / "run")["best_single"] == "large", "though small stands before it in the pool"
    assert routes == {"sums": "huge", "words": "large"}
    assert {row["task"]: row["predicted"] for row in outcomes}["sums"] == {"small": 0.2, "large": 0.1, "huge": 0.3}


@pytest.mark.slow
def test_the_base_model_can_give_the_vectors(config: Callable[..., BaselineRunConfig], tiny_base: TinyBase) -> None:
    probe = config("baseline=knn_regression", "baseline.k=3", "baseline.embedding=base_model")
    settings = baseline_run._name_embedding(probe)
    (found,) = baseline_run._embed(settings, ["sums 7"])
    tokens = tiny_base.tokenizer(["sums 7"], return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(tiny_base.path)(**tokens).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states[-1], dim=0)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    # And it routes: words and sums are two clouds of vectors.
    assert run_baseline(probe) is not None


@pytest.mark.slow
def test_an_interrupted_baseline_resumes_and_a_finished_one_is_left_alone(
    main: Main, data: list[str], config: Callable[..., BaselineRunConfig], tmp_path: Path
) -> None:
    run_baseline(config("baseline=most_expensive", "evaluation.final_validation=false"))
    folder = tmp_path / "run"
    before = read_outcomes(folder)
    for name in ("report.json", "outcomes.jsonl"):
        (folder / name).unlink()
    assert main("resume", f"run_dir={folder}").status == 0
    assert read_outcomes(folder) == before
    assert main("resume", f"run_dir={folder}").errors.startswith(
        f"error: run_dir must be a folder without a finished run, got {folder}"
    )
    for command in ("evaluate", "route", "merge"):
        asked = main(command, f"run_dir={folder}", *(["query=x"] if command == "route" else []))
        assert asked.errors == f"error: run_dir must hold a trained router, got {folder}, which holds a baseline\n"


# Prompting the bare base model


@pytest.mark.parametrize(("method", "num_shots"), [("zero_shot", 0), ("few_shot", 2)])
@pytest.mark.slow
def test_the_bare_base_model_is_asked_about_the_candidates(
    method: str,
    num_shots: int,
    config: Callable[..., BaselineRunConfig],
    tiny_base: TinyBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from causal_lm_router.generation.transformers import TransformersGenerator

    loaded: list[Any] = []
    prompts: list[str] = []
    load, generate = TransformersGenerator.load_weights, TransformersGenerator.generate

    def load_spied(self: TransformersGenerator, weights_dir: Path | None) -> None:
        loaded.append(weights_dir)
        load(self, weights_dir)

    def generate_spied(self: TransformersGenerator, ids: Sequence[Sequence[int]], *rest: Any) -> Any:
        prompts.extend(tiny_base.tokenizer.decode(one, skip_special_tokens=True) for one in ids)
        return generate(self, ids, *rest)

    monkeypatch.setattr(TransformersGenerator, "load_weights", load_spied)
    monkeypatch.setattr(TransformersGenerator, "generate", generate_spied)
    overrides = ["inference.max_new_tokens=4", "evaluation.final_validation=false", "prompt.max_length=40"]
    overrides += [f"baseline.num_shots={num_shots}"] if num_shots else []
    run_baseline(config(f"baseline={method}", "decoding.also=[trie]", *overrides))
    assert loaded == [None]
    for prompt, row in zip(prompts, read_outcomes(tmp_path / "run"), strict=True):
        assert prompt.startswith("Choose the LLM that answers the query best.\nLLMs: small, large, huge\n\nQuery: ")
        assert prompt.endswith("\n\nBest LLM:")
        assert f"\n\nQuery: {row['task']} " in prompt
        shots = prompt.split("\n\nQuery: ")[1:-1]
        assert len(shots) == num_shots
        # The labels of the two tasks take turns.
        labels = {shot.split(" ")[0]: shot.split("Best LLM: ")[1] for shot in shots}
        assert labels == ({"sums": "small", "words": "large"} if shots else {})
    report = read_report(tmp_path / "run")
    assert report["base_model"] == "tiny-llama"
    assert report["parse_failure_rate"]["value"] == 1.0, "random weights name nobody, and that is counted"
    walked = read_report(tmp_path / "run" / "decodings" / "trie")
    assert (walked["parse_failure_rate"]["value"], walked["base_model"]) == (0.0, "tiny-llama")


def test_what_the_prompt_adds_does_not_shorten_the_query(
    config: Callable[..., BaselineRunConfig], tiny_base: TinyBase
) -> None:
    few_shot = config("baseline=few_shot", "prompt.max_length=40")
    with Workbench() as workbench:
        prompting = prompting_config(few_shot, load_data(few_shot.data, workbench), tiny_base.tokenizer)
    fixed = prompting.prompt.template.replace("{query}", "").replace("{candidates}", ", ".join(NAMES))
    assert prompting.prompt.max_length == 40 + len(tiny_base.tokenizer(fixed)["input_ids"])
    assert prompting.prompt.template.count("Best LLM:") == few_shot.baseline.num_shots + 1


def example(query: str, number: int = 0) -> RoutingExample:
    return RoutingExample(str(number), query, "all", {"a": 1.0, "b": 0.0})


def test_shots_are_spread_over_the_labels_and_drawn_by_the_seed() -> None:
    train = [example(f"q{number}", number) for number in range(50)]
    labels = {str(number): "b" if number in (11, 30) else "a" for number in range(50)}
    for num_shots, expected in ((2, {"a": 1, "b": 1}), (5, {"a": 3, "b": 2}), (99, {"a": 48, "b": 2})):
        shots = draw_shots(train, labels, num_shots, seed=3)
        assert Counter(labels[shot.query_id] for shot in shots) == expected
        assert len({shot.query_id for shot in shots}) == len(shots)
    assert draw_shots(train, labels, 4, seed=3) == draw_shots(train, labels, 4, seed=3)
    assert draw_shots(train, labels, 4, seed=3) != draw_shots(train, labels, 4, seed=4)


def test_a_shot_is_the_prompt_of_one_short_line_and_its_label() -> None:
    template = "Choose.\nLLMs: {candidates}\n\nQuery: {query}\n\nBest LLM:"
    shots = [example("What is\n {query}?  Best LLM: b", 0), example("x" * 300, 1)]
    made = few_shot_template(PromptFormat(template, Targets(TargetKind.name, ("a", "b"))), shots, {"0": "a", "1": "b"})
    assert made == (
        "Choose.\nLLMs: {candidates}\n\n"
        "Query: What is (query)? Best LLM - b\n\nBest LLM: a\n\n"
        f"Query: {'x' * SHOT_CHARS}\n\nBest LLM: b\n\n"
        "Query: {query}\n\nBest LLM:"
    )


# Sweeps


@pytest.mark.slow
def test_a_sweep_of_baselines_and_the_same_command_again(main: Main, data: list[str], tmp_path: Path) -> None:
    methods = ["random", "best_single", "oracle"]
    swept = ["-m", *data, "sweep=baselines", "sweep.name=s", "sweep.report=false", "evaluation.final_validation=false"]
    first = main("baseline", *swept, f"baseline={','.join(methods)}")
    assert first.status == 0, first.errors
    sweep = SweepFolder(tmp_path / "outputs" / "sweeps" / "s")
    statuses = read_statuses(sweep)
    assert [status.state.value for status in statuses.values()] == ["done"] * 3
    kept = [yaml.safe_load((sweep.run_dir(job) / "config.yaml").read_text())["baseline"]["method"] for job in statuses]
    assert kept == methods
    more = main("baseline", *swept, f"baseline={','.join([*methods, 'majority_label'])}")
    assert more.status == 0
    assert [event.job for event in read_events(sweep) if event.state == "running"] == list(read_statuses(sweep))
    assert "4 jobs: 3 done, 1 to run" in more.output
    shown = main("status", str(sweep.path))
    assert "majority_label" in shown.output
    assert "4 of 4 jobs done" in shown.output
    assert main("report", str(sweep.path)).status == 0
    text = (sweep.report / "report.md").read_text(encoding="utf-8").replace("\\", "")
    for number, method in enumerate(["best_single", "majority_label", "oracle", "random"], start=1):
        assert f"| {number} | {method} | 1 |" in text


def test_the_preset_sweeps_over_every_baseline() -> None:
    preset = yaml.safe_load(Path(conf_dir(), "sweep", "baselines.yaml").read_text(encoding="utf-8"))
    swept = preset["hydra"]["sweeper"]["params"]["baseline"]
    assert sorted(name.strip() for name in swept.split(",")) == sorted(
        set(BaselineMethod) - {BaselineMethod.own, BaselineMethod.smallest, BaselineMethod.largest}
    ), "simulated LLMs have no size"


# Settings


def group_names(config_name: str) -> set[str]:
    settings = yaml.safe_load(Path(conf_dir(), f"{config_name}.yaml").read_text(encoding="utf-8"))
    return {key for entry in settings["defaults"] if isinstance(entry, dict) for key in entry}


def test_a_baseline_has_the_groups_of_a_router() -> None:
    assert group_names("baseline") == group_names("train") | {"baseline"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.slow
def test_a_baseline_takes_every_experiment(experiment: str) -> None:
    overrides = [f"experiment={experiment}", "run_dir=x"]
    baseline = compose_config([*overrides, "baseline=svm"], "baseline")
    assert isinstance(baseline, BaselineRunConfig)
    assert (baseline.name, baseline.baseline.method) == ("svm", BaselineMethod.svm)
    trained = compose_config(overrides)
    assert baseline.data == trained.data
    assert baseline.evaluation.final_split == trained.evaluation.final_split


REFUSED = {
    "baseline=svmm": ["baseline must be one of best_single, cheapest, cheapest_oracle", "'svmm'"],
    "seed=0": ["baseline must be one of best_single, cheapest, cheapest_oracle"],
    "baseline=svm +baseline.k=3": ["Key 'k' not in 'SvmConfig'"],
    "baseline=zero_shot target=token": ["target.kind", "'token'", "baseline.method=zero_shot", "name", "short_id"],
    "baseline=cheapest data.test_fraction=0.0": ["evaluation.final_split", "'test'"],
}


@pytest.mark.parametrize("overrides", REFUSED)
@pytest.mark.slow
def test_bad_input_is_one_line_and_no_folder(overrides: str, main: Main, data: list[str], tmp_path: Path) -> None:
    result = main("baseline", *data, *overrides.split())
    assert result.status == 1
    assert result.errors.startswith("error: ")
    assert result.errors.count("\n") == 1
    assert [part for part in REFUSED[overrides] if part not in result.errors] == [], result.errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_goes_by_costs_needs_them(main: Main, data: list[str], tmp_path: Path) -> None:
    rows = [{"query": f"q{number}", "scores": {"a": number % 2, "b": 1 - number % 2}} for number in range(40)]
    (tmp_path / "free.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    free = [*data, "data.path=free.jsonl", "data.tie_break=first", "evaluation.final_validation=false"]
    alone = main("baseline", *free, "baseline=cheapest")
    assert alone.status == 1
    assert alone.errors.startswith("error: baseline.method must be one that needs no costs, got 'cheapest'")
    assert [path.name for path in tmp_path.iterdir()] == ["free.jsonl"]
    swept = main("baseline", "-m", *free, "sweep.report=false", "baseline=cheapest,oracle")
    assert swept.status == 1
    # Said for all jobs before the first one starts.
    assert swept.errors == alone.errors
    assert read_statuses(SweepFolder(tmp_path / "outputs" / "sweeps" / "baselines")) == {}
