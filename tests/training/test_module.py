"""The training step against plain PyTorch, and everything that must not change the losses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from causal_lm_router.config import Schedule
from causal_lm_router.models.adapter import apply_lora
from causal_lm_router.models.base_model import load_base_model
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.training.batches import plan_epoch
from causal_lm_router.training.checkpoint import last_checkpoint
from causal_lm_router.training.module import RouterModule, hash_seed, schedule_factor
from causal_lm_router.training.rows import MicroBatch, collate, encode_examples
from tests.conftest import name_targets, tiny_data

Losses = dict[str, list[float]]
Fit = Callable[..., Losses]
ROUNDING = 1e-4
"""Relative difference allowed to float32 sums in another order: 2e-7 was seen, a row that counts twice makes 1e-2."""


@pytest.fixture
def tiny_rows(tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path) -> list[dict[str, Any]]:
    data = tiny_data()
    config = tiny_config().prompt
    encoder = Encoder(tiny_base.tokenizer, config, name_targets(data.candidate_names, config))
    return list(encode_examples(data.train, data.labels, encoder, tmp_path))


def plain_loss(model: torch.nn.Module, row: dict[str, Any]) -> torch.Tensor:
    """Summed loss over a row's target: full logits of the row alone, shifted by hand."""
    ids = torch.tensor([row["input_ids"]])
    logits = model(input_ids=ids).logits[0, :-1]
    first = len(row["input_ids"]) - row["num_target_tokens"]
    return cross_entropy(logits[first - 1 :], ids[0, first:], reduction="sum")


@pytest.mark.parametrize("architecture", ["relative positions", "absolute positions"])
@pytest.mark.slow
def test_target_loss_is_that_of_the_plain_model(
    tiny_base: Any, tiny_config: Callable[..., Any], tiny_rows: list[dict[str, Any]], architecture: str
) -> None:
    if architecture == "relative positions":
        model = load_base_model(tiny_base.path, tiny_base.config).eval()
    else:
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=2)).eval()
    module = RouterModule(model, tiny_config().optim, num_steps=1, seed=0, log_every_n_steps=1)
    with torch.inference_mode():
        expected = sum(plain_loss(model, row).item() for row in tiny_rows)
        assert module.target_loss(collate(tiny_rows, 0)).item() == pytest.approx(expected, rel=ROUNDING)


def test_training_is_that_of_a_plain_loop(
    tiny_base: Any, tiny_config: Callable[..., Any], tiny_rows: list[dict[str, Any]], fit_tiny: Fit
) -> None:
    model = apply_lora(load_base_model(tiny_base.path, tiny_base.config), tiny_config("lora.lora_dropout=0").lora, 0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.999), weight_decay=0.01)
    lengths = [row["num_tokens"] for row in tiny_rows]
    # One step of warm-up, then half a cosine over five.
    rates = [0.005, 0.01, *(0.005 * (1 + math.cos(math.pi * done / 5)) for done in (1, 2, 3, 4))]
    steps = plan_epoch(lengths, 8, seed=0, epoch=0) + plan_epoch(lengths, 8, seed=0, epoch=1)
    losses, norms = [], []
    for step, rate in zip(steps, rates, strict=True):
        num_targets = sum(tiny_rows[index]["num_target_tokens"] for index in step)
        loss = sum((plain_loss(model, tiny_rows[index]) for index in step), torch.tensor(0.0)) / num_targets
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(weights, 1.0).item())
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    metrics = fit_tiny()
    assert metrics["loss"] == pytest.approx(losses, rel=ROUNDING)
    assert metrics["gradient_norm"] == pytest.approx(norms, rel=1e-2)
    assert metrics["learning_rate"] == pytest.approx(rates, rel=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        ["trainer.batch_size=1", "trainer.accumulate_grad_batches=8"],
        ["trainer.batch_size=4", "trainer.accumulate_grad_batches=2"],
        ["trainer.max_tokens_per_batch=1"],
        ["trainer.max_tokens_per_batch=100"],
        ["base_model.gradient_checkpointing=true"],
        ["base_model.attn_implementation=sdpa"],
        ["base_model.attn_implementation=eager"],
    ],
    ids=" ".join,
)
def test_what_does_not_change_the_losses(fit_tiny: Fit, change: list[str]) -> None:
    expected, metrics = fit_tiny(), fit_tiny(*change)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=ROUNDING)
    assert len(metrics["loss"]) == 6


def test_the_same_seed_gives_the_same_losses_bit_for_bit(fit_tiny: Fit) -> None:
    dropout = "lora.lora_dropout=0.3"
    first = fit_tiny(dropout)
    torch.rand(11)
    assert fit_tiny(dropout) == first
    other = fit_tiny(dropout, "seed=1")
    assert all(mine != theirs for mine, theirs in zip(first["loss"][1:], other["loss"][1:], strict=True))


def test_dropout_is_at_work(fit_tiny: Fit) -> None:
    without, dropped = fit_tiny()["loss"], fit_tiny("lora.lora_dropout=0.5")["loss"]
    assert dropped[0] == without[0]  # a fresh adapter adds nothing, with or without dropout
    assert all(abs(mine - theirs) > 1e-4 for mine, theirs in zip(dropped[1:], without[1:], strict=True))


def test_dropout_differs_from_step_to_step() -> None:
    seeds = {hash_seed(seed, step, rank) for seed in range(4) for step in range(50) for rank in range(4)}
    assert len(seeds) == 4 * 50 * 4
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # a CPU generator takes the low 32 bits
    assert hash_seed(2**31 - 1, 10**6, 4095) < 2**63


def test_gradients_are_clipped(fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[float] = []

    def record(self: RouterModule, optimizer: Any) -> None:
        norms = [weight.grad.norm() for weight in self.parameters() if weight.grad is not None]
        applied.append(torch.stack(norms).norm().item())

    monkeypatch.setattr(RouterModule, "on_before_optimizer_step", record)
    found = fit_tiny("optim.max_grad_norm=1.0")["gradient_norm"]
    assert min(found) < 1.0 < max(found)
    assert applied == pytest.approx([min(norm, 1.0) for norm in found], rel=1e-4)
    applied.clear()
    found = fit_tiny("optim.max_grad_norm=null")["gradient_norm"]
    assert applied == pytest.approx(found, rel=1e-4)
    assert max(found) > 1.0


def test_all_weights_train_without_lora(fit_tiny: Fit) -> None:
    without_lora, with_lora = fit_tiny("lora=none", "optim.learning_rate=0.001"), fit_tiny()
    assert without_lora["loss"][0] == pytest.approx(with_lora["loss"][0], rel=ROUNDING)
    assert without_lora["loss"][-1] < without_lora["loss"][0] - 0.5


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule.constant, [1 / 3, 2 / 3, 1, 1, 1, 1, 1]),
        (Schedule.linear, [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25, 0]),
        (Schedule.cosine, [1 / 3, 2 / 3, 1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0]),
    ],
)
def test_schedules(schedule: Schedule, factors: list[float]) -> None:
    factor = schedule_factor(schedule, num_warmup=2, num_steps=6)
    assert [factor(step) for step in range(7)] == pytest.approx(factors, abs=1e-12)


def test_schedules_without_warm_up_or_decay() -> None:
    assert [schedule_factor(Schedule.cosine, 0, 2)(step) for step in range(3)] == pytest.approx([1, 0.5, 0])
    assert [schedule_factor(Schedule.linear, 2, 2)(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def break_step(monkeypatch: pytest.MonkeyPatch, step: int, spoil: Callable[..., torch.Tensor]) -> list[RouterModule]:
    """Add `spoil`'s value to the loss of one step, counted from 1; returns the module, once it trains."""
    sound = RouterModule.target_loss
    modules: list[RouterModule] = []

    def spoiled(self: RouterModule, micro_batch: MicroBatch) -> torch.Tensor:
        modules[:] = [self]
        loss = sound(self, micro_batch)
        return loss + spoil(self) if self.global_step == step - 1 else loss

    monkeypatch.setattr(RouterModule, "target_loss", spoiled)
    return modules


def nan_loss(module: RouterModule) -> torch.Tensor:
    return torch.tensor(math.nan)


def nan_gradient(module: RouterModule) -> torch.Tensor:
    weight = next(weight for weight in module.parameters() if weight.requires_grad)
    return (weight - weight.detach()).square().sum().sqrt()  # 0, with 0 / 0 for its slope


@pytest.mark.parametrize(("spoil", "loss"), [(nan_loss, "nan"), (nan_gradient, r"\d\.\d+")])
def test_a_loss_that_is_not_finite_stops_before_it_spoils_a_checkpoint(
    fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., torch.Tensor], loss: str
) -> None:
    every_step = "trainer.checkpoint_every_n_steps=1"
    expected = fit_tiny(every_step)
    with monkeypatch.context() as patch:
        modules = break_step(patch, 4, spoil)
        message = rf"optim\.learning_rate .* got 0\.01: at step 4 the loss is {loss}"
        with pytest.raises(ValueError, match=message):
            fit_tiny(every_step, folder=tmp_path)
    assert all(weight.isfinite().all() for weight in modules[0].parameters())
    checkpoint = last_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "step_00000003.ckpt"
    assert not (tmp_path / "adapter").exists()
    assert fit_tiny(every_step, folder=tmp_path) == expected
