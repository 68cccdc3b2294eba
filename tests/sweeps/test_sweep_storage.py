"""Sweeps on a full disk, on a read-only folder and without the W&B server: clear messages, nothing lost, then go on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.runs.job_log import read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from tests.conftest import Result
from tests.sweeps.test_sweep import SMALL, snapshot, states

pytestmark = pytest.mark.slow

SWEEP = ["train", "-m", *SMALL, "sweep.name=s"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Function that mounts `outputs` as a file system of its own, or mounts it anew, with the given options."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()

    def mount(options: str) -> None:
        again = "remount," if outputs.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(outputs)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not allowed here")

    yield mount
    if outputs.is_mount():
        subprocess.run(["umount", "--lazy", str(outputs)], check=True)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "outputs" / "sweeps" / "s")


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def test_a_full_disk(main: Callable[..., Result], small_disk: Callable[[str], None], sweep: SweepFolder) -> None:
    small_disk("size=64m")
    assert main(*SWEEP, "seed=0").status == 0
    kept = snapshot(sweep.path)
    # Room for a part of the next job.
    small_disk(f"size={used_bytes(sweep.path) + 200_000}")
    result = main(*SWEEP, "seed=0,1,2")
    assert result.status == 1
    assert result.errors.startswith("error: sweep: ")
    assert "No space left on device" in result.output
    assert states(sweep)[0] == ("done", None)
    assert states(sweep)[1:] == [("failed", "no_space")] * 2
    assert kept.items() <= snapshot(sweep.path).items()
    small_disk("size=64m")
    result = main(*SWEEP, "seed=0,1,2")
    assert result.status == 0, "the same command goes on: " + result.errors
    assert states(sweep) == [("done", None)] * 3
    assert kept.items() <= snapshot(sweep.path).items()
    for job in read_statuses(sweep):
        json.loads((sweep.run_dir(job) / "report.json").read_text())
    assert list(sweep.path.rglob("*.tmp")) == []


def test_a_search_on_a_full_disk(
    main: Callable[..., Result], small_disk: Callable[[str], None], sweep: SweepFolder
) -> None:
    search = [*SWEEP, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "optim.learning_rate=interval(0.001,0.01)"]
    small_disk("size=64m")
    assert main(*search, "hydra.sweeper.n_trials=1").status == 0
    small_disk(f"size={used_bytes(sweep.path) + 200_000}")
    assert main(*search).status == 1
    assert states(sweep) == [("done", None), ("failed", "no_space")], "no further trial meets the full disk"
    small_disk("size=64m")
    result = main(*search)
    assert result.status == 0, result.errors
    assert states(sweep) == [("done", None)] * 3


def test_a_full_cache_ends_a_job_in_one_line(
    main: Callable[..., Result],
    small_disk: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: object,
) -> None:
    """A memory map of a file without blocks on the disk would end the process by SIGBUS."""
    frozen = ["trainer.reuse_frozen_layers=true", "lora.num_layers=1", "lora.lora_dropout=0"]
    small_disk("size=64m")
    cache = tmp_path / "outputs" / "cache"
    # The base model lies there already.
    shutil.copytree(os.environ["CAUSAL_LM_ROUTER_CACHE"], cache, ignore=shutil.ignore_patterns("hidden_states"))
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(cache))
    assert main("train", *SMALL, "run_dir=first").status == 0, "rows are encoded"
    small_disk(f"size={used_bytes(tmp_path / 'outputs') + 100_000}")
    command = [sys.executable, "-m", "causal_lm_router.commands.train", *SMALL, *frozen, "run_dir=second"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended
    assert "trainer.reuse_frozen_layers=true needs" in ended.stderr
    assert "No space left on device" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(cache.rglob("*.tmp")) == []


def test_a_full_disk_may_stop_the_sweep(
    main: Callable[..., Result], small_disk: Callable[[str], None], sweep: SweepFolder
) -> None:
    small_disk("size=300k")
    result = main(*SWEEP, "seed=0,1,2", "sweep.on_failure=stop")
    assert result.status == 1
    assert "No space left on device" in result.output + result.errors
    assert [state for state, _ in states(sweep)][1:] == ["queued", "queued"]


def test_a_read_only_folder(main: Callable[..., Result], small_disk: Callable[[str], None], sweep: SweepFolder) -> None:
    small_disk("size=64m")
    assert main(*SWEEP, "seed=0").status == 0
    kept = snapshot(sweep.path)
    small_disk("ro")
    result = main(*SWEEP, "seed=0,1")
    assert (result.status, snapshot(sweep.path)) == (1, kept)
    assert "Read-only file system" in result.errors
    assert result.errors.count("\n") == 1
    shown = main("status", str(sweep.path))
    assert (shown.status, "1 of 1 jobs done" in shown.output) == (0, True)


def test_an_unreachable_wandb_server(
    main: Callable[..., Result], client: None, monkeypatch: pytest.MonkeyPatch, sweep: SweepFolder, caplog: Any
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    small = [*SWEEP, "tracking=default", "seed=0,1"]
    result = main(*small, "tracking.wandb.mode=online", "sweep.on_failure=stop")
    assert result.status == 1
    assert states(sweep) == [("failed", "no_server"), ("queued", None)]
    (message, _) = (status.message for status in read_statuses(sweep).values())
    assert message is not None
    assert (
        "tracking.wandb.mode must be auto, offline or disabled without a server, got 'online': the W&B server"
        in message
    )
    assert "http://127.0.0.1:9 cannot be reached" in message
    result = main(*small)
    assert result.status == 0, result.errors
    assert result.output.count("W&B recorded offline") == 1, "said once, not by every job"
    for job in read_statuses(sweep):
        log = (sweep.run_dir(job) / "train.log").read_text(encoding="utf-8")
        assert "W&B records offline: the W&B server http://127.0.0.1:9 cannot be reached" in log
    assert states(sweep) == [("done", None)] * 2
