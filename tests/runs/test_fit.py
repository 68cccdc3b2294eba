"""The Trainer's settings, and when a run is evaluated while it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from causal_lm_router.models.adapter import is_adapter
from causal_lm_router.runs.session import Session
from causal_lm_router.training.callback import RoutingEvaluation
from causal_lm_router.training.checkpoint import FolderCheckpointIO
from causal_lm_router.training.trainer import make_trainer

Fit = Callable[..., dict[str, list[float]]]


def test_the_trainer_follows_the_config(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny_config("trainer.num_epochs=7", "trainer.precision=bf16-true", "trainer.log_every_n_steps=5").trainer
    trainer = make_trainer(config, tmp_path, [])
    assert (trainer.max_epochs, trainer.precision, trainer.log_every_n_steps) == (7, "bf16-true", 5)
    assert trainer.world_size == 1
    assert isinstance(trainer.strategy.checkpoint_io, FolderCheckpointIO)
    assert trainer.default_root_dir == str(tmp_path)
    assert trainer.loggers == []


def test_extra_arguments_reach_the_trainer_and_win(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny_config("+trainer.extra.max_steps=3", "+trainer.extra.max_epochs=9").trainer
    trainer = make_trainer(config, tmp_path, [])
    assert (trainer.max_steps, trainer.max_epochs) == (3, 9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+trainer.extra.no_such_argument=1", "trainer: .*no_such_argument"),
        ("trainer.strategy=no_such_strategy", "trainer: .*no_such_strategy"),
        ("trainer.accelerator=abacus", "trainer: .*abacus"),
    ],
)
@pytest.mark.slow
def test_what_the_trainer_refuses(tiny_config: Callable[..., Any], tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_config(override).trainer, tmp_path, [])


def test_training_stops_at_max_steps(fit_tiny: Fit) -> None:
    metrics = fit_tiny("+trainer.extra.max_steps=4", "optim.schedule=linear")
    # Four steps have no warm-up (a tenth of them, rounded): a line that reaches 0 after the fourth.
    assert metrics["learning_rate"] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


@pytest.mark.parametrize(
    ("epochs", "steps", "due"),
    [
        (1, None, [3, 6, 9, 12]),
        (2, None, [6, 12]),
        (None, 5, [5, 10]),
        (2, 4, [4, 6, 8, 12]),
        (None, None, []),
    ],
)
def test_when_an_evaluation_is_due(epochs: int | None, steps: int | None, due: list[int]) -> None:
    callback = RoutingEvaluation(epochs, steps, 3, *(lambda *_: pytest.fail("called") for _ in range(3)))
    assert [step for step in range(1, 13) if callback.is_due(step)] == due


def test_weights_are_evaluated_before_the_checkpoint_of_their_step(
    fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, list[str]]] = []
    recorded: list[int] = []

    def evaluate(self: Session, weights_dir: Path, examples: Any) -> Any:
        checkpoints = sorted(path.name for path in self.folder.checkpoints.glob("*.ckpt"))
        seen.append((is_adapter(weights_dir), checkpoints))
        assert [example.query_id for example in examples] == ["0"]
        return "evaluation"

    def record(tracking: Any, evaluation: Any, split: Any, step: int) -> None:
        assert (evaluation, split) == ("evaluation", "validation")
        recorded.append(step)

    monkeypatch.setattr(Session, "evaluate", evaluate)
    monkeypatch.setattr("causal_lm_router.runs.fit.record_evaluation", record)
    every_step = ["evaluation.every_n_steps=2", "trainer.checkpoint_every_n_steps=2"]
    metrics = fit_tiny(*every_step, folder=tmp_path)
    assert recorded == [2, 4, 6]
    assert seen == [(True, []), (True, ["step_00000002.ckpt"]), (True, ["step_00000004.ckpt"])]
    assert metrics == fit_tiny()  # evaluating changes nothing of the training


@pytest.mark.slow
def test_progress_is_quiet_unless_wanted(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    def has_bar(wanted: str) -> bool:
        trainer = make_trainer(tiny_config(f"trainer.progress_bar={wanted}").trainer, tmp_path, [])
        return any(isinstance(callback, pl.callbacks.ProgressBar) for callback in trainer.callbacks)

    assert has_bar("true")
    assert not has_bar("false")


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_every_precision_trains(precision: str, fit_tiny: Fit) -> None:
    losses = fit_tiny(f"trainer.precision={precision}", "trainer.num_epochs=4", "trainer.log_every_n_steps=1")["loss"]
    assert losses[-1] < losses[0]
