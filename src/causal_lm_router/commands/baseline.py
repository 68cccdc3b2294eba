"""Fit a baseline on the same data as a router, evaluate it in the same way, leave a run folder.

causal-lm-router baseline baseline=knn_regression experiment=llmrouter_cpu data.path=path/to/llmrouter [baseline.k=100]
causal-lm-router baseline sweep=baselines experiment=llmrouter_cpu data.path=path/to/llmrouter
"""

from dataclasses import replace

from causal_lm_router.commands.early_checks import check_start
from causal_lm_router.commands.hydra_command import go_to_working_folder, is_sweep_job, job_folder, run_command
from causal_lm_router.config import BaselineRunConfig


def main() -> None:
    """Run the `baseline` command."""
    run_command("baseline", BaselineRunConfig, _job)


def _job(config: BaselineRunConfig) -> None:
    # The folder that Hydra made: a sweep gives each job its own.
    config = replace(config, run_dir=job_folder())
    if is_sweep_job():
        go_to_working_folder()
        from causal_lm_router.runs.workbench import shared_workbench
        from causal_lm_router.sweeps.job import launch_job

        # Jobs of one process share the base model, the data and the engine.
        launch_job(config, shared_workbench())
    else:
        check_start(config)
        from causal_lm_router.runs.baseline_run import run_baseline

        run_baseline(config)


if __name__ == "__main__":
    main()
