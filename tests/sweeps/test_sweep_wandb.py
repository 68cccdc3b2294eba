"""W&B records of a sweep: a run per job in the sweep's group, with ids that stay, and the report beside them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import WandbConfig, WandbMode
from causal_lm_router.runs.job_log import read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.runs.tracking import log_sweep_report
from tests.conftest import Result
from tests.wandb_server import FakeServer, of_kind, offline_folders, records

pytestmark = pytest.mark.slow

SMALL = ["data=simulated", "debug=smoke", "lora.merge_lora=false", "trainer.progress_bar=false", "tracking=default"]
SMALL += ["tracking.wandb.mode=offline", "tracking.wandb.tags=[tiny]", "data.simulated.num_queries=60"]
SWEEP = ["train", "-m", *SMALL, "sweep.name=s", "seed=0,1"]


def opened(folder: Path) -> dict[str, Any]:
    """How W&B's file of a run names it."""
    (run,) = of_kind(records(folder), "run")
    return {key: run.get(key) for key in ("run_id", "run_group", "job_type", "display_name", "tags")}


def upload(folders: list[Path]) -> None:
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sweep_is_a_group_of_runs_that_can_be_uploaded(
    main: Callable[..., Result], tmp_path: Path, server: FakeServer
) -> None:
    result = main(*SWEEP)
    assert result.status == 0, result.errors
    sweep = SweepFolder(tmp_path / "outputs" / "sweeps" / "s")
    jobs = list(read_statuses(sweep))
    found = {}
    for job in jobs:
        (folder,) = offline_folders(sweep.run_dir(job))
        found[job] = opened(folder)
        assert found[job] | {"run_id": None} == {
            "run_id": None,
            "run_group": "s",
            "job_type": "train",
            "display_name": f"smoke-{job}",
            "tags": ["tiny"],
        }
    (folder,) = offline_folders(sweep.path)
    report = opened(folder)
    assert (report["run_group"], report["job_type"], report["display_name"]) == ("s", "report", "s-report")
    assert report["run_id"] == f"{sweep.read_metadata().uid}-report"
    ids = {names["run_id"] for names in found.values()} | {report["run_id"]}
    assert len(ids) == 3
    artifacts = {(artifact["type"], artifact["name"]) for artifact in of_kind(records(folder), "artifact")}
    assert ("report", f"report-{sweep.read_metadata().uid}") in artifacts
    assert "run_table" in {kind for kind, _ in artifacts}, "the table of configurations"
    upload([*(offline_folders(sweep.run_dir(job))[0] for job in jobs), folder])
    sent = [asked for asked in server.variables("UpsertBucket") if asked.get("groupName") == "s"]
    assert {asked["name"] for asked in sent} == ids
    assert {asked["jobType"] for asked in sent} == {"train", "report"}


def test_a_job_keeps_its_id_in_another_place_and_no_other_sweep_has_it(
    main: Callable[..., Result], tmp_path: Path, client: None
) -> None:
    ids = []
    for place in ("here", "there"):
        result = main(*SWEEP[:-1], "seed=0", "sweep.report=false", f"hydra.sweep.dir={tmp_path / place}")
        assert result.status == 0, result.errors
        (job,) = read_statuses(SweepFolder(tmp_path / place))
        (folder,) = offline_folders(tmp_path / place / job)
        ids.append(opened(folder)["run_id"])
    assert ids[0] != ids[1]


def test_a_later_report_goes_on_in_the_same_run(tmp_path: Path, client: None) -> None:
    config = WandbConfig(WandbMode.offline, "p", None, None, [], log_adapter=False, init_timeout_s=5)
    report = tmp_path / "report"
    report.mkdir()
    for text in ("first", "second"):
        (report / "report.md").write_text(text)
        log_sweep_report(config, "rank", "0123", tmp_path, [{"lora_r": 4, "mean_score": 0.5}], report)
    folders = offline_folders(tmp_path)
    assert [opened(folder)["run_id"] for folder in folders] == ["0123-report"] * 2
