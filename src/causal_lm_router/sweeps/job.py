"""Running one job of a sweep: one process at a time, never again after completion, its end recorded whatever it is."""

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

import torch
from filelock import Timeout

from causal_lm_router.config import OnFailure, TrainConfig, TrainerConfig
from causal_lm_router.config.compose import quote_text
from causal_lm_router.config.plain import dump_config
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files import write_text
from causal_lm_router.runs.complete_run import complete_run
from causal_lm_router.runs.job_log import (
    FailureReason,
    JobError,
    JobEvent,
    JobState,
    append_event,
    has_failed_since_start,
    read_status,
    record_end,
)
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import OnEvaluation, is_first_process
from causal_lm_router.runs.sweep_folder import SweepFolder, job_lock
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.sweeps.versions import check_unmixed, code_version, data_version
from causal_lm_router.training.callback import PrunedError
from causal_lm_router.training.module import NotFiniteError

logger = logging.getLogger(__name__)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""How libraries say so in errors of another kind."""
DIES_WITH_PARENT = "CAUSAL_LM_ROUTER_DIES_WITH_PARENT"
"""Environment variable that asks a job's process to end when the sweep's does."""


def launch_job(config: TrainConfig, workbench: Workbench) -> None:
    """Run the job in `config.run_dir`, in a process of its own where the config asks for it or training is distributed.

    A job that is over, that failed before (unless `sweep.retry_failed`), or that comes after a failure under
    `sweep.on_failure=stop` is left as it is. Raises JobError where it fails; the reason is in the log.
    """
    run_dir = Path(config.run_dir)
    sweep = SweepFolder(run_dir.parent)
    if not is_first_process():
        # One of several that a cluster started: the first one waits for it, whatever the log says.
        complete_run(config, workbench)
        return
    if not read_status(sweep, run_dir.name).is_due(config.sweep.retry_failed):
        return
    if config.sweep.on_failure is OnFailure["stop"] and has_failed_since_start(sweep):
        return
    if config.sweep.isolated or is_distributed(config.trainer):
        _run_in_child(sweep, config)
    else:
        run_job(config, workbench)


def run_job(config: TrainConfig, workbench: Workbench) -> None:
    """Run the job in `config.run_dir` in this process, unless another one runs it or has run it to its end.

    Raises JobError as `launch_job` does.
    """
    run_dir = Path(config.run_dir)
    sweep = SweepFolder(run_dir.parent)
    if not is_first_process():
        complete_run(config, workbench)
        return
    try:
        with job_lock(run_dir):
            if read_status(sweep, run_dir.name).is_over:
                logger.info("job %s: nothing is left to do", run_dir.name)
            else:
                _run_locked(sweep, config, workbench)
    except Timeout:
        logger.warning("job %s: another process runs it", run_dir.name)


def is_distributed(config: TrainerConfig) -> bool:
    """True when Lightning would start further processes, which it does by the command line of the process it is in."""
    started_outside = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return not started_outside and (config.devices != "1" or config.strategy != "auto")


def failure_reason(error: BaseException) -> FailureReason:
    """Return the reason that an exception stands for."""
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return FailureReason.oom
    return FailureReason.nan if isinstance(error, NotFiniteError) else FailureReason.error


def _run_locked(sweep: SweepFolder, config: TrainConfig, workbench: Workbench) -> None:
    job = Path(config.run_dir).name
    with _record_end_of(sweep, job):
        code, data = code_version(), data_version(config.data, workbench.data(config.data))
        for difference in check_unmixed(sweep, code, data, config.sweep.allow_mixed):
            logger.warning("sweep.allow_mixed=true: %s", difference)
        process = f"{socket.gethostname()}:{os.getpid()}"
        append_event(sweep, JobEvent(job, JobState.running, code=code, data=data, process=process))
        report = complete_run(config, workbench, _pruning(sweep, config.sweep.trial))
        assert report is not None, "the first process reports"
        accuracy, failures = report.routing_accuracy.value, report.parse_failure_rate.value
        logger.info("job %s: done: routing accuracy %.1f%%, parse failures %.1f%%", job, 100 * accuracy, 100 * failures)


def _pruning(sweep: SweepFolder, trial: int | None) -> OnEvaluation | None:
    """Return what ends the job when the search it is a trial of has seen enough of it."""
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
    start = time.time()
    try:
        yield
    except PrunedError as stop:
        logger.info("job %s: pruned: %s", job, stop)
        record_end(sweep, JobEvent(job, JobState.pruned, message=str(stop), seconds=time.time() - start))
    except Exception as error:
        if RunFolder(sweep.run_dir(job)).report.is_file():
            # The result is there; what went wrong afterwards does not undo it.
            logger.exception("job %s: done, but then: %s", job, error)
            record_end(sweep, JobEvent(job, JobState.done, seconds=time.time() - start))
            return
        reason, message = failure_reason(error), f"{error}" or type(error).__name__
        # What bad input causes needs no traceback.
        log = logger.error if isinstance(error, ValueError | OSError) else logger.exception
        log("job %s: failed (%s): %s", job, reason.value, message)
        failed = JobState.failed
        record_end(sweep, JobEvent(job, failed, reason=reason, message=message, seconds=time.time() - start))
        raise JobError(f"job {job}: {message}") from error
    else:
        record_end(sweep, JobEvent(job, JobState.done, seconds=time.time() - start))


def _run_in_child(sweep: SweepFolder, config: TrainConfig) -> None:
    run_dir, oom_kills, start = Path(config.run_dir), _count_oom_kills(), time.time()
    write_text(RunFolder(run_dir).config, dump_config(config))
    command = [sys.executable, "-m", "causal_lm_router.commands.resume", quote_text(f"run_dir={run_dir}")]
    # Hydra sets this in our process, for itself.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    child = subprocess.run(command, env=environment | {DIES_WITH_PARENT: "1"}, check=False)
    status = read_status(sweep, run_dir.name)
    if child.returncode == 0 and status.state is not JobState.failed:
        return
    if status.state is not JobState.failed or status.since < start or status.was_killed:
        was_killed = child.returncode == -signal.SIGKILL
        # After a SIGTERM it leaves by itself, and the log still has the job as running.
        reason = FailureReason.killed if child.returncode < 0 or status.was_killed else FailureReason.error
        reason = FailureReason.oom if was_killed and _count_oom_kills() > oom_kills else reason
        message = f"its process ended with status {child.returncode}"
        record_end(sweep, JobEvent(run_dir.name, JobState.failed, reason=reason, message=message))
        raise JobError(f"job {run_dir.name}: {message}")
    raise JobError(f"job {run_dir.name}: {status.message}")


def die_with_parent() -> None:
    """Have the system end this process when the one that started it is gone: nobody would know of the job any more."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _count_oom_kills() -> int:
    """Return how many processes of this machine the kernel has killed for want of memory since it started."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counters.get("oom_kill", 0))
