"""All drawings of one evaluation."""

from collections.abc import Sequence
from pathlib import Path

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.figures.frontier import router_trade_off, save_frontier
from causal_lm_router.evaluation.figures.reliability import save_reliability
from causal_lm_router.evaluation.figures.routes import save_routes_by_task
from causal_lm_router.evaluation.figures.scores import save_score_distribution
from causal_lm_router.evaluation.measures.calibration import fit_temperature, scale
from causal_lm_router.evaluation.outcome_table import OutcomeTable, outcome_table
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import RouteOutcome


def save_routing_figures(
    outcomes: Sequence[RouteOutcome],
    report: RoutingReport,
    folder: Path,
    validation: Sequence[RouteOutcome] = (),
) -> list[Path]:
    """Write the drawings that `outcomes`, of which `report` is made, allow into the folder; return their files.

    routes_by_task.png and scores.png always; reliability.png where the router predicts, frontier.png where costs are
    known. Where it predicts on `validation` too, a temperature is fitted there, and reliability.png shows both.
    """
    table = outcome_table(outcomes, report.candidate_names)
    paths = [folder / "routes_by_task.png", folder / "scores.png"]
    save_routes_by_task(table, report.best_single, paths[0])
    save_score_distribution(table, report.best_single, paths[1])
    if table.predicted is not None:
        paths.append(folder / "reliability.png")
        calibrated = (
            _calibrate(table.predicted, outcome_table(validation, report.candidate_names)) if validation else None
        )
        save_reliability(table.scores, table.predicted, paths[-1], calibrated)
    if table.costs is not None:
        paths.append(folder / "frontier.png")
        curves = {} if table.predicted is None else {"router": router_trade_off(table)}
        save_frontier({"router": report}, curves, table, paths[-1])
    return paths


def _calibrate(predicted: Floats, validation: OutcomeTable) -> Floats | None:
    if validation.predicted is None:
        return None
    return scale(predicted, fit_temperature(validation.scores, validation.predicted))
