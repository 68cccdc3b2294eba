"""The folder of an evaluation: report.json, outcomes.jsonl and the drawings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.missing import explain_missing
from causal_lm_router.evaluation.stored import OUTCOMES, REPORT
from causal_lm_router.files.checksums import write_checked
from causal_lm_router.routing import RouteOutcome


def write_evaluation(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], *, with_pictures: bool = True
) -> list[Path]:
    """Write outcomes.jsonl, pictures and, last, report.json with `facts` (split, data, backend, ...) beside it.

    Other decoding methods' evaluations go to folders of their own, without pictures. Returns the pictures beside
    confusion.png: those that the outcomes allow (see `draw_evaluation`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in outcome_rows(evaluation.outcomes))
    write_checked(folder / OUTCOMES, rows)
    pictures = _draw(folder, evaluation) if with_pictures else []
    # The same weights under other decodings, without drawings of their own.
    for name, other in evaluation.others.items():
        write_evaluation(folder / "decodings" / name, other, facts, with_pictures=False)
    # A folder with a report is a whole evaluation: those who look for one look for this file.
    # Its warnings come before everything else.
    plain = evaluation.report.to_dict()
    report = {"warnings": plain["warnings"], **facts, **plain, "why_null": explain_missing(plain)}
    write_checked(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return pictures


def _draw(folder: Path, evaluation: Evaluation) -> list[Path]:
    # Imported here, so that only those who draw wait for matplotlib.
    from causal_lm_router.evaluation.figures.drawing import save_figure
    from causal_lm_router.evaluation.figures.evaluation_figures import draw_evaluation

    figures = draw_evaluation(evaluation.table, evaluation.report)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures if name != "confusion"]


def outcome_rows(outcomes: Sequence[RouteOutcome]) -> list[dict[str, Any]]:
    """Return a plain row per outcome, for outcomes.jsonl and for trackers."""
    return [
        {
            "query_id": outcome.example.query_id,
            "query": outcome.example.query,
            "task": outcome.example.task,
            "label": outcome.label,
            "generation": outcome.generation.text,
            "finish_reason": outcome.generation.finish_reason,
            "logprob": outcome.generation.logprob,
            "route": outcome.route.candidate,
            "failure": outcome.route.failure and outcome.route.failure.value,
            "is_fuzzy": outcome.route.fuzzy,
            "called": outcome.called,
            "is_correct": outcome.is_correct,
            "score": outcome.score,
            "scores": dict(outcome.example.scores),
            "best_score": max(outcome.example.scores.values()),
            "cost": outcome.cost,
            "costs": outcome.example.costs and dict(outcome.example.costs),
            "truncated_query": outcome.truncated_query,
            "predicted": outcome.predicted and dict(outcome.predicted),
        }
        for outcome in outcomes
    ]
