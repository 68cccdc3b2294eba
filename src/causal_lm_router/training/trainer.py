"""The Lightning Trainer of a config."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
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

    @property
    def train_description(self) -> str:
        """The epoch that is under way or about to begin."""
        return f"training, epoch {self.trainer.current_epoch + 1} of {self.trainer.max_epochs}"

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar with its length from the first moment."""
        return Tqdm(
            desc=self.train_description,
            total=self.total_train_batches,
            disable=self.is_disabled,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Begin an epoch. Lightning would give it its own words for a moment."""
        self.train_progress_bar.set_description(self.train_description, refresh=False)
        self.train_progress_bar.reset(total=self.total_train_batches)

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
