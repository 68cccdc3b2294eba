"""Upload a run's adapter or merged checkpoint, with its model card, to the hub.

causal-lm-router push run_dir=outputs/quickstart/2026-01-31_12-00-00 repo=owner/name [what=adapter|merged]
causal-lm-router push run_dir=... repo=owner/name dry_run=true
"""

from pathlib import Path

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import PushConfig
from causal_lm_router.runs.run_folder import RunFolder


def main() -> None:
    """Run the `push` command."""
    run_command("push", PushConfig, _job, on_run=True)


def _job(config: PushConfig) -> None:
    # Said before the heavy imports: where there is no trained router.
    RunFolder(Path(config.run_dir)).read_metadata()
    from causal_lm_router.runs.push_run import push_run

    push_run(config)


if __name__ == "__main__":
    main()
