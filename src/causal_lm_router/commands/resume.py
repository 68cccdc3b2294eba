"""Continue a run that was interrupted, from its last checkpoint (a baseline from its start) and with its own config.

causal-lm-router resume run_dir=outputs/quickstart/2026-01-31_12-00-00
"""

import os
from pathlib import Path

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import TrainConfig
from causal_lm_router.config.plain import config_dict
from causal_lm_router.files.writing import refuse_links
from causal_lm_router.runs.run_folder import RunFolder, check_folder


def main() -> None:
    """Run the `resume` command."""
    run_command("resume", TrainConfig, _job, on_run=True, on_baseline=True)


def _job(config: TrainConfig) -> None:
    from causal_lm_router.runs.sweep_folder import sweep_of

    # A job of a sweep is recorded in the sweep's log, which a folder from elsewhere could lead away like its own files.
    sweep = sweep_of(Path(config.run_dir))
    if sweep is not None:
        refuse_links(sweep.path, deep=False)
    if sweep is None:
        check_folder(RunFolder(Path(config.run_dir)), config_dict(config))
        from causal_lm_router.runs.complete_run import complete_run

        complete_run(config)
    else:
        _resume_job(config)


def _resume_job(config: TrainConfig) -> None:
    from causal_lm_router.runs.job_log import JobError
    from causal_lm_router.runs.workbench import Workbench
    from causal_lm_router.sweeps.job import DIES_WITH_PARENT, die_with_parent, run_job

    # The sweep started this process and waits for it: without the sweep it should not go on.
    if os.environ.get(DIES_WITH_PARENT) == "1":
        die_with_parent()
    try:
        with Workbench(keeps_base_model=False) as workbench:
            run_job(config, workbench)
    except JobError as error:
        # The job log has said why already.
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
