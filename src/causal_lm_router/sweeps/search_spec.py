"""The specification of a search: objectives, search space, sampler, pruner and seed."""

import inspect
import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import ParseFailure

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "nsgaii": NSGAIISampler,
    "qmc": QMCSampler,
    "gp": GPSampler,
}
PRUNERS: dict[str, type[BasePruner]] = {"none": NopPruner, "median": MedianPruner, "asha": SuccessiveHalvingPruner}
METRICS = (
    *(name for name, kind in get_type_hints(RoutingReport).items() if kind is Estimate or Estimate in get_args(kind)),
    *(f"parse_failures/{kind}" for kind in ParseFailure),
    "queries_per_second",
)
"""Names of the metrics that can be an objective: those of a report that depend on the router."""
_DIRECTIONS = ("minimize", "maximize")
Made = TypeVar("Made", BaseSampler, BasePruner)


@dataclass(frozen=True)
class SearchSpec:
    """Everything that defines a search. A study takes further trials only under an equal spec.

    Raises:
        ValueError: a metric, direction, sampler, pruner or argument is unknown, a pruner meets several objectives, or
            there is no objective or no parameter.
    """

    objectives: Mapping[str, str]
    """Metric of the validation report -> `minimize` or `maximize`."""
    params: Mapping[str, BaseDistribution]
    """The search space: parameter -> its distribution."""
    fixed: Mapping[str, Any]
    """Settings that all trials share, nested as in a config."""
    sampler: str
    sampler_args: Mapping[str, Any]
    pruner: str
    pruner_args: Mapping[str, Any]
    seed: int
    n_jobs: int = 1
    """Trials asked for at a time."""

    def __post_init__(self) -> None:
        for key in ("objectives", "params"):
            if not getattr(self, key):
                raise ValueError(f"{key} must hold at least one entry, got none")
        for name, direction in self.objectives.items():
            _check_choice("objectives", name, METRICS)
            _check_choice(f"objectives.{name}", direction, _DIRECTIONS)
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError(f"pruner must be none with several objectives, got {self.pruner!r}")
        # Make both once: a wrong argument fails here, before any trial runs.
        self.make_sampler(0)
        make_pruner(self.pruner, self.pruner_args)

    @property
    def objective_names(self) -> list[str]:
        """Names of the objectives, in the order in which the study holds their values."""
        return sorted(self.objectives)

    @property
    def directions(self) -> list[StudyDirection]:
        """The direction of each objective, in the same order."""
        return [StudyDirection[self.objectives[name].upper()] for name in self.objective_names]

    def make_sampler(self, number: int) -> BaseSampler:
        """Return the sampler of the trial with this number."""
        # The trials of a quasi-random search are points of one sequence, so all of them share the seed.
        seed = self.seed if self.sampler == "qmc" else np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        return _make("sampler", SAMPLERS, self.sampler, self.sampler_args, seed=int(seed))

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as plain values, as a study stores it."""
        params = {key: str(self.params[key]) for key in sorted(self.params)}
        spec = {**vars(self), "params": params}
        plain: dict[str, Any] = json.loads(json.dumps(spec))
        return plain


def make_pruner(pruner: str, pruner_args: Mapping[str, Any]) -> BasePruner:
    """Return the pruner.

    Raises:
        ValueError: the name or an argument is unknown.
    """
    return _make("pruner", PRUNERS, pruner, pruner_args)


def _make(role: str, kinds: Mapping[str, type[Made]], name: str, arguments: Mapping[str, Any], **seed: int) -> Made:
    _check_choice(role, name, kinds)
    for argument in arguments:
        _check_choice(f"{role}_args", argument, inspect.signature(kinds[name]).parameters.keys() - {"seed"})
    try:
        with warnings.catch_warnings():
            # A sampler is made for every trial; the experimental ones would warn each time.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return kinds[name](**arguments, **seed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{role}_args={dict(arguments)}: {error}") from error


def _check_choice(key: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(sorted(allowed))}, got {value!r}")
