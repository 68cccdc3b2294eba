"""Estimates of a configuration over its seeds, the references beside them, and the choice of the best on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causal_lm_router.evaluation.formatting import REFERENCE_NAMES
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.report import Reference
from causal_lm_router.evaluation.report_warnings import MOSTLY
from causal_lm_router.evaluation.statistics import Sample, estimate_means, pool_folds
from causal_lm_router.evaluation.stored import METRICS
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.runs import Run

CHOICE_METRICS = ("mean_score", "routing_accuracy")
"""Metrics by which a configuration may be chosen on validation."""
_VALIDATED = (*CHOICE_METRICS, "parse_failure_rate")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One configuration's estimates on the final split, and its means on validation."""

    configuration: Configuration
    num_queries: int
    """Different queries over all seeds."""
    estimates: Mapping[str, Estimate]
    """Metric -> mean over seeds with its interval over seeds and queries; without `mean_cost` where it is unknown."""
    validation: Mapping[str, float]
    """Metric -> mean over seeds; empty unless every seed has a validation evaluation."""

    @property
    def is_silent(self) -> bool:
        """Whether it names no LLM on most queries: it calls nobody, so that it costs nothing, and routes nothing."""
        return self.estimates["parse_failure_rate"].value > MOSTLY

    @property
    def is_silent_on_validation(self) -> bool:
        """Whether it names no LLM on most queries of validation."""
        return self.validation.get("parse_failure_rate", 0.0) > MOSTLY


@dataclass(frozen=True, kw_only=True)
class ReferenceEstimates:
    """A way of choosing without a router, on one set of queries, as the named run's report.json has it."""

    key: str
    """As in report.json."""
    detail: str
    """The candidate that is best single; empty for other references."""
    estimates: Reference
    num_queries: int
    run: Run

    @property
    def name(self) -> str:
        """`best single (borealis-large)`: as in every table."""
        return f"{REFERENCE_NAMES[self.key]} ({self.detail})" if self.detail else REFERENCE_NAMES[self.key]

    @property
    def style_name(self) -> str:
        """The name by which a drawing finds its style, `best_single (borealis-large)`; see `reference_style`."""
        return f"{self.key} ({self.detail})" if self.detail else self.key


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The best configuration by `metric` on validation, and the one that looks best on test, which is no result.

    Neither is ever an oracle.
    """

    metric: str
    chosen: Summary | None
    """None where no configuration that can be chosen has been evaluated on validation, or all of these are silent."""
    best_on_test: Summary | None
    """None where all are oracles."""
    num_tied: int
    """Number of configurations with the best mean on validation."""
    num_silent: int
    """Number of configurations that cannot be chosen because they are silent on validation."""


def summarise(configuration: Configuration) -> Summary:
    """Return the estimates of a configuration with at least one run."""
    tests = [evaluation for run in configuration.runs if (evaluation := run.test)]
    validations = [run.validation for run in configuration.runs if run.validation]
    # Costs are left out unless every seed's are known.
    names = [name for name in METRICS if all(name in test.values for test in tests)]
    samples = [Sample(test.queries, np.column_stack([test.values[name] for name in names])) for test in tests]
    measures = [Measure.cost if name == "mean_cost" else Measure.share for name in names]
    dearest = max(test.table.dearest if test.table else 0.0 for test in tests)
    samples = pool_folds([run.seed for run in configuration.runs if run.test], samples)
    estimates = dict(zip(names, estimate_means(samples, measures, dearest), strict=True))
    validation = {
        metric: float(np.mean([one.values[metric].mean() for one in validations]))
        for metric in _VALIDATED
        if len(validations) == len(tests)
    }
    # Seeds with their own split ask different queries, and all of these count.
    queries = {(test.queries, query_id) for test in tests for query_id in test.query_ids}
    return Summary(
        configuration=configuration,
        num_queries=len(queries),
        estimates=estimates,
        validation=validation,
    )


def reference_estimates(runs: Sequence[Run]) -> list[ReferenceEstimates]:
    """Return every reference of the runs' reports once for each set of queries and best single."""
    found: dict[tuple[Any, ...], ReferenceEstimates] = {}
    for run in runs:
        if run.test is None:
            continue
        # Runs on the same queries share their references; the first one's are taken.
        report = run.test.report
        for name, reference in report.references.items():
            # A mixture at one router's cost says nothing of the others.
            if name == "same_cost_mixture":
                continue
            detail = report.best_single if name == "best_single" else ""
            estimates = ReferenceEstimates(
                key=name, detail=detail, estimates=reference, num_queries=report.num_queries, run=run
            )
            found.setdefault((run.test.queries, name, detail), estimates)
    return list(found.values())


def select(summaries: Sequence[Summary], metric: str) -> Selection:
    """Return the choice by the mean over seeds of `metric` on validation; of equal ones the first.

    Oracles and routers that are silent there are left out.

    Raises:
        ValueError: `metric` is not in CHOICE_METRICS.
    """
    check_metric(metric)
    routers = [summary for summary in summaries if not summary.configuration.is_oracle]
    validated = [summary for summary in routers if summary.validation]
    selectable = [summary for summary in validated if not summary.is_silent_on_validation]
    # `max` returns the first of equal ones.
    chosen = max(selectable, key=lambda summary: summary.validation[metric], default=None)
    num_tied = sum(chosen is not None and one.validation[metric] == chosen.validation[metric] for one in selectable)
    best_on_test = max(routers, key=lambda summary: summary.estimates[metric].value, default=None)
    return Selection(
        metric=metric,
        chosen=chosen,
        best_on_test=best_on_test,
        num_tied=num_tied,
        num_silent=len(validated) - len(selectable),
    )


def check_metric(metric: str) -> None:
    """Raise a ValueError unless configurations can be chosen by the metric."""
    if metric not in CHOICE_METRICS:
        raise ValueError(f"metric must be {' or '.join(CHOICE_METRICS)}, got {metric!r}")
