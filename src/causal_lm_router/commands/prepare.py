"""Turn a packaged base model into a checkpoint in the cache folder; training does so by itself where it is missing.

causal-lm-router prepare [base_model=smollm2_135m]
"""

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import PrepareConfig


def main() -> None:
    """Run the `prepare` command."""
    run_command("prepare", PrepareConfig, _job)


def _job(config: PrepareConfig) -> None:
    from causal_lm_router.models.base_model import prepare_base_model

    print(prepare_base_model(config.base_model))


if __name__ == "__main__":
    main()
