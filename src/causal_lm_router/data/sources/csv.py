"""The `csv` format: a table with one row a query and one column a candidate.

    query,task,small,large,small_cost,large_cost
    What is 2 + 2?,arithmetic,1.0,1.0,0.00001,0.0002

    query             text, required
    task              optional: the query's task; "all" where no task is given
    query_id          optional: unique over all files; where it is not given, a hash of the query's text
    split             "train", "validation" or "test", optional: the split the source assigns; else what the file's
                      name says
    <column>          text: the column that `data.group_by` names, if it names one
    <candidate>       score in 0..1 (or True and False); every column with another name is a candidate
    <candidate>_cost  optional: cost of the candidate's answer in USD; an empty cell is an unknown cost

Files are UTF-8 with a header, commas and double quotes, as spreadsheets write them; an empty cell of an optional column
means not given. `data.path` is a file, a folder (all its `*.csv`) or a glob. The pool is `data.pool_path`, or else the
candidates of the first file, in the order of their columns. Messages name the line on which a row ends.
"""

from pathlib import Path

from causal_lm_router.config import CsvDataConfig
from causal_lm_router.data.sources.csv_rows import open_csv, read_number
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.pool import find_pool
from causal_lm_router.data.sources.rows import ALL_TASKS, ExampleCollector
from causal_lm_router.routing import RoutingData

_QUERY = "query"
_OPTIONAL = ("task", "query_id", "split")
_COST = "_cost"


def load(config: CsvDataConfig) -> RoutingData:
    """Return the routing data of CSV files in the form above.

    Raises:
        ValueError: there is no such file, or a header or a row is bad; the message names its file and line.
    """
    value = require_path("data.path", config.path, "a .csv file, a folder of them or a glob")
    collector = ExampleCollector(config, find_pool(config))
    for path in find_files("data.path", value, ["*.csv"]):
        _load_file(path, config, collector)
    return collector.data()


def _load_file(path: Path, config: CsvDataConfig, collector: ExampleCollector) -> None:
    split = source_split(path)
    with open_csv(path, config.max_query_chars) as (columns, rows):
        candidates, costs = _name_columns(path, columns, collector.group_column)
        for row in rows:
            with collector.row(f"{path}:{row.line_number}"):
                _add_row(row.by_column(columns), candidates, costs, split, collector)


def _name_columns(path: Path, columns: list[str], group_by: str | None) -> tuple[list[str], list[str]]:
    """Return the candidates, and those with a column of costs."""
    if _QUERY not in columns:
        hint = "columns must have commas between them" if len(columns) == 1 else "data=hub takes columns of any name"
        raise ValueError(f"{path}:1: column {_QUERY!r} is missing; the columns are {', '.join(columns)} ({hint})")
    if group_by is not None and group_by not in columns:
        raise ValueError(f"{path}:1: column {group_by!r}, which is data.group_by, is missing")
    others = [name for name in columns if name not in (_QUERY, *_OPTIONAL, group_by)]
    # A cost belongs to a candidate: without one, such a column is a candidate of that name.
    costs = [name for name in others if name + _COST in others]
    return [name for name in others if name.removesuffix(_COST) == name or name[: -len(_COST)] not in costs], costs


def _add_row(
    cells: dict[str, str], candidates: list[str], costs: list[str], split: str | None, collector: ExampleCollector
) -> None:
    task, query_id, own_split = (cells.get(name, "").strip() or None for name in _OPTIONAL)
    scores = {name: _read_score(name, cells[name]) for name in candidates}
    known = {name: read_number(cells[name + _COST]) for name in costs}
    # The row's own split wins over the file's name.
    values = (scores, known or None, task or ALL_TASKS, query_id, own_split or split)
    collector.add(cells[_QUERY], *values, group=collector.find_group(cells))


def _read_score(name: str, cell: str) -> object:
    score = read_number(cell)
    if not isinstance(score, float | bool):
        raise ValueError(
            f"column {name!r} must hold scores in 0..1, got {cell!r}: all columns but query, task, query_id, split and "
            "<candidate>_cost are candidates"
        )
    return score
