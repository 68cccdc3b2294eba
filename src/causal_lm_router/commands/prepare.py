"""Have a base model at hand: fetch it from the hub, or turn a packaged one into a checkpoint in the cache folder.

Training does so by itself where it is missing, and fails with the same words where it cannot be had.

causal-lm-router prepare [base_model=smollm2_135m]
"""

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import PrepareConfig


def main() -> None:
    """Run the `prepare` command."""
    run_command("prepare", PrepareConfig, _job)


def _job(config: PrepareConfig) -> None:
    from causal_lm_router.models.base_model import load_tokenizer, prepare_base_model
    from causal_lm_router.models.hub import local_folder

    place = prepare_base_model(config.base_model)
    # The first that training loads, so what is wrong is said as training says it.
    load_tokenizer(place, config.base_model)
    print(local_folder(place, config.base_model))


if __name__ == "__main__":
    main()
