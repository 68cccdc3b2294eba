"""The part that all formats share: from rows to examples over one pool, with bad rows refused or skipped."""

import hashlib
import math
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from causal_lm_router.config import FileDataConfig, OnBadRow
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
from causal_lm_router.terminal import progress_bar

ALL_TASKS = "all"
"""Task of rows whose source names none."""

_MAX_SHARED_SCORES = 4096
"""Different score rows that are kept for sharing; right-or-wrong data has few, graded data has too many to gain."""


class ExampleCollector:
    """Builds examples over one pool; rows that cannot be used stop it or are recorded, as configured.

    Where no `pool` is given, the first usable row sets it: its candidates, in the order and with the prices of `known`
    if that is given. Rows with equal scores share one mapping, so that a million right-or-wrong rows stay small.
    """

    def __init__(
        self,
        config: FileDataConfig,
        pool: Sequence[Candidate] | None = None,
        known: Sequence[Candidate] | None = None,
    ) -> None:
        self._config = config
        self._known = known
        self._examples: list[RoutingExample] = []
        self._skipped_rows: list[SkippedRow] = []
        self._query_ids: dict[str, int] = {}
        self._shared_scores: dict[tuple[float, ...], dict[str, float]] = {}
        self._bar = progress_bar(name="reading data", unit="queries")
        self.pool = pool

    @property
    def pool(self) -> tuple[Candidate, ...] | None:
        """The candidates that every example must score, in the order of its scores; None until they are known."""
        return self._pool

    @pool.setter
    def pool(self, pool: Sequence[Candidate] | None) -> None:
        self._pool = None if pool is None else tuple(pool)
        self._candidate_names = tuple(sys.intern(candidate.name) for candidate in pool or ())
        self._name_set = set(self._candidate_names)

    @contextmanager
    def row(self, location: str) -> Iterator[None]:
        """Guard the work on the row at `location` ("file:line").

        Under `data.on_bad_row=skip` a ValueError in the block ends the block, and the row is recorded as skipped.

        Raises:
            ValueError: the block raised one, under `data.on_bad_row=error`; the message starts with `location`.
        """
        try:
            yield
        except ValueError as error:
            if self._config.on_bad_row is OnBadRow.error:
                raise ValueError(f"{location}: {error}") from error
            self.leave_out(location, str(error))

    def leave_out(self, location: str, reason: str) -> None:
        """Record a row as skipped, under any `data.on_bad_row`."""
        self._skipped_rows.append(SkippedRow(location, reason))

    def add(
        self,
        query: object,
        scores: Mapping[str, object],
        costs: Mapping[str, object] | None = None,
        task: str = ALL_TASKS,
        query_id: str | None = None,
        split: str | None = None,
    ) -> None:
        """Check one row and add it as an example.

        Unknown costs (None) are estimated from the pool's prices if `data.assumed_output_tokens` is set. An example
        without a `query_id` gets the hash of its query; a second one of the same query the hash and "-2", and so on.

        Raises:
            ValueError: the row cannot be used.
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
            # A bad row must not set the pool of the rows after it.
            self.pool = pool_before
            raise
        self._bar.update()
        self._examples.append(
            RoutingExample(unique_id, text, sys.intern(task), checked_scores, checked_costs, source_split=split)
        )

    def data(self) -> RoutingData:
        """Return everything added so far.

        Raises:
            ValueError: nothing was added; the message gives the first skipped row.
        """
        self._bar.close()
        if not self._examples or self._pool is None:
            skipped = self._skipped_rows
            reason = f"no usable rows: all {len(skipped):,} were skipped" if skipped else "no rows"
            first = "".join(f"; the first is {row.location}: {row.reason}" for row in skipped[:1])
            raise ValueError(f"data.path={self._config.path!r} has {reason}{first}")
        return RoutingData(self._examples, self._pool, tuple(self._skipped_rows))

    def _complete(self, values: Mapping[str, object], check: Callable[[object], float], what: str) -> list[float]:
        """Return the checked values in pool order, and refuse unknown and missing candidates."""
        if values.keys() != self._name_set:
            raise ValueError(describe_mismatch(values, self._candidate_names, what))
        checked = []
        for name in self._candidate_names:
            try:
                checked.append(check(values[name]))
            except ValueError as error:
                raise ValueError(f"candidate {name!r}: {error}") from None
        return checked

    def _check_costs(self, costs: Mapping[str, object]) -> dict[str, float]:
        return dict(zip(self._candidate_names, self._complete(costs, check_cost, "cost"), strict=True))

    def _share(self, scores: list[float]) -> dict[str, float]:
        key = tuple(scores)
        shared = self._shared_scores.get(key)
        if shared is None:
            shared = dict(zip(self._candidate_names, key, strict=True))
            # With a limit, so that graded scores, which rarely repeat, are not all held twice.
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
            raise ValueError(f"query_id {query_id!r} appears twice")
        self._query_ids[query_id] = 1
        return query_id

    def _make_id(self, query: str) -> str:
        # `_query_ids` counts how often each hash was given out. The loop skips ids that a source gave in this form.
        made = query_id = hash_query(query)
        while query_id in self._query_ids:
            self._query_ids[made] += 1
            query_id = f"{made}-{self._query_ids[made]}"
        self._query_ids[query_id] = 1
        return query_id


def hash_query(query: str) -> str:
    """Return 16 hexadecimal digits that identify the query's text up to case and white space.

    Raises:
        ValueError: the text holds half a surrogate pair, which cannot be written as UTF-8.
    """
    normalised = " ".join(query.casefold().split())
    try:
        return hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).hexdigest()
    except UnicodeEncodeError as error:
        half = ascii(normalised[error.start])
        raise ValueError(f"query holds half a surrogate pair ({half}), which is no character") from None


def known_costs(costs: Mapping[str, float | None]) -> dict[str, float] | None:
    """Return the costs if all are known, else None: costs of only some candidates would mislead."""
    known = {name: cost for name, cost in costs.items() if cost is not None}
    return known if len(known) == len(costs) else None


def describe_mismatch(values: Mapping[str, object], candidate_names: Sequence[str], what: str) -> str:
    """Return a text with the candidates that `values` lacks and those that are not of the pool."""
    unknown = [f"unknown candidate {name!r}" for name in values if name not in candidate_names]
    missing = [f"no {what} for candidate {name!r}" for name in candidate_names if name not in values]
    return f"{'; '.join(unknown + missing)} (the pool is {', '.join(candidate_names)})"


def require_text(row: Mapping[str, Any], key: str) -> str:
    """Return the text under `key`.

    Raises:
        ValueError: it is missing, blank or no text.
    """
    value = require(row, key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} must be a text that is not blank, got {reprlib.repr(value)}")
    return value


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """Return the text under `key`, or None where it is missing or null.

    Raises:
        ValueError: it is blank or no text.
    """
    return None if row.get(key) is None else require_text(row, key)


def require_object(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`.

    Raises:
        ValueError: it is missing or no object.
    """
    value = require(row, key)
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} must be an object of candidates, got {reprlib.repr(value)}")
    return value


def optional_count(row: Mapping[str, Any], key: str) -> float | None:
    """Return the number of tokens under `key`, or None where it is missing or null.

    Raises:
        ValueError: it is not a finite number of at least 0.
    """
    value = row.get(key)
    if value is None:
        return None
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not is_count:
        raise ValueError(f"{key!r} must be a number of tokens, got {reprlib.repr(value)}")
    return float(value)


def require(row: Mapping[str, Any], key: str) -> Any:
    """Return the value under `key`.

    Raises:
        ValueError: it is missing.
    """
    if key not in row:
        raise ValueError(f"key {key!r} is missing")
    return row[key]
