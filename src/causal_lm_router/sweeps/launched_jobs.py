"""The jobs of a Hydra sweep: composed before any starts, launched unless finished, counted at the end."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from causal_lm_router.config import OnFailure, TrainConfig
from causal_lm_router.config.composition_errors import COMPOSITION_ERRORS, describe_error
from causal_lm_router.config.overrides import quote_text
from causal_lm_router.config.redact import redact_arguments, redact_composed
from causal_lm_router.config.resolve import job_id, resolve_job
from causal_lm_router.files.writing import refuse_links
from causal_lm_router.runs.job_log import (
    JobError,
    JobEvent,
    JobState,
    append_event,
    has_failed_since_start,
    read_status,
    read_statuses,
    record_end,
)
from causal_lm_router.runs.provenance import typed_command
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.failures import failure_reason
from causal_lm_router.sweeps.versions import check_unmixed, code_version, function_versions

logger = logging.getLogger(__name__)
ONE_BY_ONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Class of Hydra's own launcher, which runs jobs one after another in this process."""


@dataclass(frozen=True)
class SweepJob:
    """One job: its id (a hash of its config), the overrides that make it, and its checked config."""

    id: str
    overrides: tuple[str, ...]
    config: TrainConfig


class SweepJobs:
    """The jobs of one sweep folder under Hydra's launcher: composes, checks, queues, launches and counts them."""

    def __init__(self, config: DictConfig, hydra_context: HydraContext, launcher: Launcher) -> None:
        self._config = config
        self._hydra_context = hydra_context
        self._launcher = launcher
        self._num_launched = 0
        self.folder = SweepFolder(Path(str(config.hydra.sweep.dir)).absolute())

    def start(self) -> None:
        """Make the sweep folder and record that a command works on it.

        Raises:
            ValueError: links in the folder lead out of it, or sweep.json is damaged.
        """
        refuse_links(self.folder.path)
        self.folder.make_metadata()
        composed = redact_composed(OmegaConf.to_container(self._config, enum_to_str=True))
        self.folder.write_config(yaml.safe_dump(composed, sort_keys=False, allow_unicode=True))
        append_event(self.folder, JobEvent("", JobState.started, message=typed_command()))

    def compose(self, overrides: Sequence[str]) -> SweepJob:
        """Return the job that the overrides make.

        Raises:
            ValueError: the composed config fails a check. Overrides that do not compose raise Hydra's own errors.
        """
        # Pin the sweep folder: its default follows `name`, and a swept value may be part of the name.
        pinned = [*overrides, quote_text(f"hydra.sweep.dir={self.folder.path}")]
        composed = self._hydra_context.config_loader.load_sweep_config(self._config, pinned)
        config = resolve_job(composed)
        return SweepJob(job_id(config), tuple(overrides), config)

    def compose_all(self, combinations: Iterable[Sequence[str]]) -> list[SweepJob]:
        """Return the jobs of all combinations of overrides; equal configs are one job.

        Raises:
            ValueError: some do not compose; the message says all that is wrong, a line each.
        """
        jobs: dict[str, SweepJob] = {}
        problems: dict[str, None] = {}
        for combination in combinations:
            try:
                job = self.compose(combination)
                jobs.setdefault(job.id, job)
            except (*COMPOSITION_ERRORS, ValueError) as error:
                text = describe_error(error) if isinstance(error, COMPOSITION_ERRORS) else str(error)
                problems |= dict.fromkeys(text.splitlines())
        if problems:
            raise ValueError("\n".join(problems))
        return list(jobs.values())

    def check(self, jobs: Sequence[SweepJob]) -> None:
        """Check the jobs that are due against their data, and code and data against those of earlier jobs.

        Warns where code or data differ and `sweep.allow_mixed` is true.

        Raises:
            ValueError: a job cannot run on its data (the message says all that is wrong, a line each), or code or data
                differ.
        """
        if not (due := self._due(jobs)):
            return
        from causal_lm_router.runs.workbench import shared_workbench
        from causal_lm_router.sweeps.data_checks import check_jobs

        data = check_jobs([job.config for job in due], shared_workbench())
        for job in jobs:
            data |= function_versions(job.config)
        for found in check_unmixed(self.folder, code_version(), data, jobs[0].config.sweep.allow_mixed):
            logger.warning("sweep.allow_mixed=true: %s", found)

    def queue(self, jobs: Sequence[SweepJob]) -> None:
        """Record new jobs as queued, and log how many are left to run."""
        known = read_statuses(self.folder)
        for job in jobs:
            if job.id not in known:
                overrides, trial = redact_arguments(job.overrides), job.config.sweep.trial
                append_event(self.folder, JobEvent(job.id, JobState.queued, overrides=overrides, trial=trial))
        due, statuses = self._due(jobs), read_statuses(self.folder)
        counts = Counter(statuses[job.id].state.value for job in jobs if job not in due)
        found = [f"{number} {state}" for state, number in sorted(counts.items())]
        logger.info("%d jobs: %s", len(jobs), ", ".join([*found, f"{len(due)} to run"]))

    def launch(self, jobs: Sequence[SweepJob]) -> None:
        """Launch the jobs that are due and wait for them; the job log says how each ended.

        Hydra's own launcher gets them one by one: a job whose folder cannot be made then fails alone, and
        `sweep.on_failure=stop` starts no job after a failure.
        """
        due = self._due(jobs)
        if self._config.hydra.launcher._target_ != ONE_BY_ONE:
            self._launch(due)
            return
        for number, job in enumerate(due, start=1):
            if job.config.sweep.on_failure is OnFailure["stop"] and has_failed_since_start(self.folder):
                return
            # Look again: another process that shares the sweep may have run it meanwhile.
            if self._due([job]):
                logger.info("job %s, %d of %d to run: %s", job.id, number, len(due), _own_overrides(job, jobs))
                self._launch([job])

    def _due(self, jobs: Sequence[SweepJob]) -> list[SweepJob]:
        # A job that a lost log does not name may be done all the same.
        statuses = read_statuses(self.folder, [job.id for job in jobs])
        return [job for job in jobs if statuses[job.id].is_due(job.config.sweep.retry_failed)]

    def _launch(self, jobs: Sequence[SweepJob]) -> None:
        if not jobs:
            return
        pinned = quote_text(f"hydra.sweep.dir={self.folder.path}")
        first = self._num_launched
        self._num_launched += len(jobs)
        # Its own line for each job would repeat ours.
        logging.getLogger(ONE_BY_ONE.rpartition(".")[0]).setLevel(logging.WARNING)
        try:
            returns = self._launcher.launch([[*job.overrides, pinned] for job in jobs], initial_job_idx=first)
            for result in returns:
                _raise_unrecorded(result)
        except (KeyboardInterrupt, SystemExit):
            logger.warning("interrupted; the same command goes on with what is left")
            raise
        except Exception as error:  # each launcher has error classes of its own
            logger.error("the launcher ended early: %s: %s", type(error).__name__, error)
            # A job that never started cannot record its own failure (its folder could not be made, say).
            if len(jobs) == 1 and read_status(self.folder, jobs[0].id).state is JobState.queued:
                reason, message = failure_reason(error), f"{type(error).__name__}: {error}"
                record_end(self.folder, JobEvent(jobs[0].id, JobState.failed, reason=reason, message=message))

    def finish(self, jobs: Sequence[SweepJob]) -> None:
        """Write the sweep's report and print how the jobs ended.

        Raises:
            ValueError: a job is neither finished nor run by another process.
        """
        config = jobs[0].config
        if config.sweep.report and (self._num_launched or not self.folder.report.is_dir()):
            self._write_report(config)
        statuses = read_statuses(self.folder, [job.id for job in jobs])
        states = Counter(statuses[job.id].state.value for job in jobs)
        words = {"running": "running in another process"}
        counts = ", ".join(f"{number} {words.get(state, state)}" for state, number in sorted(states.items()))
        where = os.path.relpath(self.folder.path)
        print(f"\nsweep folder: {where}\n{len(jobs)} jobs: {counts}")
        if next(self.folder.path.glob("*/wandb/offline-run-*"), None):
            print("W&B recorded offline; the log file of a job says why. To upload:")
            print(f"wandb sync {where}/*/wandb/offline-run-* {where}/wandb/offline-run-*")
        if set(states) - {"done", "pruned", "running"}:
            raise ValueError(f"sweep: {counts} of {len(jobs)} jobs; see causal-lm-router status {where}")

    def _write_report(self, config: TrainConfig) -> None:
        from rich.console import Console

        from causal_lm_router.runs.tracking import log_sweep_report
        from causal_lm_router.sweeps.report.report_folder import write_report
        from causal_lm_router.sweeps.report.terminal import print_summary

        metadata = self.folder.read_metadata()
        try:
            report = write_report([self.folder.path], Path(os.path.relpath(self.folder.report)))
            print_summary(report.findings, report.folder, Console())
            wandb = config.tracking.wandb
            log_sweep_report(wandb, metadata.name, metadata.uid, self.folder.path, report.rows, report.folder)
        except (ValueError, OSError) as error:
            # The results are safe in the run folders; `causal-lm-router report` can write the report later.
            logger.error("the sweep's report: %s", error)


def _own_overrides(job: SweepJob, jobs: Sequence[SweepJob]) -> str:
    """The overrides that not all jobs share, for a short log line."""
    shared = set(job.overrides).intersection(*(other.overrides for other in jobs)) if len(jobs) > 1 else set()
    return " ".join(override for override in job.overrides if override not in shared)


def set_up_jobs(hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> SweepJobs:
    """Return the jobs of a sweep under the launcher that `hydra/launcher` chose."""
    from hydra.core.plugins import Plugins

    launcher: Launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task_function, config=config
    )
    return SweepJobs(config, hydra_context, launcher)


def parse_overrides(params: Mapping[str, Any] | None, arguments: Sequence[str]) -> list[Override]:
    """Return the parsed overrides: swept parameters of the config first, then those of the command line."""
    swept = [f"{key}={values}" for key, values in (params or {}).items()]
    return OverridesParser.create().parse_overrides([*swept, *arguments])


def _raise_unrecorded(result: JobReturn) -> None:
    """Raise the exception of a job that never ran; a job that ran has recorded its own end."""
    if result.status is JobStatus.FAILED and not isinstance(result._return_value, JobError):
        assert isinstance(result._return_value, Exception)
        raise result._return_value
