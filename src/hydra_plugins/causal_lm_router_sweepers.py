"""The sweepers in the place where Hydra looks for plugins. Hydra imports this for every command: nothing heavy here."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from causal_lm_router.sweeps.grid import run_grid
from causal_lm_router.sweeps.launched_jobs import SweepJobs, parse_overrides, set_up_jobs


class GridSweeper(Sweeper):
    """`hydra/sweeper=grid`."""

    def __init__(self, max_batch_size: int | None, params: dict[str, Any] | None) -> None:
        self._max_batch_size, self._params = max_batch_size, params
        self._jobs: SweepJobs | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self._jobs = set_up_jobs(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> list[str]:
        """Run the grid of `hydra.sweeper.params` and the arguments; return the ids of all jobs.

        Raises:
            ValueError: as `run_grid`.
        """
        assert self._jobs is not None, "Hydra sets a sweeper up first"
        return run_grid(self._jobs, parse_overrides(self._params, arguments), self._max_batch_size)


@dataclass
class GridSweeperConfig:
    """Settings of the grid under `hydra.sweeper`."""

    _target_: str = "hydra_plugins.causal_lm_router_sweepers.GridSweeper"
    max_batch_size: int | None = None
    """Jobs handed to a parallel launcher at a time; null hands over all."""
    params: dict[str, Any] | None = field(default_factory=dict)
    """Swept key -> values, as on the command line."""


class OptunaSweeper(Sweeper):
    """`hydra/sweeper=optuna`."""

    def __init__(self, n_trials: int, n_jobs: int, params: dict[str, Any] | None, **spec: Any) -> None:
        self._num_trials, self._num_parallel, self._params = n_trials, n_jobs, params
        self._spec = spec
        self._jobs: SweepJobs | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self._jobs = set_up_jobs(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> list[str]:
        """Search `hydra.sweeper.params` and the ranges among the arguments; return the ids of all jobs.

        An argument takes the place of a parameter: a range replaces its range, a single value fixes it.

        Raises:
            ValueError: settings do not fit together, the folder holds another search, or no trial has a result.
        """
        # Imported here, since Optuna takes a second that no other command needs.
        from causal_lm_router.sweeps.trials import TrialJobs

        assert self._jobs is not None, "Hydra sets a sweeper up first"
        trials = TrialJobs(self._jobs, parse_overrides(self._params, arguments), self._spec)
        return trials.run(self._num_trials, self._num_parallel)


@dataclass
class OptunaSweeperConfig:
    """Settings of the search under `hydra.sweeper`, in Optuna's words.

    Null and untyped where a dictionary may stand: only so can the command line put one in its place.
    """

    _target_: str = "hydra_plugins.causal_lm_router_sweepers.OptunaSweeper"
    _convert_: str = "all"
    n_trials: int = 20
    """Trials in all; with a higher number the same command adds trials."""
    n_jobs: int = 1
    """Trials that a parallel launcher gets at a time. Those of a batch do not know each other's results."""
    objectives: Any = None
    """Metric of the validation report -> `maximize` or `minimize`; null is {routing_accuracy: maximize}. Of several the
    Pareto front is searched."""
    sampler: str = "tpe"
    """tpe | random | nsgaii | qmc | gp"""
    sampler_args: Any = None
    """Options of Optuna's class."""
    pruner: str = "none"
    """none | median | asha: stops a trial by the evaluations during training. For one objective."""
    pruner_args: Any = None
    """Options of Optuna's class; steps are optimizer steps."""
    seed: int = 0
    """Seed of the sampler, not of the runs."""
    params: dict[str, Any] | None = field(default_factory=dict)
    """Parameter -> what to search: `choice(4, 8)`, `range(1, 8)`, `tag(log, interval(1e-5, 1e-2))`, a single value."""


for name, settings in {"grid": GridSweeperConfig, "optuna": OptunaSweeperConfig}.items():
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=settings, provider="causal-lm-router")
