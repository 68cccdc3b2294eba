"""Every file of a run folder and of the cache, damaged in three ways: told in one line, or without any effect."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.evaluation.evaluation_folder import write_evaluation
from causal_lm_router.files.checksums import CHECKSUMS, drop_checksum, find_damage
from causal_lm_router.files.writing import cache_dir
from causal_lm_router.models.base_model import base_model_source
from causal_lm_router.runs import finish
from causal_lm_router.runs.evaluate_run import evaluate_run
from causal_lm_router.runs.merge_run import merge_run
from causal_lm_router.runs.router import CausalLMRouter
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.sweeps.report.runs import read_runs
from tests.damage import DAMAGES
from tests.runs.test_train_run import evaluate_config, read_report

pytestmark = pytest.mark.slow
SETTINGS = ["target=token", "lora.num_layers=1", "lora.lora_dropout=0.0", "trainer.reuse_frozen_layers=true"]
SETTINGS += ["trainer.checkpoint_every_n_steps=2", "tracking.tensorboard=false", "trainer.progress_bar=false"]
PICTURES = ("*.png", "README.md")
"""Files for people, which no command reads."""
ENDS = ("adapter", "merged", "validation", "report.json", "outcomes.jsonl", "router.json", "decodings")
"""What a run lacks that was interrupted while it trained."""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder that nothing else uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The config of a finished run with everything in its folder and in the cache."""
    made: TrainConfig = tiny_config(*SETTINGS, f"run_dir={tmp_path_factory.mktemp('whole') / 'run'}")
    train_router(made)
    return made


@pytest.fixture
def copy(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The config of a copy of the finished run."""
    shutil.copytree(config.run_dir, tmp_path / "run")
    return dataclasses.replace(config, run_dir=str(tmp_path / "run"))


def evaluate(config: TrainConfig) -> Any:
    load_run_config(Path(config.run_dir))
    output = Path(config.run_dir) / "again"
    evaluate_run(evaluate_config(config, output))
    report = read_report(output)
    shutil.rmtree(output)
    return report


def route(config: TrainConfig) -> Any:
    load_run_config(Path(config.run_dir))
    with CausalLMRouter.from_run(config.run_dir, config) as router:
        return router.route_batch(["What is 2 + 2?", "Sort the words."])


def merge(config: TrainConfig) -> Any:
    load_run_config(Path(config.run_dir))
    return (merge_run(config) / "model.safetensors").read_bytes()


def report(config: TrainConfig) -> Any:
    (run,) = read_runs([Path(config.run_dir)])
    if run.state == "unreadable":
        raise ValueError(run.detail)
    return [run.config, run.test and run.test.report, run.validation and run.validation.report, run.curves]


def resume(config: TrainConfig) -> Any:
    """Go on as a run that was interrupted at its last checkpoint; return what it comes to."""
    folder = Path(config.run_dir)
    load_run_config(folder)
    train_router(config)
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    metrics = [row for row in read_metrics(folder / "metrics.csv") if "queries_per_second" not in row.name]
    return [read_report(folder), weights, metrics]


def interrupt(config: TrainConfig) -> None:
    """Take away what a run gets at its end."""
    folder = Path(config.run_dir)
    for name in ENDS:
        drop_checksum(folder / name)
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def files(folder: Path) -> list[Path]:
    """The files that a command may read, relative to the folder."""
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if not any(path.match(pattern) for pattern in PICTURES)]


def outcome(command: Callable[[TrainConfig], Any], config: TrainConfig) -> Any:
    """What a command returns; the line in which it tells of bad input, as the command line would print it."""
    try:
        return command(config)
    except (ValueError, OSError) as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return str(error)


def reads(command: Callable[[TrainConfig], Any], path: Path) -> bool:
    """Whether a command reads a file of a finished run."""
    if str(path) in ("config.yaml", CHECKSUMS):
        return True
    if command is report:
        return path.parts[0] in ("report.json", "outcomes.jsonl", "validation", "metrics.csv")
    return path.parts[0] in ("router.json", "adapter")


@pytest.mark.parametrize("command", [evaluate, route, merge, report])
def test_every_file_of_a_finished_run(copy: TrainConfig, command: Callable[[TrainConfig], Any]) -> None:
    folder = Path(copy.run_dir)
    if command is merge:
        shutil.rmtree(folder / "merged")
    sound = command(copy)
    if command is merge:
        shutil.rmtree(folder / "merged")
    assert find_damage(folder)[1] == []
    read = [name for name in files(folder) if reads(command, name)]
    for name in read:
        kept = (folder / name).read_bytes()
        for damage in DAMAGES:
            damage(folder / name)
            assert any(str(name) in found for found in find_damage(folder)[1]), name
            found = outcome(command, copy)
            assert isinstance(found, str), (name, damage)
            assert f"{name}: damaged: " in found
        (folder / name).write_bytes(kept)
    # All others at once: they make no difference.
    for damage in DAMAGES:
        for name in set(files(folder)) - set(read):
            damage(folder / name)
        assert command(copy) == sound, damage


def test_a_damaged_merged_checkpoint_is_made_anew(copy: TrainConfig) -> None:
    folder = Path(copy.run_dir) / "merged"
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in sound:
        for damage in DAMAGES:
            damage(folder / name)
            merge(copy)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == sound, (name, damage)


def test_every_file_that_resume_reads(copy: TrainConfig) -> None:
    folder = Path(copy.run_dir)
    interrupt(copy)
    interrupted = folder.with_name("interrupted")
    shutil.copytree(folder, interrupted)
    sound = resume(copy)
    for name in files(interrupted):
        for damage in DAMAGES:
            shutil.rmtree(folder)
            shutil.copytree(interrupted, folder)
            damage(folder / name)
            found = outcome(resume, copy)
            assert isinstance(found, str), (name, damage)
            assert f"{name}: damaged: " in found
    shutil.rmtree(folder)
    shutil.copytree(interrupted, folder)
    assert resume(copy) == sound


@pytest.mark.parametrize("num_written", [0, 1], ids=["validation", "final split"])
def test_an_end_that_was_interrupted_is_recorded_once(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_written: int
) -> None:
    written: list[Path] = []

    def write_or_stop(folder: Path, *arguments: Any, **options: Any) -> Any:
        if len(written) == num_written:
            raise KeyboardInterrupt
        written.append(folder)
        return write_evaluation(folder, *arguments, **options)

    again = dataclasses.replace(config, run_dir=str(tmp_path / "again"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finish, "write_evaluation", write_or_stop)
        train_router(again)
    assert len(written) == num_written
    whole = read_metrics(Path(config.run_dir) / "metrics.csv")
    train_router(again)
    rows = read_metrics(tmp_path / "again" / "metrics.csv")
    assert [(row.step, row.name) for row in rows] == [(row.step, row.name) for row in whole]


def test_a_whole_cache_is_made_anew(copy: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(copy.run_dir)
    interrupt(copy)
    shutil.copytree(folder, folder.with_name("interrupted"))
    sound = resume(copy)
    kinds = {path.name for path in cache_dir().iterdir()}
    assert {"base_models", "extended_models", "encoded", "hidden_states"} <= kinds
    for damage in DAMAGES:
        for path in cache_dir().rglob("*"):
            if path.is_file() and path.stat().st_size and path.name != CHECKSUMS:
                damage(path)
        caplog.clear()
        shutil.rmtree(folder)
        shutil.copytree(folder.with_name("interrupted"), folder)
        assert resume(copy) == sound
        anew = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        for kind in ("base_models", "extended_models", "encoded", "hidden_states"):
            assert any(f"/{kind}/" in line and line.endswith("it is made anew") for line in anew), kind


def test_every_file_of_a_base_model_in_the_cache(config: TrainConfig) -> None:
    tokens = {"<one>": "one"}
    folder = Path(base_model_source(config.base_model, tokens))
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in sound:
        for damage in DAMAGES:
            damage(folder / name)
            assert Path(base_model_source(config.base_model, tokens)) == folder
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == sound, (name, damage)


def test_metadata_of_something_else_is_told(copy: TrainConfig) -> None:
    path = Path(copy.run_dir) / "router.json"
    drop_checksum(path)
    for text in ('{"pool": []}', "[]", '{"pool": [{"who": 1}], "best_single": "a"}', '{"pool": 1, "best_single": "a"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"^\S+router\.json: must hold the pool and best_single of a router, got "):
            RunFolder(Path(copy.run_dir)).read_metadata()
    assert json.loads(text)


def test_weights_without_checksums_are_told_too(copy: TrainConfig) -> None:
    folder = Path(copy.run_dir)
    for place in (folder / "adapter", next((folder / "checkpoints").iterdir())):
        (place / CHECKSUMS).unlink()
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "adapter" in outcome(evaluate, copy)
    interrupt(copy)
    for path in (folder / "checkpoints").rglob("*.*t*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    assert "resume then starts from the beginning" in outcome(resume, copy)
