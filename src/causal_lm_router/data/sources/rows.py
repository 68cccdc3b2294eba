"""The part that all formats share: from rows to examples over one pool, with bad rows refused or skipped."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from causal_lm_router.config import BY_TASK, DataConfig, FileDataConfig, OnBadRow, OwnDataConfig, Split
from causal_lm_router.config.checks import one_of
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, count_tokens
from causal_lm_router.data.sources.row_values import require
from causal_lm_router.routing import (
    Candidate,
    CandidateNumbers,
    RoutingData,
    RoutingExample,
    SkippedRow,
    check_cost,
    check_query,
    check_score,
    check_text,
)
from causal_lm_router.terminal import progress_bar

SPLITS = tuple(split.value for split in Split)
"""Names of the splits that a source may assign."""
ALL_TASKS = "all"
"""Task of rows whose source names none."""

_MAX_SHARED_SCORES = 4096
"""Different score rows that are kept for sharing; right-or-wrong data has few, graded data has too many to gain."""


_MAX_LISTED = 30
"""Candidates that a message lists."""


class ExampleCollector:
    """Builds examples over one pool; rows that cannot be used stop it or are recorded, as configured.

    Where no `pool` is given, the first usable row sets it: its candidates, in the order and with the prices of `known`
    if that is given. Rows with equal scores share one mapping, so that a million right-or-wrong rows stay small.
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
        self._skipped_rows: list[SkippedRow] = []
        self._query_ids: dict[str, int] = {}
        self._unpriced: set[str] = set()
        self._warnings: list[str] = []
        self._shared_scores: dict[tuple[float, ...], CandidateNumbers] = {}
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
        self._columns = {name: column for column, name in enumerate(self._candidate_names)}
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

    def warn(self, sentence: str) -> None:
        """Add a warning about the data."""
        self._warnings.append(sentence)

    @property
    def group_column(self) -> str | None:
        """The column of the source's own that `data.group_by` names; None if it names none, or the task."""
        return None if self._config.group_by == BY_TASK else self._config.group_by

    def find_group(self, row: Mapping[str, object]) -> str | None:
        """Return the row's value in `group_column`, None where there is no such column.

        Raises:
            ValueError: the row lacks the column, or its value is blank or neither a text nor a whole number.
        """
        column = self.group_column
        if column is None:
            return None
        value = require(row, column)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ValueError(f"{column!r}, which is data.group_by, must be a text or a whole number, got {value!r}")
        # Interned, since many queries share it.
        return sys.intern(check_text(str(value), column))

    def add(
        self,
        query: object,
        scores: Mapping[str, object],
        costs: Mapping[str, object] | None = None,
        task: str = ALL_TASKS,
        query_id: str | None = None,
        split: object = None,
        expected: Mapping[str, object] | None = None,
        family: str | None = None,
        group: str | None = None,
        num_choices: int | None = None,
    ) -> None:
        """Check one row and add it as an example.

        Under `data.group_by=task` the task is its group.

        Costs of which one is unknown (None) are unknown as a whole: those of only some candidates would mislead. They
        are estimated from the pool's prices if `data.assumed_output_tokens` is set. An example without a `query_id`
        gets the hash of its query; a second one of the same query the hash and "-2", and so on.

        Raises:
            ValueError: the row cannot be used.
        """
        pool_before = self._pool
        if pool_before is None:
            self.pool = choose_pool(list(scores), self._known)
        try:
            text = check_query(query, self._config.max_query_chars)
            checked_scores = self._share(self._complete(scores, check_score, "score"))
            known_costs = (None if costs is None else self._check_costs(costs)) or self._estimate_costs(text)
            checked_expected = (
                None if expected is None else self._check_numbers(expected, check_score, "expected score")
            )
            check_text(task, "task")
            if split not in (*SPLITS, None):
                raise ValueError(f"split must be {one_of(SPLITS)}, got {split!r}")
            unique_id = self._make_id(text) if query_id is None else self._take_id(query_id)
        except ValueError:
            # A bad row must not set the pool of the rows after it.
            self.pool = pool_before
            raise
        self._bar.update()
        source_split = None if split is None else str(split)
        if self._config.group_by == BY_TASK:
            group = task
        values = (checked_scores, known_costs, checked_expected, source_split, family, group, num_choices)
        self._examples.append(RoutingExample(unique_id, text, sys.intern(task), *values))

    def data(self) -> RoutingData:
        """Return everything added so far.

        Raises:
            ValueError: nothing was added; the message gives the first skipped row.
        """
        self._bar.close()
        self._check_use_of_prices()
        if not self._examples or self._pool is None:
            skipped = self._skipped_rows
            reason = f"no usable rows: all {len(skipped):,} were skipped" if skipped else "no rows"
            first = "".join(f"; the first is {row.location}: {row.reason}" for row in skipped[:1])
            key = "function" if isinstance(self._config, OwnDataConfig) else "path"
            raise ValueError(f"data.{key}={getattr(self._config, key)!r} has {reason}{first}")
        warnings = (*self._warnings, *self._warn_of_unknown_costs())
        return RoutingData(self._examples, self._pool, tuple(self._skipped_rows), warnings)

    def _check_use_of_prices(self) -> None:
        tokens = self._config.assumed_output_tokens if isinstance(self._config, FileDataConfig) else None
        lacking = [one.name for one in self._pool or () if answer_cost(one, 0, 0) is None]
        if tokens is not None and lacking:
            raise ValueError(
                f"data.assumed_output_tokens must be null where prices are unknown, got {tokens}: data.pool_path gives "
                f"no prices for {_list_some(lacking, ', ')}"
            )

    def _warn_of_unknown_costs(self) -> Iterator[str]:
        num_unknown = sum(example.costs is None for example in self._examples)
        # Where no cost is known at all, nobody expects any.
        if self._unpriced or 0 < num_unknown < len(self._examples):
            missing = ", ".join(name for name in self._candidate_names if name in self._unpriced)
            yield (
                f"costs are unknown on {num_unknown:,} of {len(self._examples):,} queries"
                + (f", where {missing} {'has' if len(self._unpriced) == 1 else 'have'} none" if missing else "")
                + ": no mean cost is reported, and no candidate counts as the cheapest by costs."
            )

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

    def _check_numbers(
        self, values: Mapping[str, object], check: Callable[[object], float], what: str
    ) -> CandidateNumbers:
        return CandidateNumbers(self._columns, self._complete(values, check, what))

    def _check_costs(self, costs: Mapping[str, object]) -> CandidateNumbers | None:
        """Return the costs; None where one of them is unknown, whose candidate is remembered."""
        unknown = [name for name, cost in costs.items() if cost is None]
        # The others are checked all the same.
        checked = self._check_numbers(
            {name: 0 if cost is None else cost for name, cost in costs.items()}, check_cost, "cost"
        )
        if len(unknown) < len(costs):
            self._unpriced.update(unknown)
        return None if unknown else checked

    def _share(self, scores: list[float]) -> CandidateNumbers:
        key = tuple(scores)
        shared = self._shared_scores.get(key)
        if shared is None:
            shared = CandidateNumbers(self._columns, key)
            # With a limit, so that graded scores, which rarely repeat, are not all held twice.
            if len(self._shared_scores) < _MAX_SHARED_SCORES:
                self._shared_scores[key] = shared
        return shared

    def _estimate_costs(self, query: str) -> CandidateNumbers | None:
        output_tokens = self._config.assumed_output_tokens if isinstance(self._config, FileDataConfig) else None
        if output_tokens is None or self._pool is None:
            return None
        costs = {one.name: answer_cost(one, count_tokens(query), output_tokens) for one in self._pool}
        known = {name: cost for name, cost in costs.items() if cost is not None}
        return CandidateNumbers(self._columns, known.values()) if len(known) == len(costs) else None

    def _take_id(self, query_id: str) -> str:
        if check_text(query_id, "query_id") in self._query_ids:
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
    """Return 16 hexadecimal digits that identify the query's text up to case and white space."""
    normalised = " ".join(query.casefold().split())
    return hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).hexdigest()


def describe_mismatch(values: Mapping[str, object], candidate_names: Sequence[str], what: str) -> str:
    """Return a text with the candidates that `values` lacks and those that are not of the pool."""
    pool = set(candidate_names)
    unknown = [f"unknown candidate {name!r}" for name in values if name not in pool]
    missing = [f"no {what} for candidate {name!r}" for name in candidate_names if name not in values]
    return f"{_list_some(unknown + missing, '; ')} (the pool is {_list_some(candidate_names, ', ')})"


def _list_some(texts: Sequence[str], separator: str) -> str:
    more = [f"{len(texts) - _MAX_LISTED:,} more"] if len(texts) > _MAX_LISTED else []
    return separator.join([*texts[:_MAX_LISTED], *more])
