"""`auto` in place of a number format: what it becomes, why, and that nothing else changes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from causal_lm_router.models import precision
from causal_lm_router.models.fast_products import Speeds, product_speeds
from causal_lm_router.models.precision import FastFormat, fast_format, precision_facts, resolve_precision

FORMATS = ("float32", "bfloat16")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Function that makes a format the fast one of every device."""

    def choose(dtype: str) -> None:
        monkeypatch.setattr(precision, "fast_format", lambda device: FastFormat(dtype, f"{dtype} on {device}"))

    return choose


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FastFormat]:
    """Function that returns the CPU's format for the given speeds (GFLOP/s) of float32 and bfloat16."""

    def measure(float32: float, bfloat16: float, onednn: float = 0.0) -> FastFormat:
        monkeypatch.setattr(precision, "product_speeds", lambda: Speeds(float32, onednn, bfloat16))
        return fast_format.__wrapped__("cpu")

    return measure


def with_formats(config: Any, trainer: str, base_model: str, inference: str | None) -> Any:
    config.trainer.precision, config.base_model.dtype, config.inference.dtype = trainer, base_model, inference
    return config


def formats(config: Any) -> tuple[str, str, str | None]:
    return config.trainer.precision, config.base_model.dtype, config.inference.dtype


def test_the_measured_format_is_one_of_two_with_a_reason_and_is_measured_once() -> None:
    chosen = fast_format("cpu")
    assert chosen.dtype in FORMATS
    assert chosen.reason.startswith(f"{chosen.dtype}: ")
    assert "GFLOP/s" in chosen.reason
    assert fast_format("cpu") is chosen


def test_measuring_leaves_torchs_random_state() -> None:
    before = torch.get_rng_state()
    product_speeds.__wrapped__()
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_has_to_be_clearly_faster(measure: Callable[..., FastFormat]) -> None:
    assert measure(410.0, 2410.0) == ("bfloat16", "bfloat16: 2,410 against 410 GFLOP/s in float32")
    assert measure(300.0, 330.0) == ("float32", "float32: 300 against 330 GFLOP/s in bfloat16")
    assert measure(300.0, 170.0).dtype == "float32"


def test_bfloat16_is_compared_with_the_library_that_float32_takes(measure: Callable[..., FastFormat]) -> None:
    slow, fast = measure(240.0, 600.0, 250.0), measure(240.0, 600.0, 530.0)
    assert slow == ("bfloat16", "bfloat16: 600 against 240 GFLOP/s in float32")
    assert fast == ("float32", "float32: 530 against 600 GFLOP/s in bfloat16; float32 by oneDNN, by MKL 240")


@pytest.mark.parametrize(("dtype", "trained_in"), [("float32", "32-true"), ("bfloat16", "bf16-mixed")])
def test_every_auto_is_replaced_and_the_config_itself_stays(
    tiny_config: Callable[..., Any], choose: Callable[[str], None], dtype: str, trained_in: str
) -> None:
    choose(dtype)
    config = with_formats(tiny_config(), "auto", "auto", "auto")
    assert formats(resolve_precision(config)) == (trained_in, dtype, dtype)
    assert formats(config) == ("auto", "auto", "auto")


@pytest.mark.slow
def test_explicit_values_stay_and_nothing_is_measured_for_them(
    tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "fast_format", None)
    for values in (("32-true", "bfloat16", None), ("bf16-true", "float16", "float32")):
        config = with_formats(tiny_config(), *values)
        assert resolve_precision(config) == config
        assert "reason" not in precision_facts(config)


def test_weights_that_all_train_are_float32(tiny_config: Callable[..., Any], choose: Callable[[str], None]) -> None:
    choose("bfloat16")
    config = with_formats(tiny_config("lora.use_lora=false"), "auto", "auto", "auto")
    assert formats(resolve_precision(config)) == ("bf16-mixed", "float32", "bfloat16")


def test_the_facts_hold_what_runs_and_why(tiny_config: Callable[..., Any], choose: Callable[[str], None]) -> None:
    choose("bfloat16")
    config = with_formats(tiny_config("trainer.accelerator=cpu"), "32-true", "auto", None)
    facts = {"trainer": "32-true", "base_model": "bfloat16", "inference": "bfloat16", "reason": "bfloat16 on cpu"}
    assert precision_facts(config) == facts


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [{"ATEN_CPU_CAPABILITY": "default"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_an_old_processor_is_measured_too(kernels: dict[str, str]) -> None:
    code = "from causal_lm_router.models.precision import fast_format; print(*fast_format('cpu'))"
    command = [sys.executable, "-c", code]
    source = str(Path(precision.__file__).parents[2])
    environment = os.environ | kernels | {"PYTHONPATH": source}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert said.split()[0] in FORMATS
