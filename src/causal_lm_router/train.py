"""Finetune a base model on routing data, evaluate it, leave a run folder.

causal-lm-router train experiment=quickstart [group=choice] [group.key=value]
"""

from causal_lm_router.command import run_command
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `train` command."""
    run_command("train", TrainConfig, _job)


def _job(config: TrainConfig) -> None:
    from causal_lm_router.training import train_router

    train_router(config)


if __name__ == "__main__":
    main()
