"""Whole runs on the tiny base model: the folder they leave, evaluating it again, refusing, killing, sharing out."""

import csv
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from causal_lm_router.commands import cli
from causal_lm_router.config import EvaluateConfig, TrainConfig
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.models.adapter import is_adapter
from causal_lm_router.runs.evaluate_run import evaluate_run
from causal_lm_router.runs.merge_run import merge_run
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.training.checkpoint import last_checkpoint

SETTINGS = ["lora=all_linear", "lora.lora_r=32", "lora.lora_dropout=0.0", "optim.learning_rate=0.01"]
SETTINGS += ["trainer.num_epochs=6", "trainer.batch_size=8", "evaluation.every_n_epochs=2"]
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def finished(
    tiny_config: Callable[..., Any], tiny_base: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of a finished run, and what `train_router` returned of it."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_data(folder / "data.jsonl", every=3)
    config = tiny_config(*data, *SETTINGS, f"run_dir={folder / 'run'}", "tracking.tensorboard=false")
    report = train_router(config)
    assert report is not None
    return config, report.to_dict()


def write_data(path: Path, every: int) -> list[str]:
    """Write 100 queries, whose word says which LLM is best, `large` on one in `every`; return the overrides."""
    with path.open("w") as file:
        for number in range(100):
            word, best = ("model", "large") if number % every == 0 else ("the", "small")
            scores = {name: float(name == best) for name in ("small", "large")}
            file.write(json.dumps({"query": f"{word} {number} {word}", "scores": scores}) + "\n")
    return ["data=jsonl", f"data.path={path}", "data.tie_break=first"]


def read_report(folder: Path) -> dict[str, Any]:
    """report.json without what depends on the clock."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for key in ("queries_per_second", "fit_seconds", "provenance"):
        report.pop(key, None)
    return report


def read_losses(folder: Path) -> list[tuple[str, str, str]]:
    """Step, epoch and value of every training loss, as written."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["step"], row["epoch"], row["value"]) for row in rows if row["name"] == "train/loss"]


@pytest.mark.slow
def test_a_run_leaves_its_folder(finished: tuple[TrainConfig, dict[str, Any]]) -> None:
    folder = Path(finished[0].run_dir)
    assert {path.name for path in folder.iterdir()} == {
        "adapter",
        "checkpoints",
        "checksums.txt",
        "config.yaml",
        "confusion.png",
        "learning_curve.png",
        "merged",
        "metrics.csv",
        "outcomes.jsonl",
        "report.json",
        "router.json",
        "routes_by_task.png",
        "scores.png",
        "validation",
    }
    for picture in ("confusion.png", "learning_curve.png", "routes_by_task.png", "scores.png"):
        assert (folder / picture).read_bytes().startswith(PNG)
    assert is_adapter(folder / "adapter")
    assert not is_adapter(folder / "merged")
    assert (folder / "merged" / "model.safetensors").is_file()
    assert [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")] == []


@pytest.mark.slow
def test_the_estimates_of_a_run_agree_with_one_another(finished: tuple[TrainConfig, dict[str, Any]]) -> None:
    config, returned = finished
    folder = Path(config.run_dir)
    report = json.loads((folder / "report.json").read_text())
    outcomes = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]
    assert {key: report[key] for key in returned} == json.loads(json.dumps(returned))
    assert len(outcomes) == report["num_test"] == 10
    assert report["num_train"] == 80
    num_right = sum(row["route"] == row["label"] for row in outcomes)
    assert report["routing_accuracy"]["value"] == pytest.approx(num_right / 10)
    with (folder / "metrics.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert names.count("train/loss") == 60
    assert names.count("validation/routing_accuracy") == 3
    assert names.count("test/routing_accuracy") == 1


@pytest.mark.slow
def test_a_run_learns_which_llm_is_best(tiny_config: Callable[..., Any], tiny_base: Any, tmp_path: Path) -> None:
    # Half of the queries go to each LLM, so 0.5 is what knowing nothing gets; the two kinds share no word.
    data = write_data(tmp_path / "data.jsonl", every=2)
    # 160 steps at a low rate: accuracy is 1.0 for every seed and rounding that was tried.
    settings = ["trainer.num_epochs=16", "optim.learning_rate=0.005", "evaluation=final_only"]
    settings += ["evaluation.final_split=train", "data.test_fraction=0", "evaluation.final_validation=false"]
    config = tiny_config(*data, *SETTINGS, *settings, f"run_dir={tmp_path / 'run'}", "tracking.tensorboard=false")
    report = train_router(config)
    assert report is not None
    assert report.routing_accuracy.value > 0.8


def test_the_config_in_the_folder_is_that_of_the_run(finished: tuple[TrainConfig, dict[str, Any]]) -> None:
    config = load_run_config(Path(finished[0].run_dir))
    assert config["lora"]["target_modules"] == ["all-linear"]
    assert config["optim"]["learning_rate"] == 0.01
    assert config["data"]["source"] == "jsonl"


def evaluate_config(config: TrainConfig, output_dir: Path, **changes: Any) -> EvaluateConfig:
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return EvaluateConfig(**(fields | changes), output_dir=str(output_dir), latency_calls=None)


@pytest.mark.slow
def test_evaluating_again_reproduces_every_estimate(
    finished: tuple[TrainConfig, dict[str, Any]], tmp_path: Path
) -> None:
    folder = Path(finished[0].run_dir)
    evaluate_run(evaluate_config(finished[0], tmp_path / "again"))
    assert read_report(tmp_path / "again") == read_report(folder)
    assert (tmp_path / "again" / "outcomes.jsonl").read_bytes() == (folder / "outcomes.jsonl").read_bytes()
    assert (tmp_path / "again" / "confusion.png").read_bytes().startswith(PNG)
    rows = [(row.step, row.name) for row in read_metrics(tmp_path / "again" / "metrics.csv")]
    # Once more into the same folder: recorded once.
    evaluate_run(evaluate_config(finished[0], tmp_path / "again"))
    assert [(row.step, row.name) for row in read_metrics(tmp_path / "again" / "metrics.csv")] == rows


def test_evaluating_another_pool_is_refused(finished: tuple[TrainConfig, dict[str, Any]], tmp_path: Path) -> None:
    rows = [{"query": f"q{number}", "scores": {"x": number % 2, "y": 0.5}} for number in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = dataclasses.replace(finished[0].data, path=str(tmp_path / "data.jsonl"))
    with pytest.raises(ValueError, match=r"data: .*it lacks small, large; it adds x, y \(the pool is small, large\)"):
        evaluate_run(evaluate_config(finished[0], tmp_path / "out", data=data))
    assert not (tmp_path / "out").exists()


def test_plain_transformers_generates_the_same_from_the_merged_checkpoint(
    finished: tuple[TrainConfig, dict[str, Any]],
) -> None:
    from causal_lm_router.data.prepared import prepare_data

    config = finished[0]
    folder = Path(config.run_dir)
    queries = {example.query_id: example.query for example in prepare_data(config.data).splits.test}
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    model = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()
    for line in (folder / "outcomes.jsonl").read_text().splitlines():
        outcome = json.loads(line)
        inputs = tokenizer(f"Query: {queries[outcome['query_id']]}\n\nBest LLM:", return_tensors="pt")
        generated = model.generate(**inputs, max_new_tokens=config.inference.max_new_tokens, do_sample=False)
        new = generated[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True) == outcome["generation"]


def test_merging_again_keeps_the_merged_checkpoint(
    finished: tuple[TrainConfig, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(finished[0].run_dir)
    stamp = (folder / "merged" / "model.safetensors").stat().st_mtime_ns
    assert merge_run(finished[0]) == folder / "merged"
    assert capsys.readouterr().out == f"{folder / 'merged'}\n"
    assert (folder / "merged" / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_finished_run_is_refused(finished: tuple[TrainConfig, dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"run_dir must be a folder without a finished run, got .*/run"):
        train_router(finished[0])


@pytest.fixture
def unfinished(finished: tuple[TrainConfig, dict[str, Any]], tmp_path: Path) -> TrainConfig:
    """The config of a run that was interrupted as it began."""
    folder = tmp_path / "unfinished"
    folder.mkdir()
    (folder / "config.yaml").write_text((Path(finished[0].run_dir) / "config.yaml").read_text())
    return dataclasses.replace(finished[0], run_dir=str(folder))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (None, {"seed": 1}, r"holds a run with seed=0 \(here 1\)"),
        ("optim", {"learning_rate": 0.02}, r"holds a run with optim\.learning_rate=0\.01 \(here 0\.02\)"),
        ("data", {"max_train_queries": 5}, r"holds a run with data\.max_train_queries=None \(here 5\)"),
        ("trainer", {"extra": {"max_steps": 2}}, r"holds a run with trainer\.extra\.max_steps=None \(here 2\)"),
    ],
)
def test_a_folder_of_another_config_is_refused(
    unfinished: TrainConfig, part: str | None, changes: dict[str, Any], message: str
) -> None:
    if part is not None:
        changes = {part: dataclasses.replace(getattr(unfinished, part), **changes)}
    with pytest.raises(ValueError, match=message):
        train_router(dataclasses.replace(unfinished, **changes))
    assert [path.name for path in Path(unfinished.run_dir).iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_other_tracking(
    finished: tuple[TrainConfig, dict[str, Any]], unfinished: TrainConfig
) -> None:
    config = dataclasses.replace(unfinished, tracking=dataclasses.replace(unfinished.tracking, tensorboard=True))
    train_router(config)
    assert read_report(Path(config.run_dir)) == read_report(Path(finished[0].run_dir))
    assert (Path(config.run_dir) / "tensorboard").is_dir()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=jsonl", "data.path=missing.jsonl"], "missing.jsonl"),
        (["data.validation_fraction=0"], r"evaluation\.split must .* got 'validation'"),
        (["data.test_fraction=0"], r"evaluation\.final_split must .* got 'test'"),
        (["parsing.fallback_candidate=nobody"], r"parsing\.fallback_candidate must .* got 'nobody'"),
        (["prompt.max_length=20"], r"prompt\.max_length must be .*, got 20"),
        (["base_model.origin=hub", "base_model.name=./nowhere"], r"base_model\.name must be .*, got '\./nowhere'"),
    ],
)
@pytest.mark.slow
def test_what_cannot_run_leaves_no_folder(
    tiny_config: Callable[..., Any], tiny_base: Any, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        train_router(tiny_config(f"run_dir={tmp_path / 'run'}", *overrides))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_evaluation_a_validation_split_is_not_needed(
    tiny_config: Callable[..., Any], tiny_base: Any, tmp_path: Path
) -> None:
    overrides = ["evaluation=final_only", "data.validation_fraction=0", "data.max_train_queries=16", "lora=none"]
    train_router(tiny_config(*overrides, f"run_dir={tmp_path / 'run'}", "tracking.tensorboard=false"))
    assert read_report(tmp_path / "run")["num_validation"] == 0
    assert not is_adapter(tmp_path / "run" / "adapter")
    assert not (tmp_path / "run" / "merged").exists()


def command_line(log: Path, *arguments: str) -> None:
    """In a process of its own: a command, with what it prints going to a file."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["causal-lm-router", *arguments]
        torch.set_num_threads(1)
        cli.main()


@pytest.fixture
def start(forkserver: ForkServerContext, tiny_base: Any, tmp_path: Path) -> Callable[..., BaseProcess]:
    """Function that starts a command in another process."""

    def start_command(*arguments: str) -> BaseProcess:
        process = forkserver.Process(target=command_line, args=(tmp_path / "log", *arguments))
        process.start()
        return process

    return start_command


def finish(process: BaseProcess, tmp_path: Path) -> None:
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()


def wait_for_losses(folder: Path, number: int, process: BaseProcess) -> None:
    """Return once so many training losses are written."""
    while not (folder / "metrics.csv").exists() or len(read_losses(folder)) < number:
        assert process.exitcode is None, (folder.parent / "log").read_text()
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_and_resumed_runs_equal_uninterrupted_ones(start: Callable[..., BaseProcess], tmp_path: Path) -> None:
    # Six steps an epoch and a checkpoint every four: kills fall within epochs and at their ends, in and between writes.
    overrides = ["data=simulated", "debug=smoke"]
    overrides += ["evaluation=final_only", "trainer.num_epochs=3", "trainer.checkpoint_every_n_steps=4"]
    overrides += ["trainer.progress_bar=false", "tracking.tensorboard=false"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start("train", *overrides, f"run_dir={whole}"), tmp_path)
    rng = random.Random(0)
    process = start("train", *overrides, f"run_dir={killed}")
    for number in (2, 6, 9, 12, 16):
        wait_for_losses(killed, number, process)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -9
        checkpoint = last_checkpoint(killed / "checkpoints")
        assert checkpoint is not None or number < 5
        process = start("resume", f"run_dir={killed}")
    finish(process, tmp_path)
    assert read_losses(killed) == read_losses(whole)
    assert len(read_losses(killed)) == 18
    weights = Path("adapter") / "adapter_model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    assert read_report(killed) == read_report(whole)


@pytest.mark.slow
def test_each_job_of_a_sweep_has_its_folder(start: Callable[..., BaseProcess], tmp_path: Path) -> None:
    overrides = ["data=simulated", "debug=smoke"]
    overrides += ["evaluation=final_only", "data.max_train_queries=16", "trainer.progress_bar=false"]
    finish(start("train", "--multirun", *overrides, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"), tmp_path)
    folders = [path.parent for path in (tmp_path / "sweep").glob("*/adapter")]
    assert sorted(read_report(folder)["seed"] for folder in folders) == [0, 1]


def is_gone(process_group: int, timeout_s: float = 30.0) -> bool:
    """Whether nothing is left of a process group, once what has ended is also off the system's list."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.killpg(process_group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_two_processes_train_as_one(start: Callable[..., BaseProcess], tmp_path: Path) -> None:
    # 33 queries in steps of 16: the second process has none of the last step. Few tokens: several micro-batches each.
    overrides = ["data=simulated", "debug=smoke"]
    overrides += ["data.max_train_queries=33", "lora.lora_dropout=0.0", "optim.learning_rate=0.005"]
    overrides += ["trainer.max_tokens_per_batch=400", "trainer.num_epochs=2", "evaluation.max_queries=4"]
    finish(start("train", *overrides, "trainer.batch_size=16", f"run_dir={tmp_path / 'one'}"), tmp_path)
    two = ["trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=8"]
    program = Path(sys.executable).with_name("causal-lm-router")
    process = subprocess.Popen(
        [program, "train", *overrides, *two],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    printed = process.communicate(timeout=280)[0]
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    assert is_gone(process.pid)
    (folder,) = (tmp_path / "outputs" / "smoke").iterdir()
    losses, expected = read_losses(folder), read_losses(tmp_path / "one")
    assert [row[:2] for row in losses] == [row[:2] for row in expected]
    assert len(losses) == 6
    values = [float(row[2]) for row in losses]
    assert values == pytest.approx([float(row[2]) for row in expected], abs=1e-5)
    assert read_report(folder)["num_train"] == 33
    assert printed.count("run folder:") == 2, "the first process alone says it, at the start and at the end"
