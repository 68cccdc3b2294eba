"""The body of the `evaluate` command: evaluate a run's weights again."""

from dataclasses import replace
from pathlib import Path

import yaml

from causal_lm_router.config import DecodingMethod, EvaluateConfig, Split
from causal_lm_router.config.plain import config_dict
from causal_lm_router.config.redact import redact_stored
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files.writing import remove_leftovers
from causal_lm_router.runs.finish import record_final, report_facts
from causal_lm_router.runs.provenance import write_config
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.run_warnings import add_warnings
from causal_lm_router.runs.session import Session, check_pool_of_run, load_data, open_session
from causal_lm_router.runs.tracking import open_evaluation_tracking
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.terminal import name_work


def evaluate_run(config: EvaluateConfig) -> RoutingReport:
    """Evaluate a run's weights on `evaluation.final_split` and write config and results to `output_dir`.

    Raises:
        FileNotFoundError: the folder holds no trained router.
        ValueError: the data's pool is not that of the run, or the split holds no queries.
        ConnectionError: as `open_tracking`.
    """
    folder = RunFolder(Path(config.run_dir))
    metadata, output = folder.read_metadata(), Path(config.output_dir)
    remove_leftovers(folder.path)
    with Workbench(keeps_base_model=False) as workbench:
        data = load_data(config.data, workbench)
        check_pool_of_run(config, metadata, data)
        with (
            open_session(config, folder, data, workbench) as session,
            open_evaluation_tracking(config, config_dict(config), output) as tracking,
        ):
            evaluation = add_warnings(_evaluate(session), config, data.splits, folder.weights)
            evaluation = _add_latency(evaluation, session, config.latency_calls)
            output.mkdir(parents=True, exist_ok=True)
            # Without what no run has: an evaluation's config reads as that of a run.
            stored = redact_stored(config_dict(config))
            settings = {key: value for key, value in stored.items() if key not in ("output_dir", "latency_calls")}
            write_config(RunFolder(output).config, yaml.safe_dump(settings, sort_keys=False), config.data, data)
            record_final(tracking, evaluation, output, report_facts(config, data, config.evaluation.final_split), 0)
    return evaluation.report


def _evaluate(session: Session) -> Evaluation:
    evaluation, also = session.config.evaluation, session.config.decoding.also
    examples = session.data.examples(evaluation.final_split, evaluation.max_queries, session.config.data.split_seed)
    validation = _validate(session)
    with name_work(evaluation.final_split.value):
        return session.evaluate(session.folder.weights, examples, also, with_predictions=True, validation=validation)


def _add_latency(evaluation: Evaluation, session: Session, num_calls: int | None) -> Evaluation:
    """Return the evaluation with the latency of routes like its own in its report, where calls are asked for."""
    if num_calls is None:
        return evaluation
    queries = [outcome.example.query for outcome in evaluation.outcomes]
    with name_work("latency"):
        latency = session.measure_latency(session.folder.weights, queries, num_calls)
    return replace(evaluation, report=replace(evaluation.report, latency=latency))


def _validate(session: Session) -> Evaluation | None:
    """Evaluate on validation, which calibrates predictions, where there are any and that split is another one."""
    config, decoding = session.config, session.config.decoding
    examples = session.data.examples(Split.validation, config.evaluation.max_queries, config.data.split_seed)
    predicts = DecodingMethod.scored in (decoding.method, *decoding.also)
    if not predicts or not examples or config.evaluation.final_split is Split.validation:
        return None
    with name_work(Split.validation.value):
        return session.evaluate(session.folder.weights, examples, decoding.also)
