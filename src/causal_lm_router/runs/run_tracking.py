"""The tracking of a run or of a job of a sweep."""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.plain import config_dict
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import sweep_of
from causal_lm_router.runs.tracking import Tracking, open_tracking
from causal_lm_router.training.checkpoint import checkpoint_step, last_checkpoint


def open_run_tracking(config: TrainConfig, folder: RunFolder) -> AbstractContextManager[Tracking]:
    """Return the tracking of a run or of a job of a sweep, which goes on where an interrupted one was."""
    names = _wandb_names(config, folder)
    checkpoint = last_checkpoint(folder.checkpoints)
    # With weights in place training is over: all of its metrics hold, also those after the last checkpoint.
    resume_step = None if folder.weights.is_dir() else checkpoint_step(checkpoint)
    tracking = replace(config.tracking, wandb=replace(config.tracking.wandb, group=names.group))
    return open_tracking(
        tracking,
        names.run,
        folder.path,
        config_dict(config),
        names.run_id,
        resume_step=resume_step,
        says_offline=sweep_of(folder.path) is None,  # a sweep says it once, for all its jobs
    )


class _WandbNames(NamedTuple):
    run: str
    run_id: str
    group: str | None


def _wandb_names(config: TrainConfig, folder: RunFolder) -> _WandbNames:
    """Return what W&B knows the run by: the same again when it resumes, and no other run's.

    A job of a sweep is known by the sweep's unique id and its own, a run of its own by the place of its folder.
    """
    group, sweep = config.tracking.wandb.group, sweep_of(folder.path)
    if sweep is None:
        return _WandbNames(config.name, _digest(str(folder.path.resolve())), group)
    # By the sweep's id, not its name: two sweeps may have the same name.
    metadata, job = sweep.read_metadata(), folder.path.name
    return _WandbNames(f"{config.name}-{job}", _digest(f"{metadata.uid}/{job}"), group or metadata.name)


def _digest(text: str) -> str:
    # 12 digits are enough to tell all runs of a project apart, and short enough to read in a list.
    return hashlib.sha256(text.encode()).hexdigest()[:12]
