"""What all formats share: from rows to examples over one pool, and what happens to rows that cannot be used."""

import hashlib
import math
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from causal_lm_router.config import DataConfig, OnBadRow
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, count_tokens
from causal_lm_router.routing import (
    Candidate,
    RoutingData,
    RoutingExample,
    SkippedRow,
    check_cost,
    check_query,
    check_score,
)

ALL_TASKS = "all"
"""Task of rows whose source names none."""

_MAX_SHARED_SCORES = 4096


class ExampleCollector:
    """Builds examples over one pool; stops at, or records, the rows that cannot be used.

    Where no `pool` is given, the first usable row fixes it: its candidates, in the order and with the prices of `known`
    where that is given. Rows with equal scores share one mapping, so that a million right-or-wrong rows stay small.
    """

    def __init__(
        self,
        config: DataConfig,
        pool: Sequence[Candidate] | None = None,
        known: Sequence[Candidate] | None = None,
    ) -> None:
        self._config = config
        self._known = known
        self._examples: list[RoutingExample] = []
        self._skip_layers: list[SkippedRow] = []
        self._query_ids: dict[str, int] = {}
        self._shared_scores: dict[tuple[float, ...], dict[str, float]] = {}
        self.pool = pool

    @property
    def pool(self) -> tuple[Candidate, ...] | None:
        """The candidates every example must score, in the order of its scores; None until they are known."""
        return self._pool

    @pool.setter
    def pool(self, pool: Sequence[Candidate] | None) -> None:
        self._pool = None if pool is None else tuple(pool)
        self._names = tuple(sys.intern(candidate.name) for candidate in pool or ())
        self._name_set = set(self._names)

    @contextmanager
    def row(self, location: str) -> Iterator[None]:
        """Guard the work on the row at `location` ("file:line").

        A ValueError inside becomes `ValueError("file:line: reason")` under `data.on_bad_row=error`; under `skip` the
        block ends and the row is recorded as skipped.
        """
        try:
            yield
        except ValueError as error:
            if self._config.on_bad_row is OnBadRow.error:
                raise ValueError(f"{location}: {error}") from error
            self.leave_out(location, str(error))

    def leave_out(self, location: str, reason: str) -> None:
        """Record a row that is left out, whatever `data.on_bad_row` says."""
        self._skip_layers.append(SkippedRow(location, reason))

    def add(
        self,
        query: object,
        scores: Mapping[str, object],
        costs: Mapping[str, object] | None = None,
        task: str = ALL_TASKS,
        query_id: str | None = None,
        split: str | None = None,
    ) -> None:
        """Check one row and add it as an example; raise ValueError where it cannot be used.

        Unknown costs (None) are estimated from the pool's prices if `data.assumed_output_tokens` is set. An example
        without a `query_id` gets the hash of its query; a second such query the hash and "-2", and so on.
        """
        pool_before = self._pool
        if pool_before is None:
            self.pool = choose_pool(list(scores), self._known)
        try:
            text = check_query(query, self._config.max_query_chars)
            checked_scores = self._share(self._complete(scores, check_score, "score"))
            checked_costs = self._estimate_costs(text) if costs is None else self._check_costs(costs)
            unique_id = self._make_id(text) if query_id is None else self._take_id(query_id)
        except ValueError:
            # A row that is bad for another reason must not fix the pool of those that follow.
            self.pool = pool_before
            raise
        self._examples.append(
            RoutingExample(unique_id, text, sys.intern(task), checked_scores, checked_costs, source_split=split)
        )

    def data(self) -> RoutingData:
        """Return everything added so far; raise ValueError where that is nothing."""
        if not self._examples or self._pool is None:
            reason = (
                "no rows" if not self._skip_layers else f"no usable rows: all {len(self._skip_layers):,} were skipped"
            )
            first = "".join(f"; the first is {row.location}: {row.reason}" for row in self._skip_layers[:1])
            raise ValueError(f"data.path={self._config.path!r} holds {reason}{first}")
        return RoutingData(self._examples, self._pool, tuple(self._skip_layers))

    def _complete(self, values: Mapping[str, object], check: Callable[[object], float], what: str) -> list[float]:
        """Return the checked values in pool order; raise ValueError for unknown and missing candidates."""
        if values.keys() != self._name_set:
            raise ValueError(describe_mismatch(values, self._names, what))
        checked = []
        for name in self._names:
            try:
                checked.append(check(values[name]))
            except ValueError as error:
                raise ValueError(f"candidate {name!r}: {error}") from None
        return checked

    def _check_costs(self, costs: Mapping[str, object]) -> dict[str, float]:
        return dict(zip(self._names, self._complete(costs, check_cost, "cost"), strict=True))

    def _share(self, scores: list[float]) -> dict[str, float]:
        key = tuple(scores)
        shared = self._shared_scores.get(key)
        if shared is None:
            shared = dict(zip(self._names, key, strict=True))
            if len(self._shared_scores) < _MAX_SHARED_SCORES:
                self._shared_scores[key] = shared
        return shared

    def _estimate_costs(self, query: str) -> dict[str, float] | None:
        output_tokens = self._config.assumed_output_tokens
        if output_tokens is None or self._pool is None:
            return None
        costs = {candidate.name: answer_cost(candidate, count_tokens(query), output_tokens) for candidate in self._pool}
        return known_costs(costs)

    def _take_id(self, query_id: str) -> str:
        if query_id in self._query_ids:
            raise ValueError(f"query_id {query_id!r} stands twice")
        self._query_ids[query_id] = 1
        return query_id

    def _make_id(self, query: str) -> str:
        made = query_id = hash_query(query)
        while query_id in self._query_ids:
            self._query_ids[made] += 1
            query_id = f"{made}-{self._query_ids[made]}"
        self._query_ids[query_id] = 1
        return query_id


def hash_query(query: str) -> str:
    """Return 16 hexadecimal digits that name the query's text, whatever its case and white space.

    Raises ValueError for a text with half a surrogate pair: it cannot be written as UTF-8.
    """
    normalised = " ".join(query.casefold().split())
    try:
        return hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).hexdigest()
    except UnicodeEncodeError as error:
        half = ascii(normalised[error.start])
        raise ValueError(f"query holds half a surrogate pair ({half}), which is no character") from None


def known_costs(costs: Mapping[str, float | None]) -> dict[str, float] | None:
    """Return the costs where every one is known, else None: costs of some candidates alone mislead."""
    known = {name: cost for name, cost in costs.items() if cost is not None}
    return known if len(known) == len(costs) else None


def describe_mismatch(values: Mapping[str, object], names: Sequence[str], what: str) -> str:
    """Return what keeps the keys of `values` from being exactly the pool's `names`."""
    unknown = [f"unknown candidate {name!r}" for name in values if name not in names]
    missing = [f"no {what} for candidate {name!r}" for name in names if name not in values]
    return f"{'; '.join(unknown + missing)} (the pool is {', '.join(names)})"


def require_text(row: Mapping[str, Any], key: str) -> str:
    """Return the text under `key`; raise ValueError where it is missing, blank or no text."""
    value = require(row, key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {reprlib.repr(value)}, not a text with something in it")
    return value


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """Return the text under `key`, None where it is missing or null; raise ValueError where it is blank or no text."""
    return None if row.get(key) is None else require_text(row, key)


def require_object(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`; raise ValueError where it is missing or no object."""
    value = require(row, key)
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} is {reprlib.repr(value)}, not an object of candidates")
    return value


def optional_count(row: Mapping[str, Any], key: str) -> float | None:
    """Return the number of tokens under `key`, None where it is missing or null; raise ValueError where it is none."""
    value = row.get(key)
    if value is None:
        return None
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not is_count:
        raise ValueError(f"{key!r} is {reprlib.repr(value)}, not a number of tokens")
    return float(value)


def require(row: Mapping[str, Any], key: str) -> Any:
    """Return the value under `key`; raise ValueError where it is missing."""
    if key not in row:
        raise ValueError(f"key {key!r} is missing")
    return row[key]
