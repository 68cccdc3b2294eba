"""The history of a sweep's jobs: events that survive torn lines, and the states that follow from them."""

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from causal_lm_router.files.locks import hold_folder, is_held
from causal_lm_router.runs.job_log import (
    FailureReason,
    JobEvent,
    JobState,
    JobStatus,
    append_event,
    has_failed_since_start,
    read_events,
    read_status,
    read_statuses,
    say_progress,
    seconds_left,
)
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder, sweep_of


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "rank")
    folder.make_metadata()
    return folder


def log(sweep: SweepFolder, *events: JobEvent) -> None:
    for event in events:
        append_event(sweep, event)


def test_a_sweep_keeps_its_unique_id(sweep: SweepFolder, tmp_path: Path) -> None:
    metadata = sweep.read_metadata()
    assert (metadata.name, len(metadata.uid)) == ("rank", 12)
    assert sweep.make_metadata() == metadata
    assert SweepFolder(tmp_path / "other").make_metadata().uid != metadata.uid


def test_a_folder_of_something_else_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sweep\.json of a sweep there"):
        SweepFolder(tmp_path).read_metadata()
    (tmp_path / "sweep.json").write_text('{"name": 1')
    with pytest.raises(ValueError, match=r"no sweep\.json of a sweep there"):
        SweepFolder(tmp_path).read_metadata()


def test_the_sweep_of_a_run(sweep: SweepFolder, tmp_path: Path) -> None:
    assert sweep_of(sweep.run_dir("a")) == SweepFolder(sweep.path.absolute())
    assert sweep_of(tmp_path / "outputs" / "a") is None


def test_events_come_back_as_they_were(sweep: SweepFolder) -> None:
    events = [
        JobEvent("a", JobState.queued, time=1.5, overrides=["seed=1", "x=é\n"], trial=3),
        JobEvent("a", JobState.running, time=2.0, code="0.1+ab", data={"k": "v"}, process="host:1"),
        JobEvent("a", JobState.failed, time=3.0, reason=FailureReason.oom, message="no room", seconds=1.0),
    ]
    log(sweep, *events)
    assert read_events(sweep) == events
    assert len(sweep.jobs.read_text().splitlines()) == 3


@pytest.mark.parametrize("torn", ['{"job": "a", "state": "do', "", '{"job": "a"}', '{"job": "a", "state": "odd"}'])
def test_a_torn_line_is_passed_over_and_costs_no_other(sweep: SweepFolder, torn: str) -> None:
    log(sweep, JobEvent("a", JobState.queued, time=1.0))
    with sweep.jobs.open("a") as file:
        file.write(torn)
    log(sweep, JobEvent("b", JobState.queued, time=2.0))
    assert [event.job for event in read_events(sweep)] == ["a", "b"]


@pytest.mark.slow
def test_many_processes_append_whole_lines(sweep: SweepFolder) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append_many, args=(sweep, str(number))) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    jobs = [json.loads(line)["job"] for line in sweep.jobs.read_text().splitlines()]
    assert sorted(jobs) == sorted(str(number) for number in range(4) for _ in range(50))


def append_many(sweep: SweepFolder, job: str) -> None:
    for _ in range(50):
        append_event(sweep, JobEvent(job, JobState.queued, message="x" * 500))


def test_the_last_event_says_where_a_job_stands(sweep: SweepFolder) -> None:
    log(
        sweep,
        JobEvent("", JobState.started),
        JobEvent("a", JobState.queued, overrides=["seed=0"]),
        JobEvent("b", JobState.queued, overrides=["seed=1"], trial=1),
        JobEvent("b", JobState.failed, reason=FailureReason.nan, message="loss is nan", seconds=4.0),
        JobEvent("b", JobState.queued, overrides=["seed=1", "sweep.retry_failed=true"]),
    )
    statuses = read_statuses(sweep)
    assert [(s.job, s.state, s.reason) for s in statuses.values()] == [("a", "queued", None), ("b", "failed", "nan")]
    assert statuses["b"].overrides == ["seed=1", "sweep.retry_failed=true"]
    assert (statuses["b"].trial, statuses["b"].seconds) == (1, 4.0)


def test_a_report_makes_a_job_done_whatever_the_log_lacks(sweep: SweepFolder) -> None:
    log(sweep, JobEvent("a", JobState.queued), JobEvent("a", JobState.running))
    run = RunFolder(sweep.run_dir("a"))
    run.path.mkdir()
    run.report.write_text("{}")
    assert read_status(sweep, "a").state is JobState.done
    assert read_status(sweep, "a").is_over
    assert not read_status(sweep, "a").is_due(retry_failed=True)


def test_states_that_are_due() -> None:
    def is_due(state: JobState, reason: FailureReason | None = None, retry: bool = False) -> bool:
        return JobStatus("a", state, 0.0, reason=reason).is_due(retry)

    assert is_due(JobState.queued)
    # What lies outside of a job is due again by itself.
    for reason in FailureReason:
        is_outside = reason not in (FailureReason.error, FailureReason.nan)
        assert is_due(JobState.failed, reason) == is_outside
        assert is_due(JobState.failed, reason, retry=True)
    assert not any(is_due(state, retry=True) for state in (JobState.running, JobState.done, JobState.pruned))


def hold(run_dir: Path, says: Connection) -> None:
    with hold_folder(run_dir):
        says.send("held")
        signal.pause()


@pytest.mark.slow
def test_a_job_whose_process_is_gone_was_killed(sweep: SweepFolder) -> None:
    log(sweep, JobEvent("a", JobState.running))
    sweep.run_dir("a").mkdir()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(sweep.run_dir("a"), there))
    process.start()
    assert here.recv() == "held"
    assert is_held(sweep.run_dir("a"))
    assert read_status(sweep, "a").state is JobState.running
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_held(sweep.run_dir("a"))
    status = read_status(sweep, "a")
    assert (status.state, status.reason, status.is_due(retry_failed=False)) == ("failed", "killed", True)


def test_only_failures_since_the_last_start_count(sweep: SweepFolder) -> None:
    log(sweep, JobEvent("", JobState.started), JobEvent("a", JobState.failed, reason=FailureReason.error))
    assert has_failed_since_start(sweep)
    log(sweep, JobEvent("", JobState.started), JobEvent("a", JobState.done))
    assert not has_failed_since_start(sweep)


def test_the_time_left() -> None:
    done = [JobStatus(str(number), JobState.done, 0.0, seconds=seconds) for number, seconds in enumerate((10.0, 30.0))]
    queued = [JobStatus("q", JobState.queued, 0.0), JobStatus("r", JobState.queued, 0.0)]
    killed = JobStatus("k", JobState.failed, 0.0, reason=FailureReason.killed)
    failed = JobStatus("f", JobState.failed, 0.0, reason=FailureReason.error)
    assert seconds_left(queued) is None
    assert seconds_left([*done, *queued, killed, failed]) == 60.0
    long_ago = [JobStatus(name, JobState.running, 0.0) for name in ("x", "y")]
    assert seconds_left([*done, *queued, *long_ago]) == 20.0
    assert say_progress([*done, *queued, killed, failed]) == "2 of 6 jobs done, 2 failed, about 1 min left"
    hours = JobStatus("h", JobState.done, 0.0, seconds=7260.0)
    assert say_progress([hours, queued[0]]) == "1 of 2 jobs done, about 2 h 1 min left"
    assert say_progress(done) == "2 of 2 jobs done"
