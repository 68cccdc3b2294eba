"""A search: an Optuna study that goes on after a kill with the same trial numbers and the same parameters.

The study lies in `<sweep folder>/study.journal`. Three rules make it repeatable:
- Every trial gets a new sampler, seeded by the search's seed and the trial's number. Its suggestion depends on these
  and on the earlier trials alone.
- The sampler works on a copy in memory, so a trial enters the journal with all its parameters in one line.
- Trials are asked for in batches that start at multiples of `num_parallel`. The trials of a batch do not know each
  other's values (TPE does know their parameters and avoids them: its "constant liar"). So a different `num_parallel`
  is a different search. With a pruner and several jobs at a time, pruning depends on which job is faster.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from causal_lm_router.config.plain import describe_differences
from causal_lm_router.evaluation.report_warnings import MOSTLY
from causal_lm_router.evaluation.stored import read_report
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.journal import open_storage
from causal_lm_router.sweeps.search_spec import SearchSpec, make_pruner

# User attributes. Of the study: its spec. Of a trial: its job, the state that the sampler hands to later trials, the
# step at which the pruner stopped it, the last step at which it let it go on, the failed trial that it repeats, and
# whether it failed for a reason outside of it, and whether its router names no LLM on most queries.
_SPEC, _JOB, _SAMPLER_STATE, _RETRY_OF, _FROM_OUTSIDE = "spec", "job", "sampler_state", "retry_of", "from_outside"
_IS_SILENT = "is_silent"
_PRUNED_AT, _KEPT_AT = "pruned_at", "kept_at"

# Optuna logs every study it makes, and here each trial makes one in memory.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """The study of one sweep folder, made where it is missing. One process at a time may use it.

    Raises:
        ValueError: the folder's study has another spec.
    """

    def __init__(self, sweep: SweepFolder, spec: SearchSpec) -> None:
        self._spec = spec
        self._storage = open_storage(sweep)
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
        """Return the trials to run next, with their parameters; none once `num_trials` are finished.

        Trials that were running when a process died come first, under their own numbers. The rest of their batch is
        added to them.
        """
        # The batch to go on with is the one of the first running trial, or else the next one.
        trials = self.trials
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        start = (running[0].number if running else len(trials)) // num_parallel * num_parallel
        # A batch with a finished trial is complete: all of its trials were asked for before any ran.
        if not (running and any(trial.state.is_finished() for trial in trials[start:])):
            num_retries = sum(_RETRY_OF in trial.user_attrs for trial in trials)
            for _ in range(len(trials), min(start + num_parallel, num_trials + num_retries)):
                self._ask()
        return [trial for trial in self.trials if trial.state is TrialState.RUNNING][:num_parallel]

    def retry_failed(self, *, by_own_fault: bool) -> None:
        """Add a trial, beyond `num_trials`, with the parameters of each one that failed for a reason outside of it.

        With `by_own_fault` of each other one that failed, too.
        """
        retried = {trial.user_attrs.get(_RETRY_OF) for trial in self.trials}
        for failed in self.trials:
            is_wanted = by_own_fault or _FROM_OUTSIDE in failed.user_attrs
            if failed.state is TrialState.FAIL and is_wanted and failed.number not in retried:
                again = optuna.create_trial(
                    state=TrialState.RUNNING,
                    params=failed.params,
                    distributions=failed.distributions,
                    user_attrs={_RETRY_OF: failed.number},
                )
                self._study.add_trial(again)

    def complete(self, number: int, job: str, metrics: Mapping[str, float]) -> None:
        """Tell the study that a trial is done: by which job, and the metrics of its validation report by name.

        Raises:
            ValueError: an objective is not among the metrics; the study then stays as it was.
        """
        values = [_objective(metrics, name) for name in self._spec.objective_names]
        trial_id = _trial_id(self._storage, number)
        self._storage.set_trial_user_attr(trial_id, _JOB, job)
        self._storage.set_trial_user_attr(trial_id, _IS_SILENT, metrics.get("parse_failure_rate", 0.0) > MOSTLY)
        self._study.tell(number, values)

    def stop(self, number: int, *, pruned: bool, from_outside: bool = False) -> None:
        """Tell the study that a trial was pruned, or else that it failed, and whether for a reason outside of it."""
        if from_outside:
            self._storage.set_trial_user_attr(_trial_id(self._storage, number), _FROM_OUTSIDE, True)
        self._study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def best(self) -> list[dict[str, Any]]:
        """Return the best trial, or the Pareto front of several objectives: number, values by metric, params, job.

        Of trials that share a job only the first is listed. Trials of silent routers, which cost nothing because they
        name no LLM, are listed only where all are silent. The list is empty while no trial is done.
        """
        one_of_job: dict[str, dict[str, Any]] = {}
        for trial in sorted(self._best_trials(), key=lambda trial: trial.number):
            values = dict(zip(self._spec.objective_names, trial.values, strict=True))
            job = trial.user_attrs[_JOB]
            found = {"number": trial.number, "values": values, "params": trial.params, "job": job}
            one_of_job.setdefault(job, found)
        best = list(one_of_job.values())
        return best if len(self._spec.objective_names) > 1 else best[:1]

    def _best_trials(self) -> list[FrozenTrial]:
        """The best of the trials that name LLMs, or of all trials where none does."""
        named = [trial for trial in self.trials if not trial.user_attrs.get(_IS_SILENT, False)]
        if not any(trial.state is TrialState.COMPLETE for trial in named):
            return self._study.best_trials
        # A copy without the silent ones; its numbers count anew.
        copy = optuna.create_study(storage=InMemoryStorage(), directions=self._spec.directions)
        copy.add_trials(named)
        return [named[trial.number] for trial in copy.best_trials]

    def _ask(self) -> None:
        """Add a running trial: a new sampler suggests it on a copy in memory, then the study stores it whole."""
        trials, memory = self.trials, InMemoryStorage()
        sampler = self._spec.make_sampler(len(trials))
        copy = optuna.create_study(storage=memory, sampler=sampler, directions=self._spec.directions)
        copy.add_trials(trials)
        # Some samplers keep a state in the study (the grid of QMC, say): hand on that of the last trial.
        states = [trial.user_attrs[_SAMPLER_STATE] for trial in trials if _SAMPLER_STATE in trial.user_attrs]
        for key, value in states[-1].items() if states else ():
            memory.set_study_system_attr(copy._study_id, key, value)
        # Ask for the parameters in a fixed order, since a sampler draws them one after another.
        copy.ask({key: self._spec.params[key] for key in sorted(self._spec.params)})
        asked = copy.trials[-1]
        asked.set_user_attr(_SAMPLER_STATE, memory.get_study_system_attrs(copy._study_id))
        self._study.add_trial(asked)


class TrialMonitor:
    """Reports a trial's objective to the pruner while its job trains."""

    def __init__(self, storage: JournalStorage, number: int) -> None:
        self._storage = storage
        self._study = _load_study(storage)
        self._objectives = list(self._study.user_attrs[_SPEC]["objectives"])
        self._trial_id = _trial_id(storage, number)

    def report(self, metrics: Mapping[str, float], step: int) -> bool:
        """Record the objective at an optimizer step; return True when the trial is to be pruned there.

        Trials are compared at equal steps. A job that was interrupted may report a step twice: the first value and the
        first decision stand. With several objectives nothing is recorded or pruned, nor for a finished trial, whose job
        somebody may run again by hand.

        Raises:
            ValueError: the objective is not among the metrics.
        """
        trial = self._storage.get_trial(self._trial_id)
        if len(self._objectives) > 1 or trial.state.is_finished():
            return False
        # A decision that an earlier run of the job got stands, also where trials that ended since would change it.
        if _PRUNED_AT in trial.user_attrs:
            return bool(step >= trial.user_attrs[_PRUNED_AT])
        if step <= trial.user_attrs.get(_KEPT_AT, -1):
            return False
        if step not in trial.intermediate_values:
            value = _objective(metrics, self._objectives[0])
            self._storage.set_trial_intermediate_value(self._trial_id, step, value)
        is_pruned = self._study.pruner.prune(self._study, self._storage.get_trial(self._trial_id))
        self._storage.set_trial_user_attr(self._trial_id, _PRUNED_AT if is_pruned else _KEPT_AT, step)
        return is_pruned


def open_trial(sweep_dir: Path, number: int) -> TrialMonitor:
    """Return the monitor of a running trial; it works in other processes than the search's too.

    Raises:
        FileNotFoundError: the folder holds no search.
        KeyError: the search has no such trial.
    """
    sweep = SweepFolder(sweep_dir)
    if not sweep.study.is_file():
        raise FileNotFoundError(f"{sweep.study}: no search there")
    return TrialMonitor(open_storage(sweep), number)


def read_validation_metrics(run_dir: Path) -> dict[str, float]:
    """Return the metrics of a finished run over its validation split by name, without those that are unknown.

    Raises:
        ValueError: the run has not evaluated that split.
    """
    path = RunFolder(run_dir).validation / "report.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; a search needs evaluation.final_validation=true and a validation split")
    return read_report(path.parent).to_metrics()


def _load_study(storage: JournalStorage) -> optuna.Study:
    """The only study of the journal, with its pruner."""
    (study,) = storage.get_all_studies()
    spec = study.user_attrs.get(_SPEC, {"pruner": "none", "pruner_args": {}})
    pruner = make_pruner(spec["pruner"], spec["pruner_args"])
    return optuna.load_study(study_name=study.study_name, storage=storage, pruner=pruner)


def _trial_id(storage: JournalStorage, number: int) -> int:
    (study,) = storage.get_all_studies()
    return storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def _objective(metrics: Mapping[str, float], name: str) -> float:
    if name not in metrics:
        raise ValueError(f"objectives must be metrics of this run ({', '.join(sorted(metrics))}), got {name!r}")
    return metrics[name]


def _check_same(sweep: SweepFolder, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if different := describe_differences(there, here):
        raise ValueError(f"{sweep.study}: holds a search with {', '.join(different)}; choose another sweep.name")
