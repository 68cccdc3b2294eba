"""The end of a run: validate, evaluate, draw, record, write the report."""

import os
from dataclasses import asdict
from typing import Any

from rich.console import Console

from causal_lm_router.config import Split, TrainConfig
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.evaluation.evaluation_folder import write_evaluation
from causal_lm_router.evaluation.figures.drawing import save_figure
from causal_lm_router.evaluation.figures.learning_curve import draw_learning_curve
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.report_table import print_report
from causal_lm_router.models.base_model import is_adapter
from causal_lm_router.models.precision import precision_facts
from causal_lm_router.runs.merge_run import merge_weights
from causal_lm_router.runs.run_folder import RouterMetadata
from causal_lm_router.runs.session import (
    Session,
    record_evaluation,
)
from causal_lm_router.runs.sweep_folder import sweep_of
from causal_lm_router.runs.tracking import Tracking, read_metrics
from causal_lm_router.terminal import name_work


def finish_run(session: Session, tracking: Tracking, fit_seconds: float) -> RoutingReport:
    config, folder = session.config, session.folder
    metadata = RouterMetadata(session.data.splits.pool, session.data.best_single, session.data.mean_costs)
    folder.write_metadata(metadata)
    if config.lora.merge_lora and is_adapter(folder.weights):
        merge_weights(config, folder, metadata)
    rows = read_metrics(folder.metrics)
    step = max((row.step for row in rows), default=0)
    validation = _validate(session, tracking, step)
    split = config.evaluation.final_split
    examples = session.data.examples(split)
    with name_work(split.value):
        evaluation = session.evaluate(
            folder.weights, examples, config.decoding.also, with_predictions=True, validation=validation
        )
    record_evaluation(tracking, evaluation, split.value, step)
    curve = draw_learning_curve([(row.step, row.name, row.value) for row in rows])
    save_figure(curve, folder.path / "learning_curve.png")
    facts = {**report_facts(session.configured, session.data, split), "fit_seconds": fit_seconds}
    pictures = write_evaluation(folder.path, evaluation, facts)
    picture = folder.path / "confusion.png"
    tracking.log_confusion(session.data.candidate_names, evaluation.report.confusion, split.value, step, picture)
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
    with name_work(Split.validation.value):
        evaluation = session.evaluate(session.folder.weights, examples, config.decoding.also)
    record_evaluation(tracking, evaluation, "final_validation", step)
    facts = report_facts(session.configured, session.data, Split.validation)
    write_evaluation(session.folder.validation, evaluation, facts, with_pictures=False)
    return evaluation


def report_facts(config: TrainConfig, data: PreparedData, split: Split) -> dict[str, Any]:
    """Return what a report says of how it came about."""
    splits = data.splits
    return {
        "name": config.name,
        "seed": config.seed,
        "base_model": config.base_model.name,
        "precision": precision_facts(config),
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
