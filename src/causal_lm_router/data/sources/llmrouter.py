"""The `llmrouter` format: LLMRouter's routing data, JSON lines with a row for each query and candidate.

    {"task_name": text, "query": text, "model_name": candidate, "performance": 0..1,
     "input_tokens"?: count, "output_tokens"?: count, ...}                                  other keys are ignored

`data.path` is a file, a folder (all its `*.jsonl` but the query files, `*query*.jsonl`) or a glob; `train` or `test` in
a file's name sets the split. Rows belong together by split, task and query, in any order. The pool file
(`data.pool_path`, or `default_llm.json` beside the data) gives the pool's order and prices; its candidates without a
single row are left out of the pool. Without one, the pool is the candidates in the order of their first rows. Rows
without `task_name` take the task from the files of `data.query_path`.

The cost of an answer is input_tokens * input_price + output_tokens * output_price, prices in USD per million tokens; a
query with an unknown price or count has no costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, find_pool
from causal_lm_router.data.sources.rows import (
    ExampleCollector,
    known_costs,
    optional_count,
    optional_text,
    require,
    require_text,
)
from causal_lm_router.data.sources.strict_json import decode_line, read_lines
from causal_lm_router.data.sources.tasks import find_tasks
from causal_lm_router.routing import Candidate, RoutingData, check_query, check_score

_QueryKey = tuple[str | None, str, str]
"""Split, task and query."""


@dataclass(slots=True)
class _QueryRows:
    """What the rows of one query say: score and cost of each candidate; `location` is its first row."""

    location: str
    scores: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float | None] = field(default_factory=dict)


class _RowGrouper:
    """Groups rows by query and keeps the candidates in the order of their first rows."""

    def __init__(self, config: DataConfig, known: Sequence[Candidate] | None, tasks: dict[str, str] | None) -> None:
        self._max_query_chars = config.max_query_chars
        self._known = None if known is None else {candidate.name: candidate for candidate in known}
        self._tasks = tasks or {}
        self.candidates: dict[str, Candidate] = {}
        self.queries: dict[_QueryKey, _QueryRows] = {}

    def add(self, row: dict[str, Any], split: str | None, location: str) -> None:
        """File one row under its query; raise ValueError where it cannot be used."""
        query = check_query(require(row, "query"), self._max_query_chars)
        task = optional_text(row, "task_name") or self._tasks.get(query) or require_text(row, "task_name")
        candidate = self._find_candidate(require_text(row, "model_name"))
        score = check_score(require(row, "performance"))
        counts = [optional_count(row, key) for key in ("input_tokens", "output_tokens")]
        rows = self.queries.setdefault((split, intern(task), query), _QueryRows(location))
        if candidate.name in rows.scores:
            raise ValueError(f"candidate {candidate.name!r} has a row for this query already")
        self.candidates[candidate.name] = candidate
        rows.scores[candidate.name] = score
        unknown = counts[0] is None or counts[1] is None
        rows.costs[candidate.name] = None if unknown else answer_cost(candidate, counts[0] or 0.0, counts[1] or 0.0)

    def _find_candidate(self, name: str) -> Candidate:
        if self._known is None:
            return self.candidates.get(name) or Candidate(intern(name))
        if name not in self._known:
            raise ValueError(f"unknown candidate {name!r} (the pool file has {', '.join(self._known)})")
        return self._known[name]


def load(config: DataConfig) -> RoutingData:
    """Return the routing data of LLMRouter's rows; raise ValueError with file and line of a bad row.

    A query without a row for every candidate of the pool is a bad row, at the line of its first row.
    """
    value = require_path("data.path", config.path, "a .jsonl file, a folder of them or a glob")
    paths = find_files("data.path", value, ["*.jsonl"], without="*query*.jsonl")
    collector = ExampleCollector(config)
    known = find_pool(config, paths[0].parent)
    grouper = _RowGrouper(config, known, find_tasks(config, collector))
    for path in paths:
        _group_file(path, grouper, collector)
    if grouper.candidates:
        collector.pool = choose_pool(list(grouper.candidates), known)
    _add_queries(grouper, collector)
    return collector.data()


def _group_file(path: Path, grouper: _RowGrouper, collector: ExampleCollector) -> None:
    split = source_split(path)
    for number, line in read_lines(path):
        location = f"{path}:{number}"
        with collector.row(location):
            grouper.add(decode_line(line), split, location)


def _add_queries(grouper: _RowGrouper, collector: ExampleCollector) -> None:
    for key in list(grouper.queries):
        rows = grouper.queries.pop(key)
        split, task, query = key
        with collector.row(rows.location):
            collector.add(query, rows.scores, known_costs(rows.costs), task, split=split)
