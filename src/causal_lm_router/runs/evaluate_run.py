"""The body of the `evaluate` command: evaluate a run's weights again."""

import os
from pathlib import Path

from rich.console import Console

from causal_lm_router.config import DecodingMethod, EvaluateConfig, Split
from causal_lm_router.evaluation.evaluation_folder import write_evaluation
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.report_table import print_report
from causal_lm_router.runs.finish import report_facts
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.run_warnings import add_warnings
from causal_lm_router.runs.session import Session, check_pool_of_run, load_data, open_session
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.terminal import name_work


def evaluate_run(config: EvaluateConfig) -> RoutingReport:
    """Evaluate a run's weights on `evaluation.final_split` and write the results to `output_dir`.

    Raises:
        FileNotFoundError: the folder holds no trained router.
        ValueError: the data's pool is not that of the run, or the split holds no queries.
    """
    folder = RunFolder(Path(config.run_dir))
    metadata = folder.read_metadata()
    split, also = config.evaluation.final_split, config.decoding.also
    num, seed = config.evaluation.max_queries, config.data.split_seed
    with Workbench(keeps_base_model=False) as workbench:
        data = load_data(config.data, workbench)
        check_pool_of_run(config, metadata, data)
        with open_session(config, folder, data, workbench) as session:
            validation = _validate(session)
            with name_work(split.value):
                evaluation = session.evaluate(
                    folder.weights, data.examples(split, num, seed), also, with_predictions=True, validation=validation
                )
    evaluation = add_warnings(evaluation, config, data.splits, folder.weights)
    write_evaluation(Path(config.output_dir), evaluation, report_facts(config, data, split))
    print_report(evaluation.report, Console())
    print(f"\nevaluation folder: {os.path.relpath(config.output_dir)}")
    return evaluation.report


def _validate(session: Session) -> Evaluation | None:
    """Evaluate on validation, which calibrates predictions, where there are any and that split is another one."""
    config, decoding = session.config, session.config.decoding
    examples = session.data.examples(Split.validation, config.evaluation.max_queries, config.data.split_seed)
    predicts = DecodingMethod.scored in (decoding.method, *decoding.also)
    if not predicts or not examples or config.evaluation.final_split is Split.validation:
        return None
    with name_work(Split.validation.value):
        return session.evaluate(session.folder.weights, examples, decoding.also)
