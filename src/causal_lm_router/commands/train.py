"""Finetune a base model on routing data, evaluate it, leave a run folder.

causal-lm-router train experiment=quickstart [group=choice] [group.key=value]
causal-lm-router train -m experiment=quickstart lora.lora_r=4,16 seed=0,1,2 [sweep.name=rank]
"""

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.commands.start import start_run
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `train` command."""
    run_command("train", TrainConfig, start_run)


if __name__ == "__main__":
    main()
