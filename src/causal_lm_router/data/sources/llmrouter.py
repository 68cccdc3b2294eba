"""The `llmrouter` format: LLMRouter's routing data, JSON lines with a row for each query and candidate.

    {"task_name": text, "query": text, "model_name": candidate, "performance": 0..1,
     "input_tokens"?: count, "output_tokens"?: count, ...}                                  other keys are ignored

`data.path` is a file, a folder (all its `*.jsonl` except the query files, `*query*.jsonl`) or a glob; `train` or `test`
in a file's name sets the split. Rows of the same split, task and query form one example; they may be in any order. The
pool file (`data.pool_path`, or `default_llm.json` beside the data) gives the pool's order and prices; its candidates
without any row are left out of the pool. Without a pool file, the pool is the candidates in the order of their first
rows. Rows without `task_name` take the task from the files of `data.query_path`.

The cost of an answer is input_tokens * input_price + output_tokens * output_price, prices in USD per million tokens; a
query with an unknown price or count has no costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

from causal_lm_router.config import LLMRouterDataConfig
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, find_pool
from causal_lm_router.data.sources.row_values import optional_count, optional_text, require, require_text
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line
from causal_lm_router.data.sources.tasks import QueryRecord, find_query_records
from causal_lm_router.routing import FEWEST_QUERIES, Candidate, RoutingData, check_query, check_score

_COUNTS = ("input_tokens", "output_tokens")
_QueryKey = tuple[str | None, str, str]
"""Split, task and query."""


@dataclass(slots=True)
class _QueryRows:
    """Score and cost of each candidate from the rows of one query; `location` is that of the first row."""

    location: str
    num_choices: int | None
    scores: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float | None] = field(default_factory=dict)


class _RowGrouper:
    """Groups rows by query and keeps the candidates in the order of their first rows."""

    def __init__(
        self,
        config: LLMRouterDataConfig,
        known: Sequence[Candidate] | None,
        records: dict[str, QueryRecord] | None,
    ) -> None:
        self._max_query_chars = config.max_query_chars
        self._known = None if known is None else {candidate.name: candidate for candidate in known}
        self._records = records or {}
        self._counts: dict[tuple[str, str], set[float]] = {}
        self.candidates: dict[str, Candidate] = {}
        self.queries: dict[_QueryKey, _QueryRows] = {}

    def add(self, row: dict[str, Any], split: str | None, location: str) -> None:
        """Add one row to those of its query.

        Raises:
            ValueError: the row cannot be used.
        """
        query = check_query(require(row, "query"), self._max_query_chars)
        record = self._records.get(query, QueryRecord("", None))
        task = optional_text(row, "task_name") or record.task or require_text(row, "task_name")
        candidate = self._find_candidate(require_text(row, "model_name"))
        score = check_score(require(row, "performance"))
        # All values are checked before anything is stored, so that a skipped row leaves nothing behind.
        counts = [optional_count(row, key) for key in _COUNTS]
        # Interned, since millions of rows repeat a few task and candidate names.
        rows = self.queries.setdefault((split, intern(task), query), _QueryRows(location, record.num_choices))
        if candidate.name in rows.scores:
            raise ValueError(f"candidate {candidate.name!r} already has a row for this query")
        self.candidates[candidate.name] = candidate
        for key, count in zip(_COUNTS, counts, strict=True):
            seen = self._counts.setdefault((key, candidate.name), set())
            # Two are enough to know that they vary.
            if count is not None and len(seen) < 2:
                seen.add(count)
        rows.scores[candidate.name] = score
        unknown = counts[0] is None or counts[1] is None
        rows.costs[candidate.name] = None if unknown else answer_cost(candidate, counts[0] or 0.0, counts[1] or 0.0)

    def constant_counts(self) -> dict[str, list[str]]:
        """Return `input_tokens` and `output_tokens`, each with the candidates that have the same number in all rows."""
        return {
            key: [name for (of, name), seen in self._counts.items() if of == key and len(seen) == 1] for key in _COUNTS
        }

    def _find_candidate(self, name: str) -> Candidate:
        if self._known is None:
            return self.candidates.get(name) or Candidate(intern(name))
        if name not in self._known:
            raise ValueError(f"unknown candidate {name!r} (the pool file has {', '.join(self._known)})")
        return self._known[name]


def load(config: LLMRouterDataConfig) -> RoutingData:
    """Return the routing data of LLMRouter's rows.

    Raises:
        ValueError: there is no such file, or a row is bad; the message names its file and line. A query without a row
            for every candidate of the pool is a bad row, at the line of its first row.
    """
    value = require_path("data.path", config.path, "a .jsonl file, a folder of them or a glob")
    paths = find_files("data.path", value, ["*.jsonl"], without="*query*.jsonl")
    collector = ExampleCollector(config)
    known = find_pool(config, paths[0].parent)
    grouper = _RowGrouper(config, known, find_query_records(config, collector))
    for path in paths:
        _group_file(path, config, grouper, collector)
    # The pool is known only now: it has the candidates that have rows.
    if grouper.candidates:
        collector.pool = choose_pool(list(grouper.candidates), known)
    if len(grouper.queries) >= FEWEST_QUERIES:
        for key, names in grouper.constant_counts().items():
            if names:
                collector.warn(
                    f"{key} of {', '.join(names)} is the same in all rows, though it follows the lengths of query and "
                    "answer: costs made of it say little. If it is not known, leave it out."
                )
    _add_queries(grouper, collector)
    return collector.data()


def _group_file(path: Path, config: LLMRouterDataConfig, grouper: _RowGrouper, collector: ExampleCollector) -> None:
    split = source_split(path)
    for line in read_lines(path, config.max_query_chars):
        location = f"{path}:{line.number}"
        with collector.row(location):
            grouper.add(decode_line(line), split, location)


def _add_queries(grouper: _RowGrouper, collector: ExampleCollector) -> None:
    # Popped one by one: the grouped rows shrink as the examples grow, so the data is not held twice.
    for key in list(grouper.queries):
        rows = grouper.queries.pop(key)
        split, task, query = key
        with collector.row(rows.location):
            collector.add(query, rows.scores, rows.costs, task, split=split, num_choices=rows.num_choices)
