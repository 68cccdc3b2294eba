"""Finetune a base model on routing data, evaluate it, leave a run folder.

causal-lm-router train experiment=quickstart [group=choice] [group.key=value]
"""

from dataclasses import replace

from causal_lm_router.command import job_folder, run_command
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `train` command."""
    run_command("train", TrainConfig, _job)


def _job(config: TrainConfig) -> None:
    from causal_lm_router.training import train_router

    # The folder that Hydra made: a sweep gives each job its own, and all processes of a distributed run have the same.
    train_router(replace(config, run_dir=job_folder()))


if __name__ == "__main__":
    main()
