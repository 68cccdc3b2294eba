"""Show what a data config holds: sizes, tasks, scores by candidate, baselines and the leakage audit.

causal-lm-router data data=routerdc data.path=path/to/llmrouter
"""

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import TrainConfig


def main() -> None:
    """Run the `data` command."""
    run_command("data", TrainConfig, _job)


def _job(config: TrainConfig) -> None:
    from rich.console import Console

    from causal_lm_router.data.sources import load_source
    from causal_lm_router.data.split import split_examples
    from causal_lm_router.evaluation.data_table import print_data

    print_data(split_examples(load_source(config.data), config.data), Console())


if __name__ == "__main__":
    main()
