"""RouterModule: the training step, the optimizer and its schedule.

One Lightning batch is one optimizer step (see `batches.py`), so the module optimises manually: it adds up the gradients
of the step's micro-batches, clips, and steps. Dropout is seeded by the step, so a resumed run needs no random state.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor

from causal_lm_router.config import OptimConfig, Schedule
from causal_lm_router.models.fast_products import fast_products
from causal_lm_router.training.batches import Step
from causal_lm_router.training.objective import Loss, completion_loss
from causal_lm_router.training.rows import MicroBatch


class NotFiniteError(ValueError):
    """The training loss or its gradient is infinite or not a number."""


class RouterModule(pl.LightningModule):
    """A base model (with or without adapter) trained on an objective.

    `loss` is the objective's. `num_steps` is the length of the whole training in optimizer steps,
    `log_every_n_steps` the optimizer steps between training losses sent to the loggers.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimConfig,
        num_steps: int,
        seed: int,
        log_every_n_steps: int,
        loss: Loss = completion_loss,
    ) -> None:
        super().__init__()
        self.model = model
        self._loss = loss
        self._optim = optim
        self._num_steps = num_steps
        self._seed = seed
        self._log_every_n_steps = log_every_n_steps
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the trained weights only

    def target_loss(self, micro_batch: MicroBatch) -> Tensor:
        """Return the objective's loss, summed over the micro-batch."""
        return self._loss(self.model, micro_batch)

    def training_step(self, batch: Step, batch_idx: int) -> None:
        """Take one optimizer step; the loss is the weighted mean over the whole step and all ranks.

        Raises:
            NotFiniteError: the loss or its gradient is not finite; the weights are as they were before the step.
        """
        step = self.global_step
        # Dropout masks follow from seed and step alone, so a resumed run draws the same ones.
        torch.manual_seed(hash_seed(self._seed, step, self.global_rank))
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        loss = torch.zeros((), device=self.device)
        for index, micro_batch in enumerate(batch.micro_batches):
            # Ranks exchange gradients once a step, with the last micro-batch.
            with self._keep_gradients_local(index < len(batch.micro_batches) - 1), fast_products(self.model):
                part = self.target_loss(micro_batch) / batch.total_weight
                # Lightning's DDP averages gradients over the ranks; the loss is a sum over them.
                self.manual_backward(part * self.trainer.world_size)
            loss += part.detach()
        # Each rank has its own rows' share of the loss; their sum is the step's.
        loss = self.trainer.strategy.reduce(loss, reduce_op="sum")
        gradient_norm = self._clip()
        # Before the optimizer: a step with NaN would ruin weights and moments, and the next checkpoint with them.
        self._require_finite(step + 1, loss, gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)
        # The rate of the step just taken, not of the next one.
        learning_rate = schedule.get_last_lr()[0]
        schedule.step()
        self._record(step + 1, loss, float(learning_rate), gradient_norm)

    def _keep_gradients_local(self, is_inner: bool) -> contextlib.AbstractContextManager[None]:
        strategy = self.trainer.strategy
        if is_inner and isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return contextlib.nullcontext()

    def _clip(self) -> Tensor:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Clipping to infinity changes nothing and still returns the norm.
        return torch.nn.utils.clip_grad_norm_(trained, self._optim.max_grad_norm or math.inf)

    def _require_finite(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        if not torch.isfinite(loss + gradient_norm):
            raise NotFiniteError(
                f"optim.learning_rate must be one at which the training loss stays finite, got "
                f"{self._optim.learning_rate}: at step {step} the loss is {loss.item()} and the norm of its gradient "
                f"{gradient_norm.item()}"
            )

    def _record(self, step: int, loss: Tensor, learning_rate: float, gradient_norm: Tensor) -> None:
        self.log("loss", loss, prog_bar=True, logger=False)
        # The last step too: evaluations after training are recorded at it.
        if step % self._log_every_n_steps == 0 or step in (1, self._num_steps):
            values = {"loss": loss.item(), "learning_rate": learning_rate, "gradient_norm": gradient_norm.item()}
            metrics = {"epoch": self.current_epoch, **{f"train/{name}": value for name, value in values.items()}}
            for logger in self.loggers:
                logger.log_metrics(metrics, step=step)

    def configure_optimizers(self) -> Any:
        """Return AdamW over the trained weights and its learning rate's schedule."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optim = self._optim
        beta1, beta2 = optim.adam_betas
        decay = optim.weight_decay
        optimizer = torch.optim.AdamW(trained, lr=optim.learning_rate, betas=(beta1, beta2), weight_decay=decay)
        num_warmup = round(optim.warmup_ratio * self._num_steps)
        factor = schedule_factor(optim.schedule, num_warmup, self._num_steps)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the frozen weights out of a checkpoint: they are those of the base model."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """Return the step with all tensors on `device`."""
        return Step([micro_batch.to(device) for micro_batch in batch.micro_batches], batch.total_weight)


def schedule_factor(schedule: Schedule, num_warmup: int, num_steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor (0..1) as a function of the optimizer step, counted from 0.

    It rises linearly to 1 over `num_warmup` steps, then stays (`constant`) or falls to 0 at `num_steps` along a line
    (`linear`) or half a cosine (`cosine`, arXiv 1608.03983 without restarts).
    """

    def factor(step: int) -> float:
        # The first step has a rate above 0, and step `num_warmup` the full one.
        if step < num_warmup:
            return (step + 1) / (num_warmup + 1)
        done = (step - num_warmup) / max(1, num_steps - num_warmup)
        match schedule:
            case Schedule.constant:
                return 1.0
            case Schedule.linear:
                return max(0.0, 1.0 - done)
            case Schedule.cosine:
                return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return factor


def hash_seed(seed: int, step: int, rank: int) -> int:
    """Return a seed for one step on one rank, the same in every process and run."""
    # The low 12 bits are the rank's, so runs of up to 4096 ranks share no seed; a prime sets the runs' seeds apart.
    return (seed * 1_000_003 + step) * 4096 + rank
