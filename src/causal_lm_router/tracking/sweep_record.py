"""A sweep's report in W&B: a run of its own in the sweep's group, with the table of configurations and all files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from causal_lm_router.config import WandbConfig
from causal_lm_router.tracking.wandb_session import wandb_session


def log_sweep_report(
    config: WandbConfig, name: str, uid: str, sweep_dir: Path, rows: Sequence[Mapping[str, Any]], report_dir: Path
) -> None:
    """Record the rows as the table `configurations` and the folder as the artifact `report-<uid>`.

    A later report of the same sweep goes on in the same run. Raises as `wandb_session` does.
    """
    config = replace(config, group=config.group or name)
    with wandb_session(config, f"{name}-report", sweep_dir, {"sweep": name}, f"{uid}-report", "report") as wandb_run:
        if wandb_run is not None:
            wandb_run.log_table("configurations", rows, 0)
            wandb_run.log_folder(f"report-{uid}", "report", report_dir, copied=True)
