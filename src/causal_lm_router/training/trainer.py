"""The Lightning Trainer of a config."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import Logger

from causal_lm_router.config import TrainerConfig
from causal_lm_router.terminal import is_quiet
from causal_lm_router.training.checkpoint import FolderCheckpointIO


class EpochBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from 1; it shows where standard output is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        if is_quiet() or not sys.stdout.isatty():
            self.disable()

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Name the epoch that begins."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"training, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the loss, without the loggers' version number."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def make_trainer(config: TrainerConfig, run_dir: Path, loggers: list[Logger]) -> pl.Trainer:
    """Return the Trainer of a config; `config.extra` wins over every other setting.

    Raises:
        ValueError: an argument that the Trainer does not take, or a value that it refuses.
    """
    arguments: dict[str, Any] = {
        "max_epochs": config.num_epochs,
        "accelerator": config.accelerator,
        "devices": config.devices,
        "strategy": config.strategy,
        "precision": config.precision,
        "log_every_n_steps": config.log_every_n_steps,
        "enable_progress_bar": config.progress_bar,
        "callbacks": [EpochBar()] if config.extra.get("enable_progress_bar", config.progress_bar) else [],
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
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}") from error
