"""What is found out before torch and the libraries over it are imported, which takes several seconds."""

import glob
from pathlib import Path

from causal_lm_router.config import (
    BaselineRunConfig,
    BaseModelOrigin,
    FileDataConfig,
    HubDataConfig,
    TrainConfig,
    WandbMode,
)

GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
"""Device files of NVIDIA's and AMD's GPUs on Linux, and of those of a Windows host."""


def check_start(config: TrainConfig) -> None:
    """Check what a run needs to start: its data, and a GPU or a W&B key where it wants one.

    Raises:
        ValueError: one of these is missing; the key is named.
        ConnectionError: the W&B server does not answer under `tracking.wandb.mode=online`.
    """
    check_data(config)
    # Most baselines ask no base model and train none.
    if not isinstance(config, BaselineRunConfig):
        _check_gpu(config)
        _check_base_model(config)
    if config.tracking.wandb.mode is WandbMode.online:
        from causal_lm_router.runs.tracking.wandb_mode import choose_recording

        choose_recording(config.tracking.wandb.mode, config.tracking.wandb.init_timeout_s)


def check_data(config: TrainConfig) -> None:
    """Check that there is something where `data.path` leads.

    Raises:
        ValueError: there is nothing.
    """
    data = config.data
    if not isinstance(data, FileDataConfig):
        return
    # A hub dataset has a name on the hub, and RouterBench has a file there: a path need not lead to anything here.
    is_missing = data.path is not None and not isinstance(data, HubDataConfig) and not _leads_somewhere(data.path)
    if is_missing or (data.path is None and not hasattr(data, "allow_pickle")):
        from causal_lm_router.data.sources import load_source

        # The source itself says what it expects; nothing is read.
        load_source(data)


def _leads_somewhere(path: str) -> bool:
    expanded = Path(path).expanduser()
    return expanded.exists() or any(glob.iglob(str(expanded), recursive=True))


def _check_gpu(config: TrainConfig) -> None:
    """Refuse a GPU on Linux where no driver offers one; what other systems have, torch finds out."""
    accelerator = config.trainer.accelerator
    wants_gpu = accelerator in ("gpu", "cuda") and Path("/dev").is_dir() and Path("/proc/self").exists()
    if wants_gpu and not any(glob.glob(pattern) for pattern in GPU_DEVICES):
        raise ValueError(
            f"trainer.accelerator must be cpu or auto on a machine without a GPU, got {accelerator!r}: no driver "
            "offers one here"
        )


def _check_base_model(config: TrainConfig) -> None:
    if config.base_model.origin is BaseModelOrigin.hub:
        from causal_lm_router.models.hub import check_reachable

        check_reachable(config.base_model)
