"""Trials: every trial of an Optuna study is a job. The same command again goes on where it stopped."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from optuna.trial import FrozenTrial, TrialState

from causal_lm_router.config import Split, TrainConfig
from causal_lm_router.config.composition_errors import COMPOSITION_ERRORS, describe_error
from causal_lm_router.config.plain import config_dict, identity_of
from causal_lm_router.files.writing import write_text
from causal_lm_router.runs.job_log import (
    FailureReason,
    JobEvent,
    JobState,
    append_event,
    read_status,
    read_statuses,
)
from causal_lm_router.sweeps.launched_jobs import SweepJob, SweepJobs
from causal_lm_router.sweeps.search import Search, read_validation_metrics
from causal_lm_router.sweeps.search_space import distribution_of, edges
from causal_lm_router.sweeps.search_spec import SearchSpec

logger = logging.getLogger(__name__)
BEST = "best.json"
OBJECTIVES = {"routing_accuracy": "maximize"}
"""The objective of a search that names none."""
_LOST = "jobs.jsonl, which said why, was lost; study.journal has this state"


class TrialJobs:
    """The jobs of a search's trials. Trials with equal parameters share a job, which runs once.

    Overrides with a range span the search space. `spec` holds the other fields of SearchSpec; None leaves a default.
    """

    def __init__(self, jobs: SweepJobs, overrides: Sequence[Override], spec: Mapping[str, Any]) -> None:
        self._jobs = jobs
        # Of several overrides of one key the last counts, as on any command line.
        last = {override.get_key_element(): override for override in overrides}
        self._params = {
            key: distribution_of(override) for key, override in last.items() if override.is_sweep_override()
        }
        self._fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
        for key in ("objectives", "sampler_args", "pruner_args"):
            if not (spec[key] is None or isinstance(spec[key], Mapping)):
                raise ValueError(f"hydra.sweeper.{key} must be null or a dictionary, got {spec[key]!r}")
        given = {key: value for key, value in spec.items() if value is not None}
        self._spec = {"objectives": OBJECTIVES, "sampler_args": {}, "pruner_args": {}} | given
        self._killed: set[int] = set()

    def run(self, num_trials: int, num_parallel: int) -> list[str]:
        """Run the trials that are left, write best.json, print the best, and return the ids of all jobs.

        Raises:
            ValueError: settings do not fit together, the folder holds another search, another process searches there,
                or not all trials finished.
        """
        for key, number in {"n_trials": num_trials, "n_jobs": num_parallel}.items():
            if number < 1:
                raise ValueError(f"hydra.sweeper.{key} must be an integer of at least 1, got {number}")
        # Everything that can fail is checked before the sweep folder is touched.
        probes = self._probe()
        spec = self._make_spec(probes[0].config, num_parallel)
        self._jobs.check(probes)
        self._jobs.start()
        try:
            with FileLock(self._jobs.folder.path / ".search.lock", timeout=2):
                search = Search(self._jobs.folder, spec)
                search.retry_failed(by_own_fault=probes[0].config.sweep.retry_failed)
                return self._search(search, num_trials, num_parallel)
        except Timeout:
            raise ValueError(f"sweep {self._jobs.folder.path}: another process searches there") from None

    def _probe(self) -> list[SweepJob]:
        """Compose jobs that cover every choice and both ends of every interval; they are checked and never run."""
        values = {key: edges(distribution) for key, distribution in self._params.items()}
        probes = []
        for number in range(max(map(len, values.values()), default=1)):
            each = [f"{key}={choices[number % len(choices)]}" for key, choices in values.items()]
            probes.append(self._jobs.compose([*self._fixed, *each]))
            _check_evaluation(probes[-1].config, is_pruned=self._spec["pruner"] != "none")
        return probes

    def _make_spec(self, config: TrainConfig, num_parallel: int) -> SearchSpec:
        try:
            return SearchSpec(
                params=self._params, fixed=identity_of(config_dict(config)), n_jobs=num_parallel, **self._spec
            )
        except ValueError as error:
            raise ValueError(f"hydra.sweeper.{error}") from error

    def _search(self, search: Search, num_trials: int, num_parallel: int) -> list[str]:
        while batch := search.next_batch(num_trials, num_parallel):
            numbers = ", ".join(str(trial.number) for trial in batch)
            logger.info("trial %s (counted from 0) of %d", numbers, num_trials)
            # A batch may hold trials with equal parameters: one job serves them all.
            composed = {trial.number: self._compose(trial) for trial in batch}
            jobs = _distinct(composed.values())
            self._jobs.queue(jobs)
            self._jobs.launch(jobs)
            ended = [self._tell(search, number, job) for number, job in composed.items()]
            if not all(ended):
                break
        # Count all jobs of the search at the end, those of earlier commands included.
        composed = {trial.number: self._compose(trial) for trial in search.trials}
        jobs = _distinct(composed.values())
        self._restore_log(search, composed)
        best = search.best()
        self._write_best(best)
        if jobs:
            self._jobs.finish(jobs)
        if not best:
            raise ValueError(f"sweep: none of its {len(search.trials)} trials has a result")
        return [job.id for job in jobs]

    def _compose(self, trial: FrozenTrial) -> SweepJob | None:
        """The job of a trial; None, with a logged error, where its parameters do not fit together."""
        values = [f"{key}={value}" for key, value in trial.params.items()]
        try:
            return self._jobs.compose([*self._fixed, *values, f"sweep.trial={trial.number}"])
        except (*COMPOSITION_ERRORS, ValueError) as error:
            text = describe_error(error) if isinstance(error, COMPOSITION_ERRORS) else str(error)
            logger.error("trial %d failed: %s: %s", trial.number, " ".join(values), text)
            return None

    def _tell(self, search: Search, number: int, job: SweepJob | None) -> bool:
        """Tell the study how a trial ended; False where its job did not finish.

        A trial whose process was killed stays running, so that the next batch goes on with it, but only once. So does
        one that met a full disk or a silent server: further trials would meet it too, and the next command goes on.
        """
        status = read_statuses(self._jobs.folder).get(job.id) if job else None
        if status is not None and status.reason in (FailureReason.no_space, FailureReason.no_server):
            return False
        if status is not None and status.was_killed and number not in self._killed:
            self._killed.add(number)
            return True
        if job is not None and (status is None or status.state in (JobState.queued, JobState.running)):
            return False
        if job is None or status is None or status.state is not JobState.done:
            is_pruned = status is not None and status.state is JobState.pruned
            search.stop(number, pruned=is_pruned, from_outside=status is not None and status.failed_outside)
            return True
        try:
            search.complete(number, job.id, read_validation_metrics(self._jobs.folder.run_dir(job.id)))
        except ValueError as error:
            logger.error("trial %d failed: job %s: %s", number, job.id, error)
            search.stop(number, pruned=False)
        return True

    def _restore_log(self, search: Search, jobs: Mapping[int, SweepJob | None]) -> None:
        """Record what a lost or cut jobs.jsonl does not say of trials that ended: the study knows it."""
        sweep = self._jobs.folder
        known = read_statuses(sweep)
        for trial in search.trials:
            if (job := jobs[trial.number]) is None or not trial.state.is_finished():
                continue
            if job.id not in known:
                append_event(sweep, JobEvent(job.id, JobState.queued, overrides=job.overrides, trial=trial.number))
            status = read_status(sweep, job.id)
            # The report makes a job done, whatever the log says; pruned and failed trials have none.
            if trial.state is TrialState.PRUNED and not status.is_over:
                append_event(sweep, JobEvent(job.id, JobState.pruned, message=_LOST))
            elif trial.state is TrialState.FAIL and status.state is JobState.queued:
                append_event(sweep, JobEvent(job.id, JobState.failed, reason=FailureReason.error, message=_LOST))

    def _write_best(self, trials: Sequence[Mapping[str, Any]]) -> None:
        folder = self._jobs.folder
        best = [{**trial, "run_dir": str(folder.run_dir(trial["job"]))} for trial in trials]
        write_text(folder.path / BEST, json.dumps(best, indent=2, ensure_ascii=False) + "\n")
        for trial in best:
            print(f"\nbest trial {trial['number']}: {_listed(trial['values'])}\n  {_listed(trial['params'])}")
            print(f"  run folder: {os.path.relpath(trial['run_dir'])}")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _distinct(jobs: Iterable[SweepJob | None]) -> list[SweepJob]:
    return list({job.id: job for job in jobs if job is not None}.values())


def _check_evaluation(config: TrainConfig, *, is_pruned: bool) -> None:
    """Raise ValueError where the jobs would lack the estimates that the search compares."""
    evaluation = config.evaluation
    if not evaluation.final_validation:
        raise ValueError(
            "evaluation.final_validation must be true for a search, which compares trials by it, got false"
        )
    if is_pruned and evaluation.split is not Split.validation:
        raise ValueError(f"evaluation.split must be validation with a pruner, got {evaluation.split.value!r}")
    if is_pruned and evaluation.every_n_epochs is None and evaluation.every_n_steps is None:
        raise ValueError(
            "evaluation.every_n_epochs or evaluation.every_n_steps must be set for a pruner, got null for both"
        )
