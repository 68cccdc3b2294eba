"""Lightning's W&B logger around a run that was opened, and will be closed, elsewhere."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from causal_lm_router.runs.tracking.wandb_run import WandbRun


class WandbRunLogger(WandbLogger):
    """Logs metrics into `wandb_run`, over the optimizer step."""

    def __init__(self, wandb_run: WandbRun) -> None:
        run = wandb_run.run
        super().__init__(experiment=run, project=run.project, name=run.name, id=run.id, save_dir=wandb_run.folder)
        self._wandb_run = wandb_run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics of one optimizer step."""
        # Lightning's logger would raise where W&B's helper process is gone, and end the training.
        self._wandb_run.record("metrics", partial(super().log_metrics, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run was opened with the whole configuration."""
