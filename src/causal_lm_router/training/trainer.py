"""The Lightning Trainer of a config."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from causal_lm_router.config import TrainerConfig
from causal_lm_router.training.checkpoint import FolderCheckpointIO


def make_trainer(config: TrainerConfig, run_dir: Path, loggers: list[Logger]) -> pl.Trainer:
    """Return the Trainer of a config; `config.extra` wins over every other setting.

    Raises ValueError for an argument that the Trainer does not take or a value it refuses.
    """
    arguments: dict[str, Any] = {
        "max_epochs": config.num_epochs,
        "accelerator": config.accelerator,
        "devices": config.devices,
        "strategy": config.strategy,
        "precision": config.precision,
        "log_every_n_steps": config.log_every_n_steps,
        "enable_progress_bar": config.progress_bar,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "default_root_dir": str(run_dir),
        "logger": loggers or False,
        "plugins": [FolderCheckpointIO()],
    }
    try:
        return pl.Trainer(**(arguments | config.extra))
    except (TypeError, ValueError) as error:
        raise ValueError(f"trainer: {error}") from error
