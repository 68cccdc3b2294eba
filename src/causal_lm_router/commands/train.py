"""Finetune a base model on routing data, evaluate it, leave a run folder.

causal-lm-router train experiment=quickstart [group=choice] [group.key=value]
causal-lm-router train -m experiment=quickstart lora.lora_r=4,16 seed=0,1,2 [sweep.name=rank]
"""

from dataclasses import replace

from causal_lm_router.commands.early_checks import check_start
from causal_lm_router.commands.hydra_command import go_to_working_folder, is_sweep_job, job_folder, run_command
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `train` command."""
    run_command("train", TrainConfig, _job)


def _job(config: TrainConfig) -> None:
    # The folder that Hydra made: a sweep gives each job its own, and all processes of a distributed run have the same.
    config = replace(config, run_dir=job_folder())
    if is_sweep_job():
        go_to_working_folder()
        from causal_lm_router.runs.workbench import shared_workbench
        from causal_lm_router.sweeps.job import launch_job

        # Jobs of one process share the base model, the data and the engine.
        launch_job(config, shared_workbench())
    else:
        check_start(config)
        from causal_lm_router.runs.train_run import train_router

        train_router(config)


if __name__ == "__main__":
    main()
