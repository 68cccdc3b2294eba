"""Evaluate a run again, whole on its final split, with its own settings or others.

causal-lm-router evaluate run_dir=outputs/quickstart/2026-01-31_12-00-00 [inference.backend=transformers]
causal-lm-router evaluate -m run_dir=outputs/quickstart/2026-01-31_12-00-00 decoding=free,scored
"""

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from causal_lm_router.commands.hydra_command import is_sweep_job, job_folder, job_overrides, run_command
from causal_lm_router.config import EvaluateConfig
from causal_lm_router.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from causal_lm_router.commands.evaluations_table import Evaluated


def main() -> None:
    """Run the `evaluate` command."""
    evaluated: list[Evaluated] = []
    try:
        run_command("evaluate", EvaluateConfig, functools.partial(_job, evaluated), on_run=True)
    finally:
        # Where one of several evaluations fails, those before it have their table all the same.
        if evaluated:
            _print_all(evaluated)


def _job(evaluated: "list[Evaluated]", config: EvaluateConfig) -> None:
    # Said before the heavy imports: where there is no trained router.
    RunFolder(Path(config.run_dir)).read_metadata()
    from rich.console import Console

    from causal_lm_router.commands.evaluations_table import Evaluated
    from causal_lm_router.evaluation.report_table import print_report
    from causal_lm_router.runs.evaluate_run import evaluate_run

    # With --multirun each evaluation has a folder of its own in `output_dir`.
    folder = Path(job_folder())
    report = evaluate_run(replace(config, output_dir=str(folder)))
    if is_sweep_job():
        # A line for each, also from the workers of a parallel launcher, which know no table.
        score, accuracy = report.mean_score.value, report.routing_accuracy.value
        print(f"{os.path.relpath(folder)}: mean score {score:.3f}, routing accuracy {accuracy:.1%}", flush=True)
        evaluated.append(Evaluated(overrides=job_overrides(), folder=folder, report=report))
        return
    print_report(report, Console())
    print(f"\nevaluation folder: {os.path.relpath(folder)}")


def _print_all(evaluated: "list[Evaluated]") -> None:
    from rich.console import Console

    from causal_lm_router.commands.evaluations_table import print_evaluations

    print_evaluations(evaluated, Console())


if __name__ == "__main__":
    main()
