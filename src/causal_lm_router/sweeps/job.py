"""Running one job of a sweep: one process at a time, never again once it has a result, and its end always recorded."""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from causal_lm_router.config import OnFailure, TrainConfig, TrainerConfig
from causal_lm_router.config.overrides import quote_text
from causal_lm_router.config.permissions import grant
from causal_lm_router.config.plain import config_dict, stored_config
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files.checksums import write_checked
from causal_lm_router.files.locks import FolderHeldError, hold_folder, is_first_process
from causal_lm_router.runs.complete_run import complete_run
from causal_lm_router.runs.job_log import (
    FailureReason,
    JobError,
    JobEvent,
    JobState,
    JobStatus,
    append_event,
    has_failed_since_start,
    read_status,
    read_statuses,
    record_end,
    say_progress,
)
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import OnEvaluation, load_data
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.sweeps.failures import failure_reason
from causal_lm_router.sweeps.versions import check_unmixed, code_version, data_version, function_versions
from causal_lm_router.training.callback import PrunedError

logger = logging.getLogger(__name__)
DIES_WITH_PARENT = "CAUSAL_LM_ROUTER_DIES_WITH_PARENT"
"""Environment variable that asks a job's process to end when the sweep's process does."""


def launch_job(config: TrainConfig, workbench: Workbench) -> None:
    """Run the job in `config.run_dir`, in a process of its own where the config asks for it or training is distributed.

    Does nothing for a job that is finished, that failed before by its own fault (unless `sweep.retry_failed`), or that
    follows a failure under `sweep.on_failure=stop`.

    Raises:
        JobError: the job failed; the job log holds the reason.
    """
    run_dir = Path(config.run_dir)
    sweep = SweepFolder(run_dir.parent)
    if not is_first_process():
        # A cluster started several processes for this job. The first waits for the others, so the log does not matter.
        complete_run(config, workbench)
        return
    if not read_status(sweep, run_dir.name).is_due(config.sweep.retry_failed):
        return
    if config.sweep.on_failure is OnFailure["stop"] and has_failed_since_start(sweep):
        return
    try:
        if config.sweep.isolated or is_distributed(config.trainer):
            _run_in_child(sweep, config)
        else:
            run_job(config, workbench)
    finally:
        logger.info(say_progress(list(read_statuses(sweep).values())))


def run_job(config: TrainConfig, workbench: Workbench) -> None:
    """Run the job in `config.run_dir` in this process, unless another process runs it or has finished it.

    Raises:
        JobError: the job failed; the job log holds the reason.
    """
    run_dir = Path(config.run_dir)
    sweep = SweepFolder(run_dir.parent)
    if not is_first_process():
        complete_run(config, workbench)
        return
    try:
        with hold_folder(run_dir):
            # Look again under the lock: another process may have finished the job since it was launched.
            if read_status(sweep, run_dir.name).is_over:
                logger.info("job %s: finished already", run_dir.name)
            else:
                _run_locked(sweep, config, workbench)
    except FolderHeldError as error:
        logger.warning("job %s: another process runs it: %s", run_dir.name, error)


def is_distributed(config: TrainerConfig) -> bool:
    """True when Lightning would start further processes by repeating the command line of this process."""
    started_outside = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return not started_outside and (config.devices != "1" or config.strategy != "auto")


def _run_locked(sweep: SweepFolder, config: TrainConfig, workbench: Workbench) -> None:
    job = Path(config.run_dir).name
    with _record_end_of(sweep, job):
        # Compare code and data with those of earlier jobs first: a mixed sweep is refused before it costs anything.
        code = code_version()
        data = data_version(config.data, load_data(config.data, workbench)) | function_versions(config)
        for difference in check_unmixed(sweep, code, data, config.sweep.allow_mixed):
            logger.warning("sweep.allow_mixed=true: %s", difference)
        # Say which process runs the job, then run it.
        process = f"{socket.gethostname()}:{os.getpid()}"
        append_event(sweep, JobEvent(job, JobState.running, code=code, data=data, process=process))
        report = complete_run(config, workbench, _pruning(sweep, config.sweep.trial))
        assert report is not None, "the first process reports"
        accuracy, failures = report.routing_accuracy.value, report.parse_failure_rate.value
        logger.info("job %s: done: routing accuracy %.1f%%, parse failures %.1f%%", job, 100 * accuracy, 100 * failures)


def _pruning(sweep: SweepFolder, trial: int | None) -> OnEvaluation | None:
    """Return the callback that ends the job once its search prunes the trial; None for a job of a grid."""
    if trial is None:
        return None
    from causal_lm_router.sweeps.search import open_trial

    monitor = open_trial(sweep.path, trial)

    def on_evaluation(report: RoutingReport, step: int) -> None:
        if monitor.report(report.to_metrics(), step):
            raise PrunedError(f"trial {trial} at step {step}")

    return on_evaluation


@contextlib.contextmanager
def _record_end_of(sweep: SweepFolder, job: str) -> Iterator[None]:
    """Record how the block ends: done, pruned, or failed with a reason, which is then raised as a JobError."""
    start = time.time()

    def record(state: JobState, reason: FailureReason | None = None, message: str | None = None) -> None:
        record_end(sweep, JobEvent(job, state, reason=reason, message=message, seconds=time.time() - start))

    try:
        yield
    except PrunedError as stop:
        logger.info("job %s: pruned: %s", job, stop)
        record(JobState.pruned, message=str(stop))
    except Exception as error:
        if RunFolder(sweep.run_dir(job)).report.is_file():
            # The report is written last, so the result is there. An error after it (tracking, say) does not undo it.
            logger.exception("job %s: done, but then: %s", job, error)
            record(JobState.done)
            return
        reason, message = failure_reason(error), f"{error}" or type(error).__name__
        # ValueError and OSError come from bad input, where one line says more than a traceback.
        log = logger.error if isinstance(error, ValueError | OSError) else logger.exception
        log("job %s: failed (%s): %s", job, reason.value, message)
        record(JobState.failed, reason, message)
        raise JobError(f"job {job}: {message}") from error
    else:
        record(JobState.done)


def _run_in_child(sweep: SweepFolder, config: TrainConfig) -> None:
    """Run the job by the `resume` command in a child process, and record its end where the child could not."""
    run_dir, oom_kills, start = Path(config.run_dir), _count_oom_kills(), time.time()
    write_checked(RunFolder(run_dir).config, stored_config(config))
    command = [sys.executable, "-m", "causal_lm_router.commands.resume", quote_text(f"run_dir={run_dir}")]
    # Hydra sets this variable in our process, for itself; the child prints errors in one line without it.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    # The child takes neither permissions nor secrets from the run folder, so it gets those of this config.
    environment |= grant(config_dict(config)) | {DIES_WITH_PARENT: "1"}
    child = subprocess.run(command, env=environment, check=False)
    status = read_status(sweep, run_dir.name)
    if child.returncode == 0 and status.state is not JobState.failed:
        return
    if status.state is JobState.failed and status.since >= start and not status.was_killed:
        # The child recorded its own failure.
        raise JobError(f"job {run_dir.name}: {status.message}")
    reason = _death_reason(child.returncode, status, has_oom_kill=_count_oom_kills() > oom_kills)
    message = f"its process ended with status {child.returncode}"
    record_end(sweep, JobEvent(run_dir.name, JobState.failed, reason=reason, message=message))
    raise JobError(f"job {run_dir.name}: {message}")


def _death_reason(returncode: int, status: JobStatus, *, has_oom_kill: bool) -> FailureReason:
    """Why a child ended without recording it: the kernel killed it for memory, a signal did, or it crashed."""
    if returncode == -signal.SIGKILL and has_oom_kill:
        return FailureReason.oom
    # After SIGTERM the child leaves with a status of its own, and the log still shows the job as running.
    return FailureReason.killed if returncode < 0 or status.was_killed else FailureReason.error


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a job that no sweep waits for is never recorded."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _count_oom_kills() -> int:
    """Return how many processes the kernel of this machine has killed for lack of memory since it started."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counters.get("oom_kill", 0))
