"""Continue a run that was interrupted, from its last checkpoint and with its own config.

causal-lm-router resume run_dir=outputs/quickstart/2026-01-31_12-00-00
"""

from causal_lm_router.command import run_command
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `resume` command."""
    run_command("resume", TrainConfig, _job, on_run=True)


def _job(config: TrainConfig) -> None:
    from causal_lm_router.training import train_router

    train_router(config)


if __name__ == "__main__":
    main()
