"""The outcomes of one evaluation as arrays: made once, read by its report, the measures and the drawings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from causal_lm_router.data.arrays import Bools, Floats, Integers, known_matrix, matrix
from causal_lm_router.routing import RouteOutcome

NOBODY = -1
"""In the place of a candidate's column: the generation named none, or no LLM is called."""


@dataclass(frozen=True, kw_only=True)
class OutcomeTable:
    """The outcomes of one evaluation: a row per query and, in matrices, a column per candidate in pool order.

    Scores, expected scores and predictions lie in 0..1, costs are USD. A matrix that is not known of every query is
    None.

    Raises:
        ValueError: there are no queries or fewer than two candidates, or a matrix has another shape or other values.
    """

    candidate_names: tuple[str, ...]
    tasks: tuple[str, ...]
    routes: Integers
    """Column of each query's route, NOBODY for a parse failure."""
    called: Integers
    """Column of the candidate that is called, NOBODY where none is."""
    scores: Floats
    costs: Floats | None
    expected: Floats | None
    """Expected scores, where the data's model is known."""
    predicted: Floats | None

    def __post_init__(self) -> None:
        # Measures would turn a wrong number into a wrong estimate without a word.
        shape = (len(self.tasks), len(self.candidate_names))
        if shape[0] < 1 or shape[1] < 2:
            raise ValueError(
                f"outcomes must be of at least one query and two candidates, got {shape[0]} queries x {shape[1]}"
            )
        for key, highest in (("scores", 1.0), ("costs", np.inf), ("expected", 1.0), ("predicted", 1.0)):
            values = getattr(self, key)
            if values is None:
                continue
            if values.shape != shape:
                raise ValueError(f"{key} must have the shape {shape}, got {values.shape}")
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= highest):
                raise ValueError(f"{key} must be finite and in 0..{highest}, got {values.min()}..{values.max()}")

    @cached_property
    def best_score(self) -> Floats:
        """Each query's best score."""
        return np.asarray(self.scores.max(axis=1))

    @cached_property
    def is_best(self) -> Bools:
        """Whether a candidate's score equals the query's best score (queries x candidates)."""
        return np.asarray(self.scores == self.best_score[:, None])

    @cached_property
    def is_right(self) -> Bools:
        """Whether each query's route is among its best candidates; a parse failure is never right."""
        return np.asarray(_pick(self.is_best, self.routes) == 1)

    @cached_property
    def score(self) -> Floats:
        """Score of the called candidate's answer to each query; 0 where no LLM is called."""
        return self.of_called(self.scores)

    @cached_property
    def calls(self) -> Floats:
        """1 in the column of each query's called candidate; all 0 where no LLM is called (queries x candidates)."""
        return np.asarray(self.called[:, None] == np.arange(len(self.candidate_names)), dtype=np.float64)

    @cached_property
    def dearest(self) -> float:
        """Mean cost of the dearest candidate on these queries, USD; 0 where costs are unknown."""
        return 0.0 if self.costs is None else float(self.costs.mean(axis=0).max())

    def of_called(self, values: Floats) -> Floats:
        """Return for each query its called candidate's value in a matrix; 0 where no LLM is called."""
        return _pick(values, self.called)

    def column(self, best_single: str) -> int:
        """Return the column of best single.

        Raises:
            ValueError: it is not in the pool.
        """
        if best_single not in self.candidate_names:
            raise ValueError(f"best_single must be {' | '.join(self.candidate_names)}, got {best_single!r}")
        return self.candidate_names.index(best_single)

    def in_order(self, names: Sequence[str]) -> "OutcomeTable":
        """Return the table with its candidates in the order of `names`, which are the same ones."""
        # Where each candidate of the new order stands in the old one; sorting gives the way back, for routes.
        columns = [self.candidate_names.index(name) for name in names]
        # The last place is the one that NOBODY, which is -1, picks.
        places = np.append(np.argsort(columns), NOBODY)
        matrices = {"scores": self.scores, "costs": self.costs, "expected": self.expected, "predicted": self.predicted}
        turned = {key: None if values is None else values[:, columns] for key, values in matrices.items()}
        routes, called = places[self.routes], places[self.called]
        return replace(self, candidate_names=tuple(names), routes=routes, called=called, **turned)  # type: ignore[arg-type]


def outcome_table(outcomes: Sequence[RouteOutcome], names: Sequence[str]) -> OutcomeTable:
    """Return the table of outcomes over the candidates `names`.

    Raises:
        ValueError: there are no outcomes, or the scores, costs, label or route of one do not fit `names`.
    """
    rows = [
        {
            "query_id": outcome.example.query_id,
            "task": outcome.example.task,
            "label": outcome.label,
            "route": outcome.route.candidate,
            "called": outcome.called,
            "scores": outcome.example.scores,
            "costs": outcome.example.costs,
            "expected_scores": outcome.example.expected_scores,
            "predicted": outcome.predicted,
        }
        for outcome in outcomes
    ]
    return row_table(rows, names)


def row_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> OutcomeTable:
    """Return the table of the rows of an outcomes.jsonl over the candidates `names`.

    Older rows lack `costs` or `predicted`, which then count as unknown.

    Raises:
        KeyError: a row lacks `scores`.
        ValueError: there are no rows, or the scores, costs, label or route of one do not fit `names`.
    """
    for row in rows:
        _check_row(row, names)
    # A missing name is NOBODY's.
    columns: dict[str | None, int] = {None: NOBODY, **{name: column for column, name in enumerate(names)}}
    return OutcomeTable(
        candidate_names=tuple(names),
        tasks=tuple(row["task"] for row in rows),
        routes=np.array([columns[row["route"]] for row in rows], dtype=np.int64),
        called=np.array([columns[row["called"]] for row in rows], dtype=np.int64),
        scores=matrix([row["scores"] for row in rows], names),
        costs=known_matrix([row.get("costs") for row in rows], names),
        expected=known_matrix([row.get("expected_scores") for row in rows], names),
        predicted=known_matrix([row.get("predicted") for row in rows], names),
    )


def _check_row(row: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ValueError, naming the query, where a row does not fit the pool."""
    query = f"query {row['query_id']!r}"
    for key in ("scores", "costs", "expected_scores", "predicted"):
        values = row.get(key)
        if values is not None and values.keys() != set(names):
            raise ValueError(f"{query}: {key} must be of the pool {list(names)}, got {list(values)}")
    for key in ("label", "route", "called"):
        # Only a label is never missing: a generation may name nobody, and then nobody may be called.
        if row[key] not in names and (row[key] is not None or key == "label"):
            raise ValueError(f"{query}: {key} must be {' | '.join(names)}, got {row[key]!r}")


def _pick(values: Floats | Bools, columns: Integers) -> Floats:
    """Return each row's value in its column, 0 for NOBODY."""
    # NOBODY picks the last column, a value that is then replaced.
    return np.where(columns == NOBODY, 0.0, values[np.arange(len(values)), columns])
