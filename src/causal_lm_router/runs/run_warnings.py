"""The warnings that open a run's report: about its data, its adapter, its generations and its routes."""

from dataclasses import replace
from pathlib import Path

from causal_lm_router.config import BaselineMethod, BaselineRunConfig, NeighboursConfig, TrainConfig
from causal_lm_router.data.data_warnings import warn_of_data
from causal_lm_router.data.labels import drop_undecided
from causal_lm_router.data.split import RoutingSplits
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report_warnings import warn_of_failures, warn_of_one_route
from causal_lm_router.evaluation.too_good import warn_of_perfection
from causal_lm_router.models.adapter import changes_nothing, is_adapter

_ALWAYS_ONE = (
    BaselineMethod.best_single,
    BaselineMethod.cheapest,
    BaselineMethod.most_expensive,
    BaselineMethod.majority_label,
)
"""Baselines that call one candidate by design, which is nothing to warn of."""
_ORACLES = (BaselineMethod.oracle, BaselineMethod.cheapest_oracle)
"""Baselines that know the scores."""


def add_warnings(
    evaluation: Evaluation, config: TrainConfig, splits: RoutingSplits, weights_dir: Path | None
) -> Evaluation:
    """Return the evaluation with the warnings of its report; `weights_dir` holds trained weights, if there are any."""
    report, is_trained = evaluation.report, weights_dir is not None
    method = config.baseline.method if isinstance(config, BaselineRunConfig) else None
    # Causes before their effects.
    warnings = [
        *warn_of_data(splits),
        _warn_of_neighbours(config, splits),
        _warn_of_adapter(weights_dir) if weights_dir else None,
        warn_of_failures(report, is_trained=is_trained),
        None if method in _ALWAYS_ONE else warn_of_one_route(report, is_trained=is_trained),
        None if method in _ORACLES else warn_of_perfection(report),
    ]
    return replace(evaluation, report=replace(report, warnings=tuple(text for text in warnings if text)))


def _warn_of_neighbours(config: TrainConfig, splits: RoutingSplits) -> str | None:
    """The warning that a mean over all training queries is the same for every query."""
    baseline = config.baseline if isinstance(config, BaselineRunConfig) else None
    # What is left out of training only makes the neighbours fewer.
    kept = splits.train if config.data.keep_undecided else drop_undecided(splits.train)
    if not isinstance(baseline, NeighboursConfig) or baseline.k < len(kept):
        return None
    return (
        f"baseline.k={baseline.k} is every training query, so all queries have the same neighbours and the same route. "
        "Try: a smaller baseline.k."
    )


def _warn_of_adapter(weights_dir: Path) -> str | None:
    if not is_adapter(weights_dir) or not changes_nothing(weights_dir):
        return None
    return (
        "the adapter changes nothing (its B matrices are 0), so these are the base model's own outputs. Try: a higher "
        "optim.learning_rate, or more steps of training (trainer.num_epochs, more queries)."
    )
