"""The `jsonl` format, this project's own: one JSON object a line, one line a query.

    {"query": "What is 2 + 2?", "scores": {"small": 1.0, "large": 1.0}, "task": "arithmetic",
     "query_id": "sum-1", "costs": {"small": 0.00001, "large": 0.0002}, "split": "train"}

    query     text, required: the query
    scores    object, required: candidate -> score in 0..1; exactly the pool's candidates, in any order
    task      text, optional: the query's task; "all" where no task is given
    query_id  text, optional: unique over all files; where it is not given, a hash of the query's text
    costs     object, optional: candidate -> cost of its answer in USD or null; exactly the pool's candidates
    split     "train", "validation" or "test", optional: the split the source assigns; else what the file's name says
    <column>  text or whole number: the key that `data.group_by` names, if it names one

Files are UTF-8; only a line feed ends a line; blank lines are ignored; null under an optional key means not given; any
other key is a bad row. `data.path` is a file, a folder (all its `*.jsonl`) or a glob. The pool is `data.pool_path`, or
else the candidates of the first row that can be used, in its order.
"""

from pathlib import Path
from typing import Any

from causal_lm_router.config import JsonlDataConfig
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.pool import find_pool
from causal_lm_router.data.sources.row_values import optional_text, require, require_object
from causal_lm_router.data.sources.rows import ALL_TASKS, ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line
from causal_lm_router.routing import RoutingData

_KEYS = frozenset({"query", "scores", "task", "query_id", "costs", "split"})


def load(config: JsonlDataConfig) -> RoutingData:
    """Return the routing data of JSONL files in the schema above.

    Raises:
        ValueError: there is no such file, or a row is bad; the message names its file and line.
    """
    value = require_path("data.path", config.path, "a .jsonl file, a folder of them or a glob")
    collector = ExampleCollector(config, find_pool(config))
    for path in find_files("data.path", value, ["*.jsonl"]):
        _load_file(path, config, collector)
    return collector.data()


def _load_file(path: Path, config: JsonlDataConfig, collector: ExampleCollector) -> None:
    split = source_split(path)
    for line in read_lines(path, config.max_query_chars):
        with collector.row(f"{path}:{line.number}"):
            _add_row(decode_line(line), split, collector)


def _add_row(row: dict[str, Any], file_split: str | None, collector: ExampleCollector) -> None:
    keys = _KEYS if collector.group_column is None else _KEYS | {collector.group_column}
    if not row.keys() <= keys:
        unknown = next(key for key in row if key not in keys)
        raise ValueError(f"unknown key {unknown!r}; the keys are {', '.join(sorted(keys))}")
    # JSON's null under an optional key means that the key is not given.
    scores = require_object(row, "scores")
    costs = None if row.get("costs") is None else require_object(row, "costs")
    # The row's own split wins over the file's name.
    split = file_split if row.get("split") is None else row["split"]
    task = optional_text(row, "task") or ALL_TASKS
    values = (scores, costs, task, optional_text(row, "query_id"), split)
    collector.add(require(row, "query"), *values, group=collector.find_group(row))
