"""Fit a baseline on the same data as a router, evaluate it in the same way, leave a run folder.

causal-lm-router baseline baseline=knn_regression experiment=llmrouter_cpu data.path=path/to/llmrouter [baseline.k=100]
causal-lm-router baseline sweep=baselines experiment=llmrouter_cpu data.path=path/to/llmrouter
"""

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.commands.start import start_run
from causal_lm_router.config import BaselineRunConfig


def main() -> None:
    """Run the `baseline` command."""
    run_command("baseline", BaselineRunConfig, start_run)


if __name__ == "__main__":
    main()
