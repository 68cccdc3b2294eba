"""The job log of a sweep, jobs.jsonl: how a sweep that was killed knows what is done and what is due.

It holds a line per event, appended by all processes that work on the sweep; one that is killed while it writes leaves a
torn line, which readers skip. The run folders have the last word (`read_statuses`): a report.json makes a job done, and
a running job whose lock nobody holds was killed. So a lost log costs no result.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from filelock import FileLock

from causal_lm_router.config.checks import check_file_name
from causal_lm_router.config.redact import redact_text
from causal_lm_router.files.locks import is_held
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder

logger = logging.getLogger(__name__)


class JobState(StrEnum):
    """The state of a job. `started` belongs to the sweep itself: a command began it or went on with it."""

    started = "started"
    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"
    pruned = "pruned"


class FailureReason(StrEnum):
    """Why a job failed. Of itself: an error, or a training loss that was not finite. From outside: the others."""

    error = "error"
    nan = "nan"
    oom = "oom"
    """No memory was left."""
    killed = "killed"
    """A signal ended its process."""
    no_space = "no_space"
    """A disk was full."""
    no_server = "no_server"
    """A server did not answer: the hub, or W&B where it was asked to record online."""


OUTSIDE = (FailureReason.oom, FailureReason.killed, FailureReason.no_space, FailureReason.no_server)
"""Reasons that lie outside the job: the same job may well succeed another time, so the next command tries again."""


class JobError(Exception):
    """A job ended without a result; the job log holds the reason."""


@dataclass(frozen=True)
class JobEvent:
    """One line of jobs.jsonl: a job entered a state at `time` (epoch seconds). An empty `job` is the sweep itself.

    Started events carry the command that was typed as `message`. Queued events carry `overrides`, running ones `code`
    (version) and `data` (fingerprint by data config), failed ones `reason` and `message`, and events that end a job
    `seconds` (since it last began).
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
    """Append an event and flush it to disk.

    Raises:
        OSError: it cannot be written.
    """
    said = {key: value for key, value in asdict(event).items() if value is not None}
    if event.message is not None:
        said["message"] = redact_text(event.message)
    line = json.dumps(said, ensure_ascii=False).encode() + b"\n"
    with FileLock(sweep.path / ".jobs.lock"), sweep.jobs.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # Behind a torn line, start on a new line: the torn one alone is lost.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def record_end(sweep: SweepFolder, event: JobEvent) -> None:
    """Append an event as `append_event` does, but only log a failure: the run folder itself shows what is done."""
    try:
        append_event(sweep, event)
    except OSError as error:
        logger.error("job %s: %s, which cannot be recorded: %s", event.job, event.state.value, error)


def read_events(sweep: SweepFolder) -> list[JobEvent]:
    """Return all events in the order of writing, without torn lines; none where the file is missing.

    Raises:
        ValueError: the id of a job is not the name of a folder.
    """
    if not sweep.jobs.is_file():
        return []
    lines = sweep.jobs.read_bytes().split(b"\n")
    events = [event for event in map(_parse, lines) if event is not None]
    for event in events:
        # A job's id is the name of its folder; in a log from elsewhere it could lead out of the sweep.
        if problems := list(check_file_name("job", event.job)) if event.job else []:
            raise ValueError(f"{sweep.jobs}: {problems[0]}")
    return events


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
    """True when a job has failed since the last command on the sweep began."""
    states = [event.state for event in read_events(sweep)]
    last_start = max((index for index, state in enumerate(states) if state is JobState.started), default=0)
    return JobState.failed in states[last_start:]


@dataclass(frozen=True)
class JobStatus:
    """The present state of a job, since when, and what its events said."""

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
        """True when the job has a result (done or pruned): nothing is left to run."""
        return self.state in (JobState.done, JobState.pruned)

    def is_due(self, retry_failed: bool) -> bool:
        """True when the job is to be run: not finished, not running, and not failed by its own fault.

        `retry_failed` makes those that failed by their own fault due too.
        """
        if self.state is JobState.failed:
            return retry_failed or self.failed_outside
        return not self.is_over and self.state is not JobState.running

    @property
    def failed_outside(self) -> bool:
        """True when it failed for a reason that lies outside the job; it goes on from its last checkpoint."""
        return self.state is JobState.failed and self.reason in OUTSIDE

    @property
    def was_killed(self) -> bool:
        """True when its process was killed."""
        return self.state is JobState.failed and self.reason is FailureReason.killed


def read_statuses(sweep: SweepFolder, also: Iterable[str] = ()) -> dict[str, JobStatus]:
    """Return the status of every job, in the order in which the jobs were first named; jobs of `also` alone come last.

    The run folder decides where it disagrees with the log: a report makes a job done, and a job whose folder is gone is
    queued again. A running job whose lock no process holds was killed. A job that the log does not name is queued.
    """
    statuses: dict[str, JobStatus] = {}
    for event in read_events(sweep):
        if event.job:
            statuses[event.job] = _after(statuses.get(event.job), event)
    for job in also:
        statuses.setdefault(job, JobStatus(job, JobState.queued, time.time()))
    return {job: _checked(sweep, status) for job, status in statuses.items()}


def read_status(sweep: SweepFolder, job: str) -> JobStatus:
    """Return the status of one job."""
    return read_statuses(sweep, [job])[job]


def seconds_left(statuses: Sequence[JobStatus]) -> float | None:
    """Return how long the jobs that are due or running will take; None before the first one is done.

    A job is expected to take as long as the done ones on average, with as many at a time as are running now. Jobs that
    failed for a reason outside of them count: the next start continues them.
    """
    done = [status.seconds for status in statuses if status.state is JobState.done and status.seconds is not None]
    if not done:
        return None
    mean = sum(done) / len(done)
    running = [status for status in statuses if status.state is JobState.running]
    num_waiting = sum(status.state is JobState.queued or status.failed_outside for status in statuses)
    ahead = sum(max(0.0, mean - (time.time() - status.since)) for status in running)
    return (num_waiting * mean + ahead) / max(1, len(running))


def say_progress(statuses: Sequence[JobStatus]) -> str:
    """Return the state of a sweep in one line: "3 of 12 jobs done, 1 failed, about 6 min left"."""
    counts = Counter(status.state for status in statuses)
    others = (JobState.failed, JobState.pruned, JobState.running)
    parts = [f"{counts[JobState.done]} of {len(statuses)} jobs done"]
    parts += [f"{counts[state]} {state}" for state in others if counts[state]]
    if left := seconds_left(statuses):
        minutes = max(1, round(left / 60))
        duration = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
        parts.append(f"about {duration} left")
    return ", ".join(parts)


def _after(before: JobStatus | None, event: JobEvent) -> JobStatus:
    known = before or JobStatus(event.job, event.state, event.time)
    overrides = known.overrides if event.overrides is None else event.overrides
    trial = known.trial if event.trial is None else event.trial
    if event.state is JobState.queued and before is not None:
        # A later command names the job again: its state stays.
        return replace(before, overrides=overrides, trial=trial)
    code, data = event.code or known.code, event.data or known.data
    return JobStatus(
        event.job, event.state, event.time, overrides, trial, event.reason, event.message, event.seconds, code, data
    )


def _checked(sweep: SweepFolder, status: JobStatus) -> JobStatus:
    """The status after a look at the run folder, which outlives a lost or late line of the log."""
    run_dir = sweep.run_dir(status.job)
    if RunFolder(run_dir).report.is_file():
        return replace(status, state=JobState.done, reason=None, message=None)
    if status.state is JobState.done or (status.state is JobState.pruned and not run_dir.is_dir()):
        return replace(status, state=JobState.queued, message="its run folder is gone")
    if status.state is JobState.running and not is_held(run_dir):
        message = "its process is gone; the next start goes on from its last checkpoint"
        return replace(status, state=JobState.failed, reason=FailureReason.killed, message=message)
    return status
