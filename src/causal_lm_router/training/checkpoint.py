"""Resumable checkpoints: a folder with the trained weights (safetensors) and the trainer's state, whole or absent."""

import errno
import os
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from causal_lm_router.files.checksums import add_checksum, add_checksums, check_files
from causal_lm_router.files.writing import remove_folder, write_folder

_NO_SPACE_BYTES = 1 << 16
WEIGHTS_FILE, STATE_FILE = "trained_weights.safetensors", "trainer_state.pt"


class FolderCheckpointIO(CheckpointIO):
    """Reads and writes Lightning checkpoints as folders that appear whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint into a folder at `path`; one of the same step that is there already stays."""
        target = Path(path)
        if target.is_dir():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # A copy, since Lightning goes on with the dictionary. Weights go into their own file, in a format without code.
        state = dict(checkpoint)
        weights = {name: tensor.contiguous() for name, tensor in state.pop("state_dict").items()}
        with write_folder(target) as temporary:
            save_file(weights, temporary / WEIGHTS_FILE)
            _save_state(state, temporary / STATE_FILE)
            add_checksums(temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the checkpoint in the folder at `path`; only plain values and tensors are read, never code.

        Raises:
            ValueError: a file of it is damaged or missing.
        """
        folder = Path(path)
        check_checkpoint(folder)
        try:
            state: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
            return {**state, "state_dict": load_file(folder / WEIGHTS_FILE)}
        except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
            # One without checksums, as earlier versions wrote them.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"{folder}: must hold {STATE_FILE} and {WEIGHTS_FILE}: {reason}; {_advice(folder)}"
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the folder at `path`; a process killed meanwhile leaves no part of it under its name."""
        remove_folder(Path(path))


def _save_state(state: dict[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:
        # On a full disk torch only reports an unexpected position in the file, so ask the disk itself.
        if shutil.disk_usage(path.parent).free >= _NO_SPACE_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


class LastCheckpoint(Checkpoint):
    """Writes a checkpoint every `every_n_steps` optimizer steps, after the other callbacks, and keeps only the last.

    With each one the file `metrics`, which grows, gets a checksum of what it holds by then.
    """

    def __init__(self, folder: Path, every_n_steps: int, metrics: Path) -> None:
        self._folder = folder
        self._every_n_steps = every_n_steps
        self._metrics = metrics

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint if one is due, then remove older ones."""
        step = trainer.global_step
        if step % self._every_n_steps == 0:
            written = self._folder / f"step_{step:08d}.ckpt"
            # All ranks call this; the first one writes.
            trainer.save_checkpoint(written)
            if trainer.is_global_zero:
                add_checksum(self._metrics)
                # The older one goes when the new one is complete, so there always is one.
                for older in self._folder.glob("step_*.ckpt"):
                    if older.name < written.name:
                        trainer.strategy.remove_checkpoint(older)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, None where there is none."""
    found = sorted(path for path in folder.glob("step_*.ckpt") if any(path.iterdir()))
    return found[-1] if found else None


def check_checkpoint(checkpoint: Path) -> None:
    """Compare a checkpoint's files with their checksums, once a process.

    Raises:
        ValueError: one is damaged or missing.
    """
    check_files(checkpoint, _advice(checkpoint))


def _advice(checkpoint: Path) -> str:
    return f"remove {checkpoint}; resume then starts from the beginning"


def checkpoint_step(checkpoint: Path | None) -> int:
    """Return the optimizer step a checkpoint was written after, -1 for none."""
    return -1 if checkpoint is None else int(checkpoint.stem.removeprefix("step_"))
