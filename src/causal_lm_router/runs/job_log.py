"""The file jobs.jsonl: a line per event in the life of a sweep's jobs, appended by all processes that work on it.

A process killed while writing leaves a torn line, which readers pass over.
"""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from filelock import FileLock

from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder, is_running

logger = logging.getLogger(__name__)


class JobState(StrEnum):
    """Where a job stands; `started` is the sweep's own: a command began it or went on with it."""

    started = "started"
    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"
    pruned = "pruned"


class FailureReason(StrEnum):
    """Why a job failed: an error, out of memory, its process was killed, or training was not finite."""

    error = "error"
    oom = "oom"
    killed = "killed"
    nan = "nan"


class JobError(Exception):
    """A job ended without a result; the job log says why."""


@dataclass(frozen=True)
class JobEvent:
    """One line of jobs.jsonl: at `time` (epoch seconds) a job came into a state; no job is the sweep itself.

    `overrides` stand on queued events, `code` (version) and `data` (fingerprint by data config) on running ones,
    `reason` and `message` on failed ones, `seconds` (since the job last began) on those that end it.
    """

    job: str
    state: JobState
    time: float = field(default_factory=time.time)
    overrides: Sequence[str] | None = None
    trial: int | None = None
    code: str | None = None
    data: Mapping[str, str] | None = None
    process: str | None = None
    reason: FailureReason | None = None
    message: str | None = None
    seconds: float | None = None


def append_event(sweep: SweepFolder, event: JobEvent) -> None:
    """Append an event and flush it to disk; raise OSError where that cannot be done."""
    said = {key: value for key, value in asdict(event).items() if value is not None}
    line = json.dumps(said, ensure_ascii=False).encode() + b"\n"
    with FileLock(sweep.path / ".jobs.lock"), sweep.jobs.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # Behind a torn line start anew.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def record_end(sweep: SweepFolder, event: JobEvent) -> None:
    """Append an event that no result depends on: where it cannot be written the run folder still tells what is done."""
    try:
        append_event(sweep, event)
    except OSError as error:
        logger.error("job %s: %s, which cannot be recorded: %s", event.job, event.state.value, error)


def read_events(sweep: SweepFolder) -> list[JobEvent]:
    """Return all events in the order of writing, none where the file is missing; torn lines are passed over."""
    if not sweep.jobs.is_file():
        return []
    lines = sweep.jobs.read_bytes().split(b"\n")
    return [event for event in map(_parse, lines) if event is not None]


def _parse(line: bytes) -> JobEvent | None:
    try:
        said: dict[str, Any] = json.loads(line)
        said["state"] = JobState(said["state"])
        if "reason" in said:
            said["reason"] = FailureReason(said["reason"])
        return JobEvent(**said)
    except (ValueError, TypeError, KeyError):
        return None


def has_failed_since_start(sweep: SweepFolder) -> bool:
    """True when a job failed after the command that works on the sweep began."""
    states = [event.state for event in read_events(sweep)]
    last_start = max((index for index, state in enumerate(states) if state is JobState.started), default=0)
    return JobState.failed in states[last_start:]


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands now, and how it came there."""

    job: str
    state: JobState
    since: float
    overrides: Sequence[str] = ()
    trial: int | None = None
    reason: FailureReason | None = None
    message: str | None = None
    seconds: float | None = None
    code: str | None = None
    data: Mapping[str, str] | None = None

    @property
    def is_over(self) -> bool:
        """True when the job has come to a result: nothing is left to run."""
        return self.state in (JobState.done, JobState.pruned)

    def is_due(self, retry_failed: bool) -> bool:
        """True when the job is to be run: it is not over, not running, and has not failed or is to be tried again."""
        if self.state is JobState.failed:
            return retry_failed or self.was_killed
        return not self.is_over and self.state is not JobState.running

    @property
    def was_killed(self) -> bool:
        """True when its process died: the job goes on from its last checkpoint."""
        return self.state is JobState.failed and self.reason is FailureReason.killed


def read_statuses(sweep: SweepFolder) -> dict[str, JobStatus]:
    """Return the status of every job in the order they came up.

    A report in the run folder makes a job done, and without its folder it is to be run anew. A job that was running,
    and that no process holds any more, was killed.
    """
    statuses: dict[str, JobStatus] = {}
    for event in read_events(sweep):
        if event.job:
            statuses[event.job] = _after(statuses.get(event.job), event)
    return {job: _checked(sweep, status) for job, status in statuses.items()}


def read_status(sweep: SweepFolder, job: str) -> JobStatus:
    """Return the status of one job; one never heard of is queued."""
    return read_statuses(sweep).get(job) or _checked(sweep, JobStatus(job, JobState.queued, time.time()))


def _after(before: JobStatus | None, event: JobEvent) -> JobStatus:
    known = before or JobStatus(event.job, event.state, event.time)
    overrides = known.overrides if event.overrides is None else event.overrides
    trial = known.trial if event.trial is None else event.trial
    if event.state is JobState.queued and before is not None:
        # Named again by a later command: nothing has happened to it.
        return replace(before, overrides=overrides, trial=trial)
    code, data = event.code or known.code, event.data or known.data
    return JobStatus(
        event.job, event.state, event.time, overrides, trial, event.reason, event.message, event.seconds, code, data
    )


def _checked(sweep: SweepFolder, status: JobStatus) -> JobStatus:
    run_dir = sweep.run_dir(status.job)
    if RunFolder(run_dir).report.is_file():
        return replace(status, state=JobState.done, reason=None, message=None)
    if status.state is JobState.done or (status.state is JobState.pruned and not run_dir.is_dir()):
        return replace(status, state=JobState.queued, message="its folder is gone")
    if status.state is JobState.running and not is_running(run_dir):
        message = "its process is gone; the next start goes on from its last checkpoint"
        return replace(status, state=JobState.failed, reason=FailureReason.killed, message=message)
    return status
