"""The `hub` format: any dataset that `datasets.load_dataset` reads, through a column mapping.

`data.path` is a hub name, a folder of data files, or one `.parquet`, `.csv`, `.json` or `.jsonl` file;
`data.hub_config` and `data.hub_split` choose within it. `data.columns` maps its columns:

    query     column of the query's text
    task      column of the task (a text or a number), or null: all rows are the task "all"
    query_id  column of a unique id (a text or a number), or null: a hash of the query's text
    scores    candidate -> column of its score in data.score_range: the pool, in this order; null for a candidate that
              the others are judged by, whose score is always the highest
    costs     candidate -> column of its cost in USD, for each candidate or for none

`data.pool_path` adds prices (and sets the pool's order). A split named `train`, `validation` or `test` becomes the
source's split. Rows count from 1 in messages ("name[split]: row 11").
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.config import HubDataConfig
from causal_lm_router.data.sources.files import require_path
from causal_lm_router.data.sources.pool import choose_pool, find_pool
from causal_lm_router.data.sources.rows import ALL_TASKS, SPLITS, ExampleCollector
from causal_lm_router.routing import Candidate, RoutingData

if TYPE_CHECKING:
    from datasets import Dataset

_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_BATCH_ROWS = 1000


def load(config: HubDataConfig) -> RoutingData:
    """Return the routing data of a dataset.

    Raises:
        ValueError: the dataset cannot be loaded, lacks a mapped column, or has a bad row; the message names its number.
    """
    columns = config.columns
    path = require_path("data.path", config.path, "a hub name, a folder or a data file")
    collector = ExampleCollector(config, _choose_pool(config))
    dataset = _load_dataset(path, config)
    # A slice such as "train[:100]" is no split of the source: its rows may be split again.
    split = config.hub_split if config.hub_split in SPLITS else None
    for number, cells in enumerate(_read_rows(dataset, config, collector.group_column), start=1):
        with collector.row(f"{path}[{config.hub_split}]: row {number}"):
            costs = _pick(cells, columns.costs) if columns.costs else None
            task = ALL_TASKS if columns.task is None else _to_text(cells, columns.task)
            query_id = None if columns.query_id is None else _to_text(cells, columns.query_id)
            values = (_find_scores(cells, config), costs, task, query_id, split)
            collector.add(cells[columns.query], *values, group=collector.find_group(cells))
    return collector.data()


def _choose_pool(config: HubDataConfig) -> tuple[Candidate, ...]:
    try:
        return choose_pool(list(config.columns.scores), find_pool(config))
    except ValueError as error:
        raise ValueError(f"data.columns.scores: {error}") from None


def _load_dataset(path: str, config: HubDataConfig) -> "Dataset":
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    builder = _BUILDERS.get(Path(path).suffix) if Path(path).is_file() else None
    if builder is not None and config.hub_config is not None:
        raise ValueError(f"data.hub_config must be null where data.path is one file, got {config.hub_config!r}")
    try:
        if builder is not None:
            # A single file is one split. It gets the name that is asked for, without a slice such as "[:100]".
            return load_dataset(builder, data_files={config.hub_split.split("[")[0]: path}, split=config.hub_split)
        return load_dataset(path, config.hub_config, split=config.hub_split)
    except (DatasetsError, OSError, ValueError) as error:
        wanted = f"data.path={path!r}, data.hub_config={config.hub_config!r}, data.hub_split={config.hub_split!r}"
        raise ValueError(f"{wanted}: cannot be loaded: {error.__cause__ or error}") from error


def _read_rows(dataset: "Dataset", config: HubDataConfig, group_column: str | None) -> Iterator[dict[str, Any]]:
    """Yield column -> cell of every row, read in batches and without the columns that are not mapped."""
    # Keys as in the config, so that the message about a missing column names the setting to change.
    columns = config.columns
    named = {"query": columns.query, "task": columns.task, "query_id": columns.query_id}
    named |= {f"scores.{name}": column for name, column in columns.scores.items()}
    named |= {f"costs.{name}": column for name, column in columns.costs.items()}
    wanted = {f"columns.{key}": column for key, column in named.items() if column is not None}
    if group_column is not None:
        wanted["group_by"] = group_column
    for key, column in wanted.items():
        if column not in dataset.column_names:
            listed = ", ".join(dataset.column_names)
            raise ValueError(f"data.{key} must be a column of {config.path} ({listed}), got {column!r}")
    # `sorted(set(...))`: two keys may map to the same column.
    for batch in dataset.select_columns(sorted(set(wanted.values()))).iter(batch_size=_BATCH_ROWS):
        for cells in zip(*batch.values(), strict=True):
            yield dict(zip(batch, cells, strict=True))


def _find_scores(cells: Mapping[str, Any], config: HubDataConfig) -> dict[str, Any]:
    """Return the scores of a row, brought from `data.score_range` to 0..1.

    Raises:
        ValueError: a score is not in the range.
    """
    low, high = config.score_range
    scores: dict[str, Any] = {}
    for name, column in config.columns.scores.items():
        score = high if column is None else cells[column]
        # Of 0..1 every row is checked anyway.
        if (low, high) != (0.0, 1.0):
            if isinstance(score, bool) or not isinstance(score, int | float) or not low <= score <= high:
                raise ValueError(f"column {column!r} must be a number in {low:g}..{high:g}, got {score!r}")
            score = (score - low) / (high - low)
        scores[name] = score
    return scores


def _pick(cells: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return {candidate: cells[column] for candidate, column in columns.items()}


def _to_text(cells: Mapping[str, Any], column: str) -> str:
    cell = cells[column]
    if isinstance(cell, bool) or not isinstance(cell, str | int) or not str(cell).strip():
        raise ValueError(f"column {column!r} must be a text or a number, got {cell!r}")
    return str(cell)
