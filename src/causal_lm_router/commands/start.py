"""The start of a run by `train` and `baseline`: as a job of a sweep, or on its own."""

from dataclasses import replace

from causal_lm_router.commands.early_checks import check_start
from causal_lm_router.commands.hydra_command import go_to_working_folder, is_sweep_job, job_folder
from causal_lm_router.config import TrainConfig


def start_run(config: TrainConfig) -> None:
    """Do what the config stands for in the folder that Hydra made, after the checks that need no heavy import."""
    # A sweep gives each job its own folder, and all processes of a distributed run have the same.
    config = replace(config, run_dir=job_folder())
    if is_sweep_job():
        go_to_working_folder()
        from causal_lm_router.runs.workbench import shared_workbench
        from causal_lm_router.sweeps.job import launch_job

        # Jobs of one process share the base model, the data and the engine.
        launch_job(config, shared_workbench())
    else:
        check_start(config)
        from causal_lm_router.runs.complete_run import complete_run

        complete_run(config)
