"""Evaluate a run again, whole on its final split, with its own settings or others.

causal-lm-router evaluate run_dir=outputs/quickstart/2026-01-31_12-00-00 [inference.backend=transformers]
"""

from causal_lm_router.command import run_command
from causal_lm_router.config import EvaluateConfig


def main() -> None:
    """Run the `evaluate` command."""
    run_command("evaluate", EvaluateConfig, _job, on_run=True)


def _job(config: EvaluateConfig) -> None:
    from causal_lm_router.training import evaluate_run

    evaluate_run(config)


if __name__ == "__main__":
    main()
