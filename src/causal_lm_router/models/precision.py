"""Which number format this machine is fast at: what `auto` means for trainer.precision and the dtypes of the models."""

import functools
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.checks import AUTO
from causal_lm_router.models.fast_products import product_speeds

CLEARLY_FASTER = 1.3
"""bfloat16 rounds more coarsely, so it has to be faster than float32 by this factor."""

Config = TypeVar("Config", bound=TrainConfig)


class FastFormat(NamedTuple):
    """A number format, `float32` or `bfloat16`, and why it was chosen."""

    dtype: str
    reason: str


def resolve_precision(config: Config) -> Config:
    """Return the config with a number format in place of every `auto`; other values stay.

    A run folder, a job's id and a sweep keep the config with `auto`, so that they can go on on another machine.

    - base_model.dtype: the fast format of the device that trains; float32 where all weights train, since the small
      updates of training are lost in bfloat16 weights.
    - trainer.precision: `bf16-mixed` where that device is fast at bfloat16, else `32-true`.
    - inference.dtype: the fast format of the device that generates.
    """
    base_model, trainer, inference = config.base_model, config.trainer, config.inference
    if base_model.dtype == AUTO:
        dtype = fast_format(_training_device(config)).dtype if config.lora.use_lora else "float32"
        base_model = replace(base_model, dtype=dtype)
    if trainer.precision == AUTO:
        is_half = fast_format(_training_device(config)).dtype == "bfloat16"
        trainer = replace(trainer, precision="bf16-mixed" if is_half else "32-true")
    if inference.dtype == AUTO:
        inference = replace(inference, dtype=fast_format(_default_device()).dtype)
    return replace(config, base_model=base_model, trainer=trainer, inference=inference)


def precision_facts(config: TrainConfig) -> dict[str, str]:
    """Return the formats that a run of the config has on this machine, for its report.

    Keys: `trainer`, `base_model` and `inference`, and where the config says `auto` for one of them the `reason`.
    """
    resolved = resolve_precision(config)
    facts = {
        "trainer": resolved.trainer.precision,
        "base_model": resolved.base_model.dtype,
        "inference": resolved.inference.dtype or resolved.base_model.dtype,
    }
    trains_by_measure = AUTO in (config.trainer.precision, config.base_model.dtype)
    devices = {_training_device(config)} if trains_by_measure else set()
    if config.inference.dtype == AUTO:
        devices.add(_default_device())
    reasons = [fast_format(device).reason for device in sorted(devices)]
    return {**facts, "reason": "; ".join(reasons)} if reasons else facts


@functools.cache
def fast_format(device: str) -> FastFormat:
    """Return the number format to compute in on `cpu` or `cuda`; measured once a process, in less than a second.

    A GPU takes bfloat16 wherever it has it. A CPU takes it where it is clearly faster: an Intel processor with AMX has
    6 to 8 times the speed of float32, others are slower in bfloat16 or have twice the speed.
    """
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return FastFormat("bfloat16", "bfloat16: the GPU supports it")
        return FastFormat("float32", "float32: the GPU does not support bfloat16")
    speeds = product_speeds()
    speed = {"float32": speeds.float32, "bfloat16": speeds.bfloat16}
    chosen, other = "float32", "bfloat16"
    if speed["bfloat16"] >= CLEARLY_FASTER * speed["float32"]:
        chosen, other = other, chosen
    reason = f"{chosen}: {speed[chosen]:,.0f} against {speed[other]:,.0f} GFLOP/s in {other}"
    # Which of the two libraries computes in float32, where it is not the usual one.
    has_onednn = speeds.has_fast_onednn
    return FastFormat(chosen, f"{reason}; float32 by oneDNN, by MKL {speeds.mkl:,.0f}" if has_onednn else reason)


def _training_device(config: TrainConfig) -> str:
    return "cpu" if config.trainer.accelerator == "cpu" else _default_device()


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
