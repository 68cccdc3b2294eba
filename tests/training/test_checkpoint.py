"""Checkpoints: what is in them, what is never taken for one, and resuming at every step of a run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from causal_lm_router.files.checksums import CHECKSUMS, add_checksums
from causal_lm_router.runs import fit as fit_module
from causal_lm_router.runs.run_folder import RunFolder, own_run
from causal_lm_router.training.checkpoint import FolderCheckpointIO, checkpoint_step, last_checkpoint
from causal_lm_router.training.module import RouterModule

Fit = Callable[..., dict[str, list[float]]]
WEIGHTS, STATE = "trained_weights.safetensors", "trainer_state.pt"


def write(path: Path, value: float = 1.0) -> Path:
    content = {"global_step": 3, "loops": {"done": [1, 2]}, "state_dict": {"a": torch.full((2, 3), value)}}
    FolderCheckpointIO().save_checkpoint(content, path)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = {
        "epoch": 1,
        "global_step": 7,
        "loops": {"fit": {"progress": [1, 2.5, None, True]}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(3)}}}],
        "state_dict": {"a": torch.randn(2, 3), "b.c": torch.randn(4, 2).T, "half": torch.ones(2, dtype=torch.bfloat16)},
    }
    FolderCheckpointIO().save_checkpoint(content, tmp_path / "folder" / "step_00000007.ckpt")
    assert content.keys() == {"epoch", "global_step", "loops", "optimizer_states", "state_dict"}
    read = FolderCheckpointIO().load_checkpoint(tmp_path / "folder" / "step_00000007.ckpt")
    torch.testing.assert_close(read, content, rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["step_00000007.ckpt"]


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    path = write(tmp_path / "step_00000003.ckpt")
    torch.save({"global_step": 3, "harmful": Harmful()}, path / STATE)
    add_checksums(path)
    with pytest.raises(ValueError, match=r"trainer_state\.pt .*; remove .*step_00000003\.ckpt"):
        FolderCheckpointIO().load_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "step_00000003.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_the_same_step_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "step_00000003.ckpt", 1.0)
    write(path, 2.0)
    assert FolderCheckpointIO().load_checkpoint(path)["state_dict"]["a"][0, 0] == 1.0


def test_the_last_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "missing") is None
    for step in (9, 100, 20):
        write(tmp_path / f"step_{step:08d}.ckpt")
    assert last_checkpoint(tmp_path) == tmp_path / "step_00000100.ckpt"
    assert checkpoint_step(last_checkpoint(tmp_path)) == 100
    assert checkpoint_step(None) == -1


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    whole = write(tmp_path / "step_00000003.ckpt")
    shutil.copytree(whole, tmp_path / ".step_00000004.ckpt.0a1b2c3d4e5f.tmp")
    shutil.copytree(whole, tmp_path / ".step_00000005.ckpt.a0b1c2d3e4f5.tmp")
    (tmp_path / "step_00000006.ckpt").mkdir()
    assert last_checkpoint(tmp_path) == whole


def test_a_checkpoint_leaves_its_name_before_its_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        assert not (tmp_path / "step_00000003.ckpt").exists()
        raise KeyboardInterrupt

    path = write(tmp_path / "step_00000003.ckpt")
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        FolderCheckpointIO().remove_checkpoint(path)
    assert last_checkpoint(tmp_path) is None


def test_a_checkpoint_holds_the_trained_weights_alone(fit_tiny: Fit, tmp_path: Path) -> None:
    fit_tiny("trainer.checkpoint_every_n_steps=3", folder=tmp_path)
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert folder.name == "step_00000006.ckpt"
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, STATE, CHECKSUMS}
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        names = set(weights.keys())
    layers = [f"model.base_model.model.model.layers.{layer}.self_attn" for layer in range(2)]
    parts = [f"{layer}.{part}_proj" for layer in layers for part in "qkvo"]
    assert names == {f"{part}.lora_{half}.default.weight" for part in parts for half in "AB"}
    assert (folder / WEIGHTS).stat().st_size < 4 * 28_672 + 4_096
    state = torch.load(folder / STATE, weights_only=True)
    assert state["global_step"] == 6
    assert "state_dict" not in state
    assert len(state["optimizer_states"][0]["state"]) == 16


class InterruptedRunError(Exception):
    """Stands for whatever ends a run."""


def break_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let a run end as it begins an optimizer step, counted from 1."""
    sound = RouterModule.training_step

    def breaking(self: RouterModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == step - 1:
            raise InterruptedRunError
        sound(self, batch, batch_idx)

    monkeypatch.setattr(RouterModule, "training_step", breaking)


def results(folder: Path) -> tuple[str, bytes]:
    """All metrics with step and epoch, and the adapter's bytes."""
    return (folder / "metrics.csv").read_text(), (folder / "adapter" / "adapter_model.safetensors").read_bytes()


# Three steps an epoch: the interruption falls within an epoch, at its end and before the first checkpoint.
@pytest.mark.parametrize(
    ("every_n_steps", "step"), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 2), (2, 4), (2, 6), (4, 6), (9, 6)]
)
def test_resumed_runs_equal_uninterrupted_ones(
    fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_n_steps: int, step: int
) -> None:
    overrides = [f"trainer.checkpoint_every_n_steps={every_n_steps}", "lora.lora_dropout=0.2"]
    fit_tiny(*overrides, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, step)
        with pytest.raises(InterruptedRunError):
            fit_tiny(*overrides, folder=tmp_path / "broken")
    done = (step - 1) // every_n_steps * every_n_steps
    assert checkpoint_step(last_checkpoint(tmp_path / "broken" / "checkpoints")) == (done or -1)
    fit_tiny(*overrides, folder=tmp_path / "broken")
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_run_broken_at_every_step_ends_all_the_same(
    fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_step = "trainer.checkpoint_every_n_steps=1"
    fit_tiny(every_step, folder=tmp_path / "whole")
    for step in range(1, 7):
        with monkeypatch.context() as patch:
            break_at(patch, step)
            with pytest.raises(InterruptedRunError):
                fit_tiny(every_step, folder=tmp_path / "broken")
    fit_tiny(every_step, folder=tmp_path / "broken")
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_run_broken_after_its_last_step_trains_no_further(
    fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise InterruptedRunError

    every_step = "trainer.checkpoint_every_n_steps=1"
    fit_tiny(every_step, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "save_weights", fail)
        with pytest.raises(InterruptedRunError):
            fit_tiny(every_step, folder=tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(RouterModule, "training_step", fail)
        fit_tiny(every_step, folder=tmp_path / "broken")
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    whole = write(tmp_path / "checkpoints" / "step_00000004.ckpt")
    shutil.copytree(whole, tmp_path / "checkpoints" / ".step_00000005.ckpt.0a1b2c3d4e5f.tmp")
    shutil.copytree(whole, tmp_path / ".adapter.a0b1c2d3e4f5.tmp")
    with own_run(RunFolder(tmp_path)):
        assert set(os.listdir(tmp_path)) == {".lock", "checkpoints"}
        assert os.listdir(tmp_path / "checkpoints") == ["step_00000004.ckpt"]


@pytest.mark.parametrize("change", ["seed=1", "trainer.batch_size=4"])
def test_a_checkpoint_of_another_order_is_refused(fit_tiny: Fit, tmp_path: Path, change: str) -> None:
    every_step = "trainer.checkpoint_every_n_steps=4"
    fit_tiny(every_step, folder=tmp_path)
    with pytest.raises(
        ValueError, match=r"checkpoint: was made with \{'num_rows': 22, 'rows_per_step': 8, 'seed': 0\}"
    ):
        fit_tiny(every_step, change, folder=tmp_path)


def test_older_checkpoints_go_only_when_the_new_one_is_there(fit_tiny: Fit, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    remove = FolderCheckpointIO.remove_checkpoint

    def watch(self: FolderCheckpointIO, path: Any) -> None:
        seen.append(sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()))
        remove(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderCheckpointIO, "remove_checkpoint", watch)
        fit_tiny("trainer.checkpoint_every_n_steps=2", folder=tmp_path)
    assert seen == [[f"step_{step - 2:08d}.ckpt", f"step_{step:08d}.ckpt"] for step in (4, 6)]
