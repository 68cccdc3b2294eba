"""The end of a run, of a trained router as of a baseline: validate, evaluate, draw, record, write the report."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from causal_lm_router.config import PROMPTED, BaselineRunConfig, Split, TrainConfig
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.evaluation.evaluation_folder import write_evaluation
from causal_lm_router.evaluation.figures.drawing import save_figure
from causal_lm_router.evaluation.figures.learning_curve import draw_learning_curve
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.report_table import print_report
from causal_lm_router.evaluation.stored import REPORT
from causal_lm_router.files.checksums import add_checksum, write_checked
from causal_lm_router.models.adapter import is_adapter
from causal_lm_router.models.precision import precision_facts
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.runs.model_card import model_card
from causal_lm_router.runs.provenance import describe_origin
from causal_lm_router.runs.run_folder import RouterMetadata, RunFolder
from causal_lm_router.runs.run_warnings import add_warnings
from causal_lm_router.runs.session import record_evaluation
from causal_lm_router.runs.sweep_folder import sweep_of
from causal_lm_router.runs.tracking import Tracking, read_metrics
from causal_lm_router.terminal import name_work

Evaluate = Callable[..., Evaluation]
"""Takes examples and, by keyword, `with_predictions` and `validation`; see `evaluate_outcomes`."""


def finish_run(
    config: TrainConfig,
    folder: RunFolder,
    data: PreparedData,
    evaluate: Evaluate,
    tracking: Tracking,
    fit_seconds: float,
    encoder: Encoder | None = None,
) -> RoutingReport:
    """Evaluate what a run made, record it everywhere, leave the run folder complete and return the final report.

    `encoder` is that of a trained router; with it the folder also gets the learning curve and the model card.
    """
    if isinstance(encoder, PairEncoder) and not folder.neighbours.is_file():
        encoder.neighbours.write(folder.neighbours)
    # Routing later needs the pool. Mean costs are for decoding with a cost weight, which a baseline does not do.
    folder.write_metadata(RouterMetadata(data.splits.pool, data.best_single, data.mean_costs if encoder else None))
    # A baseline takes no steps: it has no metrics before its evaluation, which is recorded at step 0.
    step = max((row.step for row in read_metrics(folder.metrics)), default=0) if encoder else 0
    # The whole validation split comes first: models are chosen by it, and predictions are calibrated on it, never on
    # the queries that the report is about.
    validation = _validate(config, folder, data, evaluate, tracking, step)
    split = config.evaluation.final_split
    with name_work(split.value):
        evaluation = evaluate(data.examples(split), with_predictions=True, validation=validation)
    evaluation = add_warnings(evaluation, config, data.splits, folder.weights if encoder else None)
    if encoder is not None:
        _describe_router(config, folder, data, encoder, evaluation.report)
        tracking.log_adapter(folder.weights)
        tracking.log_files([_curve_path(folder)])
    # The report is the last file that is written: it marks a finished run.
    record_final(
        tracking, evaluation, folder.path, {**report_facts(config, data, split), "fit_seconds": fit_seconds}, step
    )
    _print_end(folder, evaluation.report)
    return evaluation.report


def record_final(tracking: Tracking, evaluation: Evaluation, folder: Path, facts: dict[str, Any], step: int) -> None:
    """Write an evaluation and its `facts` (see `report_facts`) to a folder, and send it to every tracker."""
    split, report = facts["split"], evaluation.report
    record_evaluation(tracking, evaluation, split, step)
    pictures = write_evaluation(folder, evaluation, facts)
    # After the report: of an end that is interrupted before it, all that it recorded goes.
    add_checksum(RunFolder(folder).metrics)
    tracking.log_confusion(report.candidate_names, report.confusion, split, step, folder / "confusion.png")
    tracking.log_pictures(pictures, split, step)
    tracking.log_files([folder / REPORT])


def _curve_path(folder: RunFolder) -> Path:
    return folder.path / "learning_curve.png"


def _describe_router(
    config: TrainConfig,
    folder: RunFolder,
    data: PreparedData,
    encoder: Encoder,
    report: RoutingReport,
) -> None:
    """Leave what only a trained router has: a drawing of its metrics over the steps, and a card with its weights."""
    rows = [(row.step, row.name, row.value) for row in read_metrics(folder.metrics)]
    save_figure(draw_learning_curve(rows), _curve_path(folder))
    adapter, split = is_adapter(folder.weights), config.evaluation.final_split
    write_checked(folder.card, model_card(config, data, encoder, report, split, adapter=adapter))


def _print_end(folder: RunFolder, report: RoutingReport) -> None:
    """Print the report of a single run; a sweep prints a table over all its jobs instead."""
    if sweep_of(folder.path) is None:
        print_report(report, Console())
        print(f"\nrun folder: {os.path.relpath(folder.path)}")


def _validate(
    config: TrainConfig, folder: RunFolder, data: PreparedData, evaluate: Evaluate, tracking: Tracking, step: int
) -> Evaluation | None:
    """Evaluate on the whole validation split, where that is asked for and has queries."""
    examples = data.examples(Split.validation)
    if not config.evaluation.final_validation or not examples:
        return None
    with name_work(Split.validation.value):
        evaluation = evaluate(examples)
    # Under a name of its own: evaluations while training cover a part of the same split.
    record_evaluation(tracking, evaluation, "final_validation", step)
    write_evaluation(folder.validation, evaluation, report_facts(config, data, Split.validation), with_pictures=False)
    return evaluation


def report_facts(config: TrainConfig, data: PreparedData, split: Split) -> dict[str, Any]:
    """Return what a report says about how it was made; nothing about a base model where a baseline asked none."""
    splits = data.splits
    facts = {
        "name": config.name,
        "seed": config.seed,
        "base_model": config.base_model.name,
        "precision": precision_facts(config),
        "backend": config.inference.backend.value,
        "temperature": config.inference.temperature,
        "provenance": describe_origin(config.data, data),
        "split": split.value,
        "num_train": len(data.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
        "num_skipped_rows": len(splits.skipped_rows),
        "skipped_rows": [asdict(row) for row in splits.skipped_rows[:20]],  # enough to see what is wrong with them
        "leakage": splits.audit.to_dict(),
    }
    if isinstance(config, BaselineRunConfig):
        facts["baseline"] = config.baseline.method.value
        # Its config has them all the same, since it is that of the router it is compared with.
        if config.baseline.method not in PROMPTED:
            for key in ("base_model", "precision", "backend", "temperature"):
                del facts[key]
    return facts
