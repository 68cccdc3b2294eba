"""The run folder: where everything a run leaves lies, and how it is written.

config.yaml      the resolved config            report.json      every figure of the final evaluation
router.json      pool and best single           outcomes.jsonl   a line per query of it
adapter/         trained weights (PEFT)         metrics.csv      step,epoch,name,value
merged/          merged checkpoint              *.png            confusion, learning curve, routes, ...
checkpoints/     to resume from                 validation/      report.json and outcomes.jsonl of that split
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.atomic import write_text
from causal_lm_router.routing import Candidate, RouteOutcome

if TYPE_CHECKING:
    from causal_lm_router.evaluation import Evaluation


@dataclass(frozen=True)
class RouterCard:
    """What routing needs to know besides config and weights: the pool, the best single candidate and costs on train."""

    pool: tuple[Candidate, ...]
    best_single: str
    mean_costs: Mapping[str, float] | None = None
    """Mean cost (USD) of every candidate on train; None where costs are unknown."""

    @property
    def names(self) -> list[str]:
        """Candidate names in pool order."""
        return [candidate.name for candidate in self.pool]


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def weights(self) -> Path:
        """Trained weights: a PEFT adapter, or a full checkpoint where all weights were trained."""
        return self.path / "adapter"

    @property
    def merged(self) -> Path:
        """The merged checkpoint."""
        return self.path / "merged"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints to resume from."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Figures over the steps of training."""
        return self.path / "metrics.csv"

    @property
    def validation(self) -> Path:
        """Report and outcomes of the trained weights on the whole validation split."""
        return self.path / "validation"

    @property
    def report(self) -> Path:
        """Report of the final evaluation; written last, so it marks a finished run."""
        return self.path / "report.json"

    def write_card(self, card: RouterCard) -> None:
        """Write router.json."""
        text = json.dumps(asdict(card), indent=2, ensure_ascii=False)
        write_text(self.path / "router.json", text + "\n")

    def read_card(self) -> RouterCard:
        """Return router.json's content; raise FileNotFoundError where the run has not come that far."""
        path = self.path / "router.json"
        if not path.is_file() or not self.weights.is_dir():
            raise FileNotFoundError(
                f"run_dir={self.path}: no trained router there; was the run interrupted? (resume it)"
            )
        plain = json.loads(path.read_text(encoding="utf-8"))
        pool = tuple(Candidate(**candidate) for candidate in plain["pool"])
        return RouterCard(pool, plain["best_single"], plain.get("mean_costs"))


def write_evaluation(
    folder: Path,
    evaluation: "Evaluation",
    facts: dict[str, Any],
    validation: "Evaluation | None" = None,
    *,
    with_pictures: bool = True,
) -> list[Path]:
    """Write outcomes.jsonl, pictures and, last, report.json with `facts` (split, data, backend, ...) beside it.

    Other decoding methods' evaluations go to folders of their own, without pictures. `validation` is the same router's
    evaluation on the validation queries: there its predictions are calibrated for the reliability diagram. Returns the
    pictures beside confusion.png: those that the outcomes allow (see routing_figures).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in outcome_rows(evaluation.outcomes))
    write_text(folder / "outcomes.jsonl", rows)
    pictures = _draw(folder, evaluation, validation) if with_pictures else []
    for name, other in evaluation.others.items():
        write_evaluation(folder / "decodings" / name, other, facts, with_pictures=False)
    report = {**facts, **evaluation.report.to_dict()}
    write_text(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return pictures


def _draw(folder: Path, evaluation: "Evaluation", validation: "Evaluation | None") -> list[Path]:
    from causal_lm_router.figures import save_confusion
    from causal_lm_router.routing_figures import save_routing_figures

    save_confusion(evaluation.report, folder / "confusion.png")
    calibrating = validation.outcomes if validation else ()
    return save_routing_figures(evaluation.outcomes, evaluation.report, folder, calibrating)


def outcome_rows(outcomes: Sequence[RouteOutcome]) -> list[dict[str, Any]]:
    """Return a plain row per outcome, for outcomes.jsonl and for trackers."""
    return [
        {
            "query_id": outcome.example.query_id,
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
