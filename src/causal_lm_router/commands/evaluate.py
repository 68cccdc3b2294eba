"""Evaluate a run again, whole on its final split, with its own settings or others.

causal-lm-router evaluate run_dir=outputs/quickstart/2026-01-31_12-00-00 [inference.backend=transformers]
causal-lm-router evaluate -m run_dir=outputs/quickstart/2026-01-31_12-00-00 decoding=free,scored
"""

from dataclasses import replace
from pathlib import Path

from causal_lm_router.commands.hydra_command import job_folder, run_command
from causal_lm_router.config import EvaluateConfig
from causal_lm_router.runs.run_folder import RunFolder


def main() -> None:
    """Run the `evaluate` command."""
    run_command("evaluate", EvaluateConfig, _job, on_run=True)


def _job(config: EvaluateConfig) -> None:
    # Said before the heavy imports: where there is no trained router.
    RunFolder(Path(config.run_dir)).read_metadata()
    from causal_lm_router.runs.evaluate_run import evaluate_run

    # With --multirun each evaluation has a folder of its own in `output_dir`.
    evaluate_run(replace(config, output_dir=job_folder()))


if __name__ == "__main__":
    main()
