"""A search: trials of an Optuna study that a killed process picks up with the same numbers and the same parameters.

The study lies in `<sweep folder>/study.journal`. What makes it repeatable:
- The sampler is made anew for every trial, seeded by the search's seed and the trial's number. What it suggests is a
  function of these and of the trials before.
- It works on a copy in memory, so that a trial comes into the journal with all its parameters in one line.
- Trials are asked for in batches, which begin at multiples of `num_parallel`. The trials of a batch do not know each
  other's values (TPE knows their parameters, and keeps away from them: its constant liar). So another `num_parallel`
  is another search; and with a pruner and several jobs at a time, what is pruned depends on which job is faster.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

from causal_lm_router.config.plain import describe_differences
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.search_spec import SearchSpec, make_pruner

# User attributes. Of the study: its spec. Of a trial: its job, what the sampler keeps for later trials, the step at
# which the pruner stopped it, and the failed trial that it repeats.
_SPEC, _JOB, _SAMPLER_STATE, _PRUNED_AT, _RETRY_OF = "spec", "job", "sampler_state", "pruned_at", "retry_of"

# Optuna announces every study, and here each trial makes one.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """The study of one sweep folder, made where it is missing. One process at a time may hold it.

    Raises ValueError where the folder's study has another spec.
    """

    def __init__(self, sweep: SweepFolder, spec: SearchSpec) -> None:
        self._spec = spec
        self._storage = _open_storage(sweep)
        if not self._storage.get_all_studies():
            optuna.create_study(storage=self._storage, study_name=sweep.path.name, directions=spec.directions)
        self._study = _load_study(self._storage)
        if _SPEC not in self._study.user_attrs:
            self._study.set_user_attr(_SPEC, spec.to_plain())
        _check_same(sweep, self._study.user_attrs[_SPEC], spec.to_plain())

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self._study.get_trials(deepcopy=False)

    def next_batch(self, num_trials: int, num_parallel: int) -> list[FrozenTrial]:
        """Return the trials to run next, with their parameters; none when `num_trials` are over.

        Trials that were running when a process died come first, under their own numbers, with those that their batch
        still lacks.
        """
        trials = self.trials
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        start = (running[0].number if running else len(trials)) // num_parallel * num_parallel
        # Once a trial of a batch is over, all others of it have been asked for.
        if not (running and any(trial.state.is_finished() for trial in trials[start:])):
            num_retries = sum(_RETRY_OF in trial.user_attrs for trial in trials)
            for _ in range(len(trials), min(start + num_parallel, num_trials + num_retries)):
                self._ask()
        return [trial for trial in self.trials if trial.state is TrialState.RUNNING][:num_parallel]

    def retry_failed(self) -> None:
        """Add, beyond the number of trials, a trial with the parameters of each one that failed."""
        retried = {trial.user_attrs.get(_RETRY_OF) for trial in self.trials}
        for failed in self.trials:
            if failed.state is TrialState.FAIL and failed.number not in retried:
                again = optuna.create_trial(
                    state=TrialState.RUNNING,
                    params=failed.params,
                    distributions=failed.distributions,
                    user_attrs={_RETRY_OF: failed.number},
                )
                self._study.add_trial(again)

    def complete(self, number: int, job: str, figures: Mapping[str, float]) -> None:
        """Tell that a trial is done, by which job and with which figures.

        Raises ValueError, and tells nothing, where an objective is not among the figures.
        """
        values = [_objective(figures, figure) for figure in self._spec.figures]
        self._storage.set_trial_user_attr(_trial_id(self._storage, number), _JOB, job)
        self._study.tell(number, values)

    def stop(self, number: int, *, pruned: bool) -> None:
        """Tell that a trial was pruned, or else that it failed."""
        self._study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def best(self) -> list[dict[str, Any]]:
        """Return the best trial, of several objectives the Pareto front: number, values by figure, params, job.

        Of trials that share a job the first stands. The list is empty while no trial is done.
        """
        one_of_job: dict[str, dict[str, Any]] = {}
        for trial in sorted(self._study.best_trials, key=lambda trial: trial.number):
            values = dict(zip(self._spec.figures, trial.values, strict=True))
            job = trial.user_attrs[_JOB]
            found = {"number": trial.number, "values": values, "params": trial.params, "job": job}
            one_of_job.setdefault(job, found)
        best = list(one_of_job.values())
        return best if len(self._spec.figures) > 1 else best[:1]

    def _ask(self) -> None:
        """Add a running trial to the study."""
        trials, memory = self.trials, InMemoryStorage()
        sampler = self._spec.make_sampler(len(trials))
        copy = optuna.create_study(storage=memory, sampler=sampler, directions=self._spec.directions)
        copy.add_trials(trials)
        states = [trial.user_attrs[_SAMPLER_STATE] for trial in trials if _SAMPLER_STATE in trial.user_attrs]
        for key, value in states[-1].items() if states else ():
            memory.set_study_system_attr(copy._study_id, key, value)
        copy.ask({key: self._spec.params[key] for key in sorted(self._spec.params)})
        asked = copy.trials[-1]
        asked.set_user_attr(_SAMPLER_STATE, memory.get_study_system_attrs(copy._study_id))
        self._study.add_trial(asked)


class TrialMonitor:
    """What the pruner hears of a trial while its job trains."""

    def __init__(self, storage: JournalStorage, number: int) -> None:
        self._storage = storage
        self._study = _load_study(storage)
        self._objectives = list(self._study.user_attrs[_SPEC]["objectives"])
        self._trial_id = _trial_id(storage, number)

    def report(self, figures: Mapping[str, float], step: int) -> bool:
        """Record the objective at an optimizer step; return True when the trial is to be pruned there.

        Trials are compared at equal steps. A job that was interrupted may report a step again: the first value stands,
        and so does the first decision. Nothing is recorded or pruned with several objectives, nor once the trial is
        over: its job may be run again by hand.

        Raises ValueError where the objective is not among the figures.
        """
        trial = self._storage.get_trial(self._trial_id)
        if len(self._objectives) > 1 or trial.state.is_finished():
            return False
        if _PRUNED_AT in trial.user_attrs:
            return bool(step >= trial.user_attrs[_PRUNED_AT])
        if step not in trial.intermediate_values:
            value = _objective(figures, self._objectives[0])
            self._storage.set_trial_intermediate_value(self._trial_id, step, value)
        elif step != trial.last_step:
            return False
        is_pruned = self._study.pruner.prune(self._study, self._storage.get_trial(self._trial_id))
        if is_pruned:
            self._storage.set_trial_user_attr(self._trial_id, _PRUNED_AT, step)
        return is_pruned


def open_trial(sweep_dir: Path, number: int) -> TrialMonitor:
    """Return the monitor of a running trial, also in another process than the search's.

    Raises FileNotFoundError where the folder holds no search, KeyError where the search has no such trial.
    """
    sweep = SweepFolder(sweep_dir)
    if not sweep.study.is_file():
        raise FileNotFoundError(f"{sweep.study}: no search there")
    return TrialMonitor(_open_storage(sweep), number)


def read_figures(run_dir: Path) -> dict[str, float]:
    """Return the known figures of a finished run over its validation split, by name.

    Raises ValueError where the run has not evaluated that split.
    """
    path = RunFolder(run_dir).validation / "report.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; a search needs evaluation.final_validation=true and a validation split")
    plain = json.loads(path.read_text(encoding="utf-8"))
    names = [field.name for field in fields(RoutingReport)]
    return RoutingReport.from_dict({name: plain[name] for name in names if name in plain}).to_metrics()


class _JournalLock(BaseJournalFileLock):
    """The lock of those who append: the system frees it when its holder dies, and the next removes what that one tore.

    Optuna's own locks stay behind a killed process for 30 seconds, and a line appended to a torn one is lost.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_name(".study.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        content = self._journal.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def _open_storage(sweep: SweepFolder) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(sweep.study), lock_obj=_JournalLock(sweep.study)))


def _load_study(storage: JournalStorage) -> optuna.Study:
    """The journal's only study, with its pruner."""
    (study,) = storage.get_all_studies()
    spec = study.user_attrs.get(_SPEC, {"pruner": "none", "pruner_args": {}})
    pruner = make_pruner(spec["pruner"], spec["pruner_args"])
    return optuna.load_study(study_name=study.study_name, storage=storage, pruner=pruner)


def _trial_id(storage: JournalStorage, number: int) -> int:
    (study,) = storage.get_all_studies()
    return storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def _objective(figures: Mapping[str, float], figure: str) -> float:
    if figure not in figures:
        raise ValueError(f"objectives.{figure}: unknown for this run's data; known are {' | '.join(sorted(figures))}")
    return figures[figure]


def _check_same(sweep: SweepFolder, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if different := describe_differences(there, here):
        raise ValueError(f"{sweep.study}: holds a search with {', '.join(different)}; choose another sweep.name")
