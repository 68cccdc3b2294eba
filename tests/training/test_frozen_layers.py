"""Frozen layers computed once: the same losses, and nothing stale."""

from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.files import cache_dir

Fit = Callable[..., dict[str, list[float]]]
LAST = ("lora.num_layers=1", "lora.lora_dropout=0")


def files() -> set[Path]:
    return set((cache_dir() / "hidden_states").glob("*.bin"))


def test_the_losses_stay_the_same(fit_tiny: Fit) -> None:
    expected = fit_tiny(*LAST)["loss"]
    before = files()
    first = fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"]
    (made,) = files() - before
    again = fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"]
    assert first == pytest.approx(expected, rel=1e-5)
    assert again == first
    # What is there but belongs to other weights is made anew.
    made.write_bytes(bytes(made.stat().st_size))
    assert fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"] == first


def test_targets_of_several_tokens_take_all_layers(fit_tiny: Fit) -> None:
    with pytest.raises(ValueError, match=r"trainer\.reuse_frozen_layers .* target\.kind is token"):
        fit_tiny(*LAST, "trainer.reuse_frozen_layers=true", "objective=soft")
