"""What drawings of an evaluation are made of: its outcomes as arrays, a row per query and a column per candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Bools, Floats, Integers, known_matrix, matrix
from causal_lm_router.routing import RouteOutcome

NOBODY = -1
"""In the place of a candidate's column: the generation named none, or no LLM is called."""


@dataclass(frozen=True)
class OutcomeTable:
    """The outcomes of one evaluation; what is not known of every query and candidate is None."""

    candidate_names: tuple[str, ...]
    """Candidates in pool order, which is that of the columns."""
    tasks: tuple[str, ...]
    routes: Integers
    """Column of each query's route, NOBODY for a parse failure."""
    called: Integers
    """Column of the candidate that is called, NOBODY where none is."""
    scores: Floats
    costs: Floats | None
    """USD."""
    predicted: Floats | None

    @property
    def score(self) -> Floats:
        """Score of the called candidate's answer per query; 0 where no LLM is called."""
        rows = np.arange(len(self.scores))
        return np.where(self.called == NOBODY, 0.0, self.scores[rows, self.called])

    @cached_property
    def is_best(self) -> Bools:
        """Whether a candidate's score equals the query's best score."""
        return np.asarray(self.scores == self.scores.max(axis=1, keepdims=True))


def outcome_table(outcomes: Sequence[RouteOutcome], names: Sequence[str]) -> OutcomeTable:
    """Return the table of outcomes over the candidates `names`."""
    rows = [
        {
            "task": outcome.example.task,
            "route": outcome.route.candidate,
            "called": outcome.called,
            "scores": outcome.example.scores,
            "costs": outcome.example.costs,
            "predicted": outcome.predicted,
        }
        for outcome in outcomes
    ]
    return row_table(rows, names)


def row_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> OutcomeTable:
    """Return the table of the rows of an outcomes.jsonl over the candidates `names`.

    Older rows lack `costs` or `predicted`, which then count as unknown. Raises KeyError for rows without `scores`, and
    ValueError for a route outside `names`.
    """
    columns = {name: index for index, name in enumerate(names)}
    return OutcomeTable(
        candidate_names=tuple(names),
        tasks=tuple(row["task"] for row in rows),
        routes=_columns([row["route"] for row in rows], columns),
        called=_columns([row["called"] for row in rows], columns),
        scores=matrix([row["scores"] for row in rows], names),
        costs=known_matrix([row.get("costs") for row in rows], names),
        predicted=known_matrix([row.get("predicted") for row in rows], names),
    )


def _columns(chosen: Sequence[str | None], columns: Mapping[str, int]) -> Integers:
    if outside := sorted({name for name in chosen if name is not None} - columns.keys()):
        raise ValueError(f"route={outside[0]!r}: allowed is {' | '.join(columns)}")
    return np.array([NOBODY if name is None else columns[name] for name in chosen], dtype=np.int64)
