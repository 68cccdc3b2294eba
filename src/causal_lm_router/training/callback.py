"""RoutingEvaluation: decides when a run is evaluated while it trains, and passes the results on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch

from causal_lm_router.files.writing import temporary_folder
from causal_lm_router.training.batches import Step
from causal_lm_router.training.module import RouterModule


class PrunedError(Exception):
    """Raised by `record`: a search has seen enough of the run, which ends without a result."""


Result = TypeVar("Result")


class RoutingEvaluation(pl.Callback, Generic[Result]):
    """Evaluates every so many epochs and steps (None: never), before the checkpoint of the same step is written.

    `evaluate` takes the folder of the current weights, `save` writes them there, `record` gets the evaluation and the
    optimizer step. Only the first process evaluates; the others wait.
    """

    def __init__(
        self,
        every_n_epochs: int | None,
        every_n_steps: int | None,
        steps_per_epoch: int,
        save: Callable[[torch.nn.Module, Path], None],
        evaluate: Callable[[Path], Result],
        record: Callable[[Result, int], None],
    ) -> None:
        self._every_n_epochs, self._every_n_steps = every_n_epochs, every_n_steps
        self._steps_per_epoch = steps_per_epoch
        self._save, self._evaluate, self._record = save, evaluate, record

    def is_due(self, step: int) -> bool:
        """True when the optimizer step (counted from 1) is one to evaluate after."""
        epochs, steps = self._every_n_epochs, self._every_n_steps
        at_epoch = epochs is not None and step % (epochs * self._steps_per_epoch) == 0
        return at_epoch or (steps is not None and step % steps == 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        """Evaluate if the step just done is due."""
        assert isinstance(pl_module, RouterModule)
        step = trainer.global_step
        if not self.is_due(step):
            return
        if trainer.is_global_zero:
            with temporary_folder() as folder:
                weights_dir = folder / "weights"
                self._save(pl_module.model, weights_dir)
                self._record(self._evaluate(weights_dir), step)
        trainer.strategy.barrier("evaluation")
