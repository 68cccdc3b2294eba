"""All drawings of one evaluation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.confusion import draw_confusion
from causal_lm_router.evaluation.figures.frontier import draw_frontier, run_point
from causal_lm_router.evaluation.figures.reliability import draw_reliability
from causal_lm_router.evaluation.figures.routes import draw_routes_by_task
from causal_lm_router.evaluation.figures.scores import draw_score_distribution
from causal_lm_router.evaluation.measures.calibration import fit_temperature, scale
from causal_lm_router.evaluation.outcome_table import OutcomeTable, outcome_table
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import RouteOutcome


def draw_evaluation(
    outcomes: Sequence[RouteOutcome], report: RoutingReport, validation: Sequence[RouteOutcome] = ()
) -> dict[str, Figure]:
    """Return file name without ending -> drawing, as far as `outcomes`, which `report` is made of, are known.

    `confusion`, `routes_by_task` and `scores` always; `reliability` where the router predicts scores; `frontier` where
    costs are known. Where the router predicts on `validation` too, a temperature is fitted there, and the reliability
    diagram shows both.
    """
    table = outcome_table(outcomes, report.candidate_names)
    figures = {
        "confusion": draw_confusion(report.candidate_names, np.array(report.confusion)),
        "routes_by_task": draw_routes_by_task(table, report.best_single),
        "scores": draw_score_distribution(table, report.best_single),
    }
    if table.predicted is not None:
        calibrating = outcome_table(validation, report.candidate_names) if validation else None
        figures["reliability"] = draw_reliability(
            table.scores, table.predicted, _calibrate(table.predicted, calibrating)
        )
    if table.costs is not None:
        figures["frontier"] = draw_frontier([run_point("router", report, table)], report.references, candidates=table)
    return figures


def _calibrate(predicted: Floats, calibrating: OutcomeTable | None) -> Floats | None:
    if calibrating is None or calibrating.predicted is None:
        return None
    return scale(predicted, fit_temperature(calibrating.scores, calibrating.predicted))
