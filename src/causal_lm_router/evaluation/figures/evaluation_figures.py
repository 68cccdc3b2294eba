"""All drawings of one evaluation."""

import numpy as np
from matplotlib.figure import Figure

from causal_lm_router.evaluation.figures.confusion import draw_confusion
from causal_lm_router.evaluation.figures.frontier import draw_frontier, run_point
from causal_lm_router.evaluation.figures.reliability import draw_reliability
from causal_lm_router.evaluation.figures.routes import draw_routes_by_task
from causal_lm_router.evaluation.figures.scores import draw_score_distribution
from causal_lm_router.evaluation.measures.calibration import scale
from causal_lm_router.evaluation.outcome_table import OutcomeTable
from causal_lm_router.evaluation.report import RoutingReport


def draw_evaluation(table: OutcomeTable, report: RoutingReport) -> dict[str, Figure]:
    """Return file name without ending -> drawing, as far as the outcomes, which `report` is made of, are known.

    `confusion`, `routes_by_task` and `scores` always; `reliability` where the router predicts scores; `frontier` where
    costs are known. Where the report has a temperature, the reliability diagram also shows the scaled predictions.
    """
    figures = {
        "confusion": draw_confusion(report.candidate_names, np.array(report.confusion)),
        "routes_by_task": draw_routes_by_task(table, report.best_single),
        "scores": draw_score_distribution(table, report.best_single),
    }
    if table.predicted is not None:
        temperature = None if report.predictions is None else report.predictions.temperature
        calibrated = None if temperature is None else scale(table.predicted, temperature)
        figures["reliability"] = draw_reliability(table.scores, table.predicted, calibrated)
    if table.costs is not None:
        figures["frontier"] = draw_frontier([run_point("router", report, table)], report.references, candidates=table)
    return figures
