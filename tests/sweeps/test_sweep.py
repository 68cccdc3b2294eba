"""Sweeps on the tiny base model: folders named by configs, nothing run twice, failures that cost only themselves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from causal_lm_router.runs.job_log import read_events, read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps import versions
from tests.conftest import Result

pytestmark = pytest.mark.slow

SMALL = ["data=simulated", "debug=smoke"]
SMALL += ["lora.merge_lora=false", "trainer.progress_bar=false", "tracking.tensorboard=false"]
SMALL += ["data.simulated.num_queries=60", "sweep.report=false"]
SWEEP = ["-m", *SMALL, "sweep.name=s"]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "outputs" / "sweeps" / "s")


def history(sweep: SweepFolder, state: str) -> list[str]:
    """The jobs that came into a state, in order."""
    return [event.job for event in read_events(sweep) if event.state == state]


def states(sweep: SweepFolder) -> list[tuple[str, str | None]]:
    return [(status.state.value, status.reason and status.reason.value) for status in read_statuses(sweep).values()]


def snapshot(folder: Path) -> dict[str, int]:
    """When each file of the jobs was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/**/*") if path.is_file()}


CLOCK = ("queries_per_second", "fit_seconds", "provenance")


def results(run_dir: Path) -> dict[str, Any]:
    """All that a run found out, without what depends on the clock."""
    report = json.loads((run_dir / "report.json").read_text())
    report = {key: value for key, value in report.items() if key not in CLOCK}
    losses = [line for line in (run_dir / "metrics.csv").read_text().splitlines() if "train/loss" in line]
    return {"report": report, "losses": losses, "outcomes": (run_dir / "outcomes.jsonl").read_text()}


def test_a_sweep_and_the_same_command_again(main: Callable[..., Result], sweep: SweepFolder) -> None:
    first = main("train", *SWEEP, "lora.lora_r=2,4")
    assert first.status == 0, first.errors
    assert first.output.rstrip().endswith("sweep folder: outputs/sweeps/s\n2 jobs: 2 done")
    statuses = read_statuses(sweep)
    for status, rank in zip(statuses.values(), (2, 4), strict=True):
        assert len(status.job) == 12
        assert status.overrides == [*SMALL_AS_HYDRA_SAYS, "sweep.name=s", f"lora.lora_r={rank}"]
        assert yaml.safe_load((sweep.run_dir(status.job) / "config.yaml").read_text())["lora"]["lora_r"] == rank
        assert status.seconds is not None
        assert status.seconds > 0
    written = snapshot(sweep.path)
    other_records = ["tracking=default", "trainer.checkpoint_every_n_steps=7", "trainer.log_every_n_steps=3"]
    again = main("train", *SWEEP, "lora.lora_r=2,4", *other_records)
    assert (again.status, snapshot(sweep.path)) == (0, written), (
        "what only says who records, and how often, is no new job"
    )
    assert "2 jobs: 2 done, 0 to run" in again.output
    more = main("train", *SWEEP, "lora.lora_r=2,4", "seed=0,1")
    assert more.status == 0
    assert written.items() <= snapshot(sweep.path).items()
    assert sorted(history(sweep, "done")) == sorted(read_statuses(sweep))
    assert len(read_statuses(sweep)) == 4


SMALL_AS_HYDRA_SAYS = [argument.replace("=false", "=False") for argument in SMALL]


def test_a_failed_job_costs_only_itself(main: Callable[..., Result], sweep: SweepFolder) -> None:
    swept = [*SWEEP, "lora.target_modules=[nope],[q_proj]"]
    result = main("train", *swept)
    assert (result.status, result.errors) == (
        1,
        "error: sweep: 1 done, 1 failed of 2 jobs; see causal-lm-router status outputs/sweeps/s\n",
    )
    assert "2 of 2 to run: lora.target_modules=[q_proj]\n" in result.output
    assert states(sweep) == [("failed", "error"), ("done", None)]
    (failed, done) = read_statuses(sweep).values()
    assert "lora.target_modules" in (failed.message or "")
    assert "'nope'" in (failed.message or "")
    assert main("train", *swept).status == 1
    assert history(sweep, "running") == [failed.job, done.job], "it is not tried again unasked"
    assert main("train", *swept, "sweep.retry_failed=true").status == 1
    assert history(sweep, "running") == [failed.job, done.job, failed.job]
    shown = main("status", "outputs/sweeps/s")
    assert shown.status == 0
    assert "failed (error)" in shown.output
    assert "lora.target_modules=[nope]" in shown.output, "brackets are text, not mark-up"
    assert "1 of 2 jobs done, 1 failed" in shown.output
    listed = json.loads(main("status", "outputs/sweeps/s", "--json").output)
    assert [(job["state"], job["reason"]) for job in listed["jobs"]] == [("failed", "error"), ("done", None)]


def test_a_sweep_may_stop_at_the_first_failure(main: Callable[..., Result], sweep: SweepFolder) -> None:
    swept = [*SWEEP, "lora.target_modules=[nope],[q_proj]"]
    result = main("train", *swept, "sweep.on_failure=stop")
    assert result.status == 1
    assert states(sweep) == [("failed", "error"), ("queued", None)]
    assert main("train", *swept).status == 1
    assert states(sweep) == [("failed", "error"), ("done", None)]


def test_a_loss_that_is_not_finite_is_a_reason_of_its_own(main: Callable[..., Result], sweep: SweepFolder) -> None:
    result = main("train", *SWEEP, "optim.learning_rate=1e30")
    assert result.status == 1
    assert states(sweep) == [("failed", "nan")]


def test_wrong_values_stop_a_sweep_before_its_first_job(main: Callable[..., Result], tmp_path: Path) -> None:
    result = main("train", *SWEEP, "lora.lora_r=4,0")
    assert (result.status, result.errors) == (1, "error: lora.lora_r must be an integer of at least 1, got 0\n")
    assert main("train", *SWEEP, "data=jsonl", "data.path=nowhere.jsonl").status == 1
    assert not (tmp_path / "outputs").exists()
    assert main("status", "outputs").errors == "error: outputs: must be a folder of runs; there is no such folder\n"


def test_every_job_is_checked_against_its_data_before_the_first_one_starts(
    main: Callable[..., Result], tmp_path: Path
) -> None:
    mistakes = {
        "target=name,score_class": ["target.kind=score_class must have a pool of 2 candidates, got 6"],
        "prompt.max_length=16,20,256": ["target take 28 tokens, got 16", "target take 28 tokens, got 20"],
        "lora.lora_r=0,2,-1": ["lora.lora_r must be an integer of at least 1, got 0", "got -1"],
        "parsing.fallback_candidate=null,nobody": ["parsing.fallback_candidate must be null or one of", "'nobody'"],
    }
    for swept, messages in mistakes.items():
        result = main("train", *SWEEP, swept, "seed=0,1")
        assert (result.status, result.errors.count("\n")) == (1, 1)
        for message in messages:
            assert result.errors.count(message) == 1, "once for all seeds"
    both = main("train", *SWEEP, "target=name,score_class", "prompt.max_length=24,256")
    assert "score_class must have" in both.errors
    assert "prompt.max_length must" in both.errors
    assert not (tmp_path / "outputs").exists()


def test_baselines_are_checked_against_their_data_too(main: Callable[..., Result], tmp_path: Path) -> None:
    small = ["baseline", "-m", "baseline=knn_vote,cheapest", "debug=smoke", "sweep.report=false"]
    (tmp_path / "few.jsonl").write_text(
        "".join(json.dumps({"query": f"q{number}", "scores": {"a": 1, "b": 0}}) + "\n" for number in range(40))
    )
    result = main(*small, "data=jsonl", "data.path=few.jsonl")
    assert result.status == 1
    assert "baseline.k must be in 1.." in result.errors
    assert "baseline.method must be one that needs no costs, got 'cheapest'" in result.errors
    assert not (tmp_path / "outputs").exists()


def test_other_code_is_refused_unless_allowed(
    main: Callable[..., Result], sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main("train", *SWEEP, "seed=0").status == 0
    now = versions.code_version()
    for module in ("sweeps.job", "sweeps.launched_jobs"):
        monkeypatch.setattr(f"causal_lm_router.{module}.code_version", lambda: "0.0.9+other")
    result = main("train", *SWEEP, "seed=0,1")
    assert result.status == 1
    assert f"earlier jobs ran code {now}, this is 0.0.9+other" in result.errors
    assert len(history(sweep, "running")) == 1
    assert main("train", *SWEEP, "seed=0").status == 0, "where nothing is left to run nothing is mixed"
    result = main("train", *SWEEP, "seed=0,1", "sweep.allow_mixed=true")
    assert (result.status, len(history(sweep, "running"))) == (0, 2)
    assert f"sweep.allow_mixed=true: earlier jobs ran code {now}, this is 0.0.9+other" in result.output


def test_other_data_is_refused_unless_allowed(
    main: Callable[..., Result], sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(score: float) -> None:
        rows = [{"query": f"q{number}", "scores": {"a": number % 2, "b": score}} for number in range(40)]
        (tmp_path / "my, data=1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    swept = [
        *(word for word in SWEEP if not word.startswith("data")),
        "data=jsonl",
        "data.path='my, data=1.jsonl'",
        "data.tie_break=first",
    ]
    write(0.5)
    assert main("train", *swept, "seed=0").status == 0
    write(0.6)
    # A process of its own would read the file anew.
    monkeypatch.setattr("causal_lm_router.runs.workbench.shared_workbench", fresh_workbench())
    result = main("train", *swept, "seed=0,1")
    assert result.status == 1
    assert "the content of the data, or a function that the config names, has changed" in result.errors
    assert main("train", *swept, "seed=0,1", "sweep.allow_mixed=true").status == 0
    assert len(history(sweep, "done")) == 2
    assert main("report", str(sweep.path)).status == 0
    page = (sweep.report / "report.md").read_text()
    assert "The data, or a function that the config names, changed between jobs" in page


def fresh_workbench() -> Callable[[], Any]:
    from causal_lm_router.runs.workbench import Workbench

    workbench = Workbench()
    return lambda: workbench


def test_folders_stay_in_the_sweep_whatever_is_swept(main: Callable[..., Result], tmp_path: Path) -> None:
    small = [argument for argument in SWEEP if argument != "sweep.name=s"]
    result = main("train", *small, "name=a,b-c")
    assert result.status == 0, result.errors
    assert [path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()] == ["smoke"]
    assert len(read_statuses(SweepFolder(tmp_path / "outputs" / "sweeps" / "smoke"))) == 2
    assert "name must be a name of letters" in main("train", *small, "name=..").errors


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "causal_lm_router.commands.train", *arguments]


def wait_for(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return found


LONG = ["trainer.num_epochs=4", "trainer.checkpoint_every_n_steps=1", "trainer.batch_size=4"]


def test_a_killed_sweep_goes_on_where_it_stopped(
    main: Callable[..., Result], sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = [*SWEEP, *LONG, "seed=0,1"]
    process = subprocess.Popen(command_line(*swept), cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    second = wait_for(lambda: history(sweep, "running")[1:])[0]
    wait_for(lambda: list(sweep.run_dir(second).glob("checkpoints/step_*[5-9].ckpt")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert states(sweep) == [("done", None), ("failed", "killed")]
    first = history(sweep, "done")[0]
    kept = snapshot(sweep.run_dir(first))
    result = main("train", *swept, "trainer.progress_bar=true")
    assert result.status == 0, result.errors
    assert "2 jobs: 1 done, 1 to run" in result.output
    assert "continuing from" in (sweep.run_dir(second) / "train.log").read_text()
    assert snapshot(sweep.run_dir(first)) == kept
    assert history(sweep, "running") == [first, second, second]
    undisturbed = [argument for argument in swept if argument != "sweep.name=s"] + ["sweep.name=u"]
    assert main("train", *undisturbed).status == 0
    for job in (first, second):
        assert results(sweep.run_dir(job)) == results(sweep.path.parent / "u" / job)


def test_an_isolated_job_that_is_killed_costs_only_itself(
    main: Callable[..., Result], sweep: SweepFolder, tmp_path: Path
) -> None:
    swept = [*SWEEP, *LONG, "sweep.isolated=true", "seed=0,1"]
    process = subprocess.Popen(command_line(*swept), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    first = wait_for(lambda: history(sweep, "running"))[0]
    wait_for(lambda: list(sweep.run_dir(first).glob("checkpoints/step_*.ckpt")))
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"1 done, 1 failed of 2 jobs" in errors
    assert states(sweep) == [("failed", "killed"), ("done", None)]
    assert main("train", *swept).status == 0
    assert states(sweep) == [("done", None)] * 2
    assert history(sweep, "running").count(first) == 2


def test_an_isolated_job_ends_with_its_sweep(sweep: SweepFolder, tmp_path: Path) -> None:
    swept = [*SWEEP, *LONG, "sweep.isolated=true", "seed=0,1", "trainer.num_epochs=400"]
    process = subprocess.Popen(command_line(*swept), cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(lambda: history(sweep, "running"))
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, timeout_s=20)
    wait_for(lambda: states(sweep) == [("failed", "killed"), ("queued", None)], timeout_s=10)


def test_two_sweeps_on_one_folder_share_the_jobs(sweep: SweepFolder, tmp_path: Path) -> None:
    swept = [*SWEEP, "seed=0,1,2"]
    processes = [subprocess.Popen(command_line(*swept), cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    for process in processes:
        assert process.wait(timeout=240) == 0, "that the other one runs a job is no failure"
    assert states(sweep) == [("done", None)] * 3
    assert sorted(history(sweep, "running")) == sorted(read_statuses(sweep)), "each has run once"


def test_a_distributed_job_in_a_sweep(main: Callable[..., Result], sweep: SweepFolder) -> None:
    result = main("train", *SWEEP, "trainer.devices=2", "trainer.strategy=ddp")
    assert result.status == 0, result.errors
    assert states(sweep) == [("done", None)]


def test_a_job_resumed_by_hand_is_in_the_history(main: Callable[..., Result], sweep: SweepFolder) -> None:
    assert main("train", *SWEEP, "lora.target_modules=[nope]").status == 1
    (status,) = read_statuses(sweep).values()
    result = main("resume", f"run_dir={sweep.run_dir(status.job)}")
    assert result.status == 1
    assert history(sweep, "failed") == [status.job] * 2


def test_a_lost_history_does_not_undo_a_result(main: Callable[..., Result], sweep: SweepFolder) -> None:
    assert main("train", *SWEEP, "seed=0").status == 0
    sweep.jobs.unlink()
    written = snapshot(sweep.path)
    assert main("train", *SWEEP, "seed=0").status == 0
    assert (states(sweep), snapshot(sweep.path)) == ([("done", None)], written)
    (job,) = read_statuses(sweep)
    shutil.rmtree(sweep.run_dir(job))
    assert states(sweep) == [("queued", None)], "a job without its folder is to be run anew"
    assert main("train", *SWEEP, "seed=0").status == 0
    assert states(sweep) == [("done", None)]


def test_a_folder_that_cannot_be_made_is_a_failed_job(main: Callable[..., Result], sweep: SweepFolder) -> None:
    assert main("train", *SWEEP, "seed=0").status == 0
    (job,) = read_statuses(sweep)
    shutil.rmtree(sweep.run_dir(job))
    sweep.run_dir(job).write_text("in the way")
    result = main("train", *SWEEP, "seed=0,1", "sweep.on_failure=stop")
    assert result.status == 1
    assert states(sweep) == [("failed", "error"), ("queued", None)]
    assert main("train", *SWEEP, "seed=0,1").status == 1
    assert states(sweep) == [("failed", "error"), ("done", None)]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_sweep_says_so(sent: signal.Signals, sweep: SweepFolder, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_line(*SWEEP, *LONG, "trainer.num_epochs=400", "seed=0,1"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores it, and so would all that it starts in turn.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = wait_for(lambda: history(sweep, "running"))[0]
    wait_for(lambda: list(sweep.run_dir(first).glob("checkpoints/step_*.ckpt")))
    process.send_signal(sent)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    assert "interrupted; the same command goes on with what is left" in output
    assert "Traceback" not in errors
    assert states(sweep) == [("failed", "killed"), ("queued", None)]
