"""The `routerdc` format: RouterDC's score matrix as LLMRouter writes it.

One JSON list of {"question": text, "scores": {candidate: 0..1}, "cluster_id"?: ignored}. `data.path` is such a file, or
a folder that holds `dcrouter_train.json` and `dcrouter_test.json` (one of them is enough). The query files
(`data.query_path`, or `default_query_*.jsonl` beside the data) give the tasks, the pool file (`data.pool_path`, or
`default_llm.json` beside) the pool's order and prices; candidates of the pool file that the data does not score are
left out of the pool. The order of the candidates in a row means nothing: in places it follows their scores.

The format has no token counts: costs are estimated when `data.assumed_output_tokens` is set, else unknown.
Items count from 1 in messages ("file.json: item 12").
"""

from typing import Any

from causal_lm_router.config import RouterDCDataConfig
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.pool import find_pool
from causal_lm_router.data.sources.row_values import require, require_object
from causal_lm_router.data.sources.rows import ALL_TASKS, ExampleCollector
from causal_lm_router.data.sources.strict_json import read_list
from causal_lm_router.data.sources.tasks import QueryRecord, find_query_records
from causal_lm_router.routing import RoutingData

_FILES = ("dcrouter_train.json", "dcrouter_test.json")


def load(config: RouterDCDataConfig) -> RoutingData:
    """Return the routing data of RouterDC's JSON lists.

    Raises:
        ValueError: there is no such file, or a row is bad; the message names its file and item.
    """
    value = require_path("data.path", config.path, f"a .json file, or a folder with {' and '.join(_FILES)}")
    paths = find_files("data.path", value, _FILES)
    beside = paths[0].parent
    collector = ExampleCollector(config, known=find_pool(config, beside))
    records = find_query_records(config, collector, beside)
    for path in paths:
        split = source_split(path)
        for number, item in read_list(path):
            with collector.row(f"{path}: item {number}"):
                _add_row(item.row(), records, split, collector)
    return collector.data()


def _add_row(
    row: dict[str, Any], records: dict[str, QueryRecord] | None, split: str | None, collector: ExampleCollector
) -> None:
    query = require(row, "question")
    record = QueryRecord(ALL_TASKS, None)
    # A query that is no text is left to the collector, whose message is about the query.
    if records is not None and isinstance(query, str) and query.strip():
        if query not in records:
            raise ValueError("the question must be in a query file, which gives its task, but is in none")
        record = records[query]
    scores = require_object(row, "scores")
    collector.add(query, scores, task=record.task, split=split, num_choices=record.num_choices)
