"""The body of the `evaluate` command: evaluate a run's weights again."""

import os
from pathlib import Path

from rich.console import Console

from causal_lm_router.config import DecodingMethod, EvaluateConfig, Split
from causal_lm_router.evaluation.evaluation_folder import write_evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.evaluation.report_table import print_report
from causal_lm_router.runs.finish import report_facts
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import (
    check_pool_of_run,
    open_session,
)
from causal_lm_router.terminal import name_work


def evaluate_run(config: EvaluateConfig) -> RoutingReport:
    """Evaluate a run's weights on `evaluation.final_split` and write the results to `output_dir`."""
    folder = RunFolder(Path(config.run_dir))
    metadata = folder.read_metadata()
    with open_session(config, folder) as session:
        check_pool_of_run(config, metadata, session.data)
        split = config.evaluation.final_split
        also = config.decoding.also
        validation = None
        if DecodingMethod.scored in (config.decoding.method, *also) and split is not Split.validation:
            examples = session.data.examples(Split.validation)
            with name_work(Split.validation.value):
                validation = session.evaluate(folder.weights, examples, also) if examples else None
        with name_work(split.value):
            evaluation = session.evaluate(
                folder.weights, session.data.examples(split), also, with_predictions=True, validation=validation
            )
        write_evaluation(Path(config.output_dir), evaluation, report_facts(config, session.data, split))
    print_report(evaluation.report, Console())
    print(f"\nevaluation folder: {os.path.relpath(config.output_dir)}")
    return evaluation.report
