"""Doing what a run's config stands for: train a router, or fit a baseline."""

from causal_lm_router.config import BaselineRunConfig, TrainConfig
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.runs.baseline_run import run_baseline
from causal_lm_router.runs.session import OnEvaluation
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.runs.workbench import Workbench


def complete_run(
    config: TrainConfig, workbench: Workbench | None = None, on_evaluation: OnEvaluation | None = None
) -> RoutingReport | None:
    """Do what a run's config stands for: fit a baseline or train a router. Returns and raises as they do."""
    if isinstance(config, BaselineRunConfig):
        return run_baseline(config, workbench)
    return train_router(config, workbench, on_evaluation)
