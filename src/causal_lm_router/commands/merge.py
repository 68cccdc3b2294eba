"""Write the merged checkpoint of a run, which transformers and vLLM load as any other, to <run_dir>/merged.

causal-lm-router merge run_dir=outputs/quickstart/2026-01-31_12-00-00
"""

from pathlib import Path

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import TrainConfig
from causal_lm_router.runs.run_folder import RunFolder


def main() -> None:
    """Run the `merge` command."""
    run_command("merge", TrainConfig, _job, on_run=True)


def _job(config: TrainConfig) -> None:
    # Said before the heavy imports: where there is no trained router.
    RunFolder(Path(config.run_dir)).read_metadata()
    from causal_lm_router.runs.merge_run import merge_run

    merge_run(config)


if __name__ == "__main__":
    main()
