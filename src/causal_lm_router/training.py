"""The bodies of the commands that work on run folders: train, resume, evaluate and merge."""

import hashlib
import logging
import os
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from causal_lm_router.atomic import write_text
from causal_lm_router.base_model import is_adapter, merge_adapter
from causal_lm_router.checkpoint import checkpoint_step, last_checkpoint
from causal_lm_router.compose import config_dict, describe_differences, dump_config, identity_of, load_run_config
from causal_lm_router.config import DecodingMethod, EvaluateConfig, Split, TrainConfig, generating_model
from causal_lm_router.evaluation import Evaluation, with_predictions
from causal_lm_router.extended_model import base_model_source
from causal_lm_router.figures import save_learning_curve
from causal_lm_router.fit import fit
from causal_lm_router.prepared import PreparedData
from causal_lm_router.report_table import print_report
from causal_lm_router.routing_report import RoutingReport
from causal_lm_router.run_folder import RouterCard, RunFolder, write_evaluation
from causal_lm_router.session import (
    Session,
    Watch,
    check_pool_of_run,
    check_splits,
    is_first_process,
    open_session,
    record_evaluation,
    run_targets,
)
from causal_lm_router.sweep_folder import sweep_of
from causal_lm_router.tracking import Tracking, open_tracking, read_metrics
from causal_lm_router.workbench import Workbench

logger = logging.getLogger(__name__)


def train_router(
    config: TrainConfig, workbench: Workbench | None = None, watch: Watch | None = None
) -> RoutingReport | None:
    """Train, evaluate and leave a run folder; go on where an interrupted run of the same config stopped.

    Jobs of one process share a workbench; without one the run has its own, closed at its end. `watch` sees every
    evaluation during training. Returns the final report; None on processes other than the first.

    Raises:
        ValueError: the folder holds a finished run, or one of another config.
        PrunedError: `watch` ended the run.
    """
    folder = RunFolder(Path(config.run_dir))
    check_folder(folder, config)
    with open_session(config, folder, workbench, watch) as session:
        check_splits(config.evaluation, session.data)
        if is_first_process() and not folder.config.is_file():
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.config, dump_config(config))
        return _train(session)


def _train(session: Session) -> RoutingReport | None:
    folder = session.folder
    with open_run_tracking(session.config, session.folder) as tracking:
        start = time.perf_counter()
        if not folder.weights.is_dir():
            fit(session, tracking)
        if not is_first_process():
            return None
        return _finish(session, tracking, time.perf_counter() - start)


def evaluate_run(config: EvaluateConfig) -> RoutingReport:
    """Evaluate a run's weights on `evaluation.final_split` and write the results to `output_dir`."""
    folder = RunFolder(Path(config.run_dir))
    card = folder.read_card()
    with open_session(config, folder) as session:
        check_pool_of_run(config, card, session.data)
        split = config.evaluation.final_split
        also = config.decoding.also
        validation = None
        if DecodingMethod.scored in (config.decoding.method, *also) and split is not Split.validation:
            examples = session.data.examples(Split.validation)
            validation = session.evaluate(folder.weights, examples, also) if examples else None
        evaluation = session.evaluate(folder.weights, session.data.examples(split), also)
        evaluation = with_predictions(evaluation, validation)
        write_evaluation(Path(config.output_dir), evaluation, report_facts(config, session.data, split), validation)
    print_report(evaluation.report, Console())
    print(f"\nevaluation folder: {os.path.relpath(config.output_dir)}")
    return evaluation.report


def merge_run(config: TrainConfig) -> Path:
    """Write the merged checkpoint of a run where it is missing and return its folder."""
    folder = RunFolder(Path(config.run_dir))
    _merge(config, folder, folder.read_card())
    print(folder.merged)
    return folder.merged


def _merge(config: TrainConfig, folder: RunFolder, card: RouterCard) -> None:
    if not folder.merged.is_dir():
        targets = run_targets(config, card.names, card.best_single)
        source = base_model_source(config.base_model, targets.new_tokens)
        merge_adapter(source, generating_model(config.base_model, config.inference), folder.weights, folder.merged)


def check_folder(folder: RunFolder, config: TrainConfig) -> None:
    """Raise ValueError where the folder holds a finished run, or one of a config that gives other figures."""
    if folder.report.is_file():
        raise ValueError(f"run_dir={folder.path}: holds a finished run; choose another run_dir")
    if not folder.config.is_file():
        return
    ours, theirs = identity_of(config_dict(config)), identity_of(load_run_config(folder.path))
    different = describe_differences(theirs, ours)
    if different:
        raise ValueError(f"run_dir={folder.path}: holds a run with {', '.join(different)}; choose another run_dir")


def open_run_tracking(config: TrainConfig, folder: RunFolder) -> AbstractContextManager[Tracking]:
    """Return the tracking of a run or of a job of a sweep, which goes on where an interrupted one was."""
    names = _wandb_names(config, folder)
    checkpoint = last_checkpoint(folder.checkpoints)
    resume_step = None if folder.weights.is_dir() else checkpoint_step(checkpoint)
    tracking = replace(config.tracking, wandb=replace(config.tracking.wandb, group=names.group))
    return open_tracking(tracking, names.run, folder.path, config_dict(config), names.run_id, resume_step=resume_step)


class _WandbNames(NamedTuple):
    run: str
    run_id: str
    group: str | None


def _wandb_names(config: TrainConfig, folder: RunFolder) -> _WandbNames:
    """Return what W&B knows the run by: the same again when it resumes, and no other run's.

    A job of a sweep is known by the sweep's unique id and its own, a run of its own by the place of its folder.
    """
    group, sweep = config.tracking.wandb.group, sweep_of(folder.path)
    if sweep is None:
        return _WandbNames(config.name, _digest(str(folder.path.resolve())), group)
    card, job = sweep.read_card(), folder.path.name
    return _WandbNames(f"{config.name}-{job}", _digest(f"{card.uid}/{job}"), group or card.name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finish(session: Session, tracking: Tracking, fit_seconds: float) -> RoutingReport:
    config, folder = session.config, session.folder
    card = RouterCard(session.data.splits.pool, session.data.best_single, session.data.mean_costs)
    folder.write_card(card)
    if config.lora.merge_lora and is_adapter(folder.weights):
        _merge(config, folder, card)
    rows = read_metrics(folder.metrics)
    step = max((row.step for row in rows), default=0)
    validation = _validate(session, tracking, step)
    split = config.evaluation.final_split
    evaluation = session.evaluate(folder.weights, session.data.examples(split), config.decoding.also)
    evaluation = with_predictions(evaluation, validation)
    record_evaluation(tracking, evaluation, split.value, step)
    save_learning_curve([(row.step, row.name, row.value) for row in rows], folder.path / "learning_curve.png")
    facts = {**report_facts(config, session.data, split), "fit_seconds": fit_seconds}
    pictures = write_evaluation(folder.path, evaluation, facts, validation)
    picture = folder.path / "confusion.png"
    tracking.log_confusion(session.data.names, evaluation.report.confusion, split.value, step, picture)
    tracking.log_pictures(pictures, split.value, step)
    tracking.log_adapter(folder.weights)
    tracking.log_files([folder.report, folder.path / "learning_curve.png"])
    if sweep_of(folder.path) is None:
        print_report(evaluation.report, Console())
        print(f"\nrun folder: {os.path.relpath(folder.path)}")
    return evaluation.report


def _validate(session: Session, tracking: Tracking, step: int) -> Evaluation | None:
    """Evaluate the trained weights on the whole validation split, where that is asked for and has queries."""
    examples, config = session.data.examples(Split.validation), session.config
    if not config.evaluation.final_validation or not examples:
        return None
    evaluation = session.evaluate(session.folder.weights, examples, config.decoding.also)
    record_evaluation(tracking, evaluation, "final_validation", step)
    facts = report_facts(config, session.data, Split.validation)
    write_evaluation(session.folder.validation, evaluation, facts, with_pictures=False)
    return evaluation


def report_facts(config: TrainConfig, data: PreparedData, split: Split) -> dict[str, Any]:
    """Return what a report says of how it came about."""
    splits = data.splits
    return {
        "name": config.name,
        "seed": config.seed,
        "base_model": config.base_model.name,
        "backend": config.inference.backend.value,
        "temperature": config.inference.temperature,
        "split": split.value,
        "num_train": len(data.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
        "num_skipped_rows": len(splits.skipped_rows),
        "skipped_rows": [asdict(row) for row in splits.skipped_rows[:20]],
        "leakage": splits.audit.to_dict(),
    }
