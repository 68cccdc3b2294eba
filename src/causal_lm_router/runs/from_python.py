"""Training, baselines and evaluations from Python: what the commands do, with the same overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causal_lm_router.config.compose import compose_config, compose_on_run
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.runs.complete_run import complete_run
from causal_lm_router.runs.evaluate_run import evaluate_run


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a run or an evaluation leaves."""

    folder: Path
    """The run folder, or that of the evaluation."""
    report: RoutingReport
    """The report on the final split."""


def train(overrides: Sequence[str]) -> Evaluated:
    """Train a router as `causal-lm-router train <overrides>` does, and return its run folder and report.

    `train(["experiment=quickstart", "run_dir=outputs/first"])` goes on where an interrupted run of these settings
    stopped. A sweep needs the command.

    Raises:
        ValueError: a setting or the data cannot be used, or the folder holds a finished run.
    """
    return _complete("train", overrides)


def baseline(overrides: Sequence[str]) -> Evaluated:
    """Fit a baseline as `causal-lm-router baseline <overrides>` does. Returns and raises as `train`."""
    return _complete("baseline", overrides)


def evaluate(run_dir: str | Path, overrides: Sequence[str] = ()) -> Evaluated:
    """Evaluate a run again as `causal-lm-router evaluate run_dir=<run_dir> <overrides>` does.

    Raises:
        FileNotFoundError: the folder holds no trained router.
        ValueError: a setting that an evaluation does not honour, or that cannot be used.
    """
    config = compose_on_run("evaluate", run_dir, overrides)
    return Evaluated(folder=Path(config.output_dir), report=evaluate_run(config))


def _complete(command: str, overrides: Sequence[str]) -> Evaluated:
    config = compose_config(list(overrides), command)
    report = complete_run(config)
    if report is None:
        # A further process of a distributed run has done its part: the script's own lines are for the first one.
        raise SystemExit(0)
    return Evaluated(folder=Path(config.run_dir), report=report)
