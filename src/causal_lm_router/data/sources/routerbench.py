"""The `routerbench` format: RouterBench's wide table (arXiv 2403.12031; hub: withmartian/routerbench).

One row per query with the columns `sample_id`, `prompt`, `eval_name` (the task) and, for each candidate, `<candidate>`
(its score) and `<candidate>|total_cost` (USD); the candidates are the columns that have such a cost column, in their
order. Other columns are ignored. A prompt that is a list of turns, or such a list written as text ("['...']"), becomes
its turns with an empty line between them, see `turns.py`; an empty cell of a cost is an unknown cost.

`data.path` is a `.csv`, `.parquet` or pickled (`.pkl`, `.pickle`) table; without one the zero-shot table is downloaded
from the hub. Pickles are read only under `data.allow_pickle=true`, since reading one runs any code its author put in.
Messages name the line of a row in a CSV ("file.csv:12"), else its number from 1 ("file.pkl: row 11").
"""

from pathlib import Path
from typing import Any

from causal_lm_router.config import RouterBenchDataConfig
from causal_lm_router.data.sources.csv_rows import read_number
from causal_lm_router.data.sources.pool import choose_pool, find_pool
from causal_lm_router.data.sources.row_values import require_text
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.data.sources.tables import PICKLE_SUFFIXES, Table, open_table
from causal_lm_router.data.sources.turns import join_turns
from causal_lm_router.routing import RoutingData

HUB_NAME = "withmartian/routerbench"
HUB_FILE = "routerbench_0shot.pkl"

_COST = "|total_cost"
_TEXT_COLUMNS = ("sample_id", "prompt", "eval_name")


def load(config: RouterBenchDataConfig) -> RoutingData:
    """Return the routing data of a RouterBench table.

    Raises:
        ValueError: the table cannot be read, or a row is bad; the message names the row.
    """
    path = _find_file(config)
    collector = ExampleCollector(config)
    with open_table(path, config.max_query_chars) as table:
        candidate_names = _find_candidate_names(table)
        collector.pool = choose_pool(candidate_names, find_pool(config))
        for row in table.rows([*_TEXT_COLUMNS, *candidate_names, *(name + _COST for name in candidate_names)]):
            with collector.row(row.location):
                _add_row(row.checked(), candidate_names, collector)
    return collector.data()


def _add_row(cells: dict[str, Any], candidate_names: list[str], collector: ExampleCollector) -> None:
    scores = {name: read_number(cells[name]) for name in candidate_names}
    costs = {name: read_number(cells[name + _COST]) for name in candidate_names}
    query = join_turns(cells["prompt"])
    collector.add(query, scores, costs, require_text(cells, "eval_name"), require_text(cells, "sample_id"))


def _find_candidate_names(table: Table) -> list[str]:
    # A score column has no mark of its own: it is a column beside which there is one of costs.
    candidate_names = [name for name in table.columns if name + _COST in table.columns]
    if not candidate_names:
        raise ValueError(
            f"{table.path}: the table must have columns '<candidate>' and '<candidate>{_COST}', "
            f"got {', '.join(table.columns)}"
        )
    return candidate_names


def _find_file(config: RouterBenchDataConfig) -> Path:
    """Return the table's file, downloaded where `data.path` is not set.

    Raises:
        ValueError: there is no such file, it is a pickle that may not be read, or the download fails.
    """
    # The setting is checked before anything is downloaded or opened.
    path = None if config.path is None else Path(config.path).expanduser()
    if path is not None and not path.is_file():
        raise ValueError(f"data.path must be a .csv, .parquet or .pkl table, got {config.path!r}: no such file")
    if path is not None and path.suffix not in PICKLE_SUFFIXES:
        return path
    if not config.allow_pickle:
        name = f"{HUB_NAME}/{HUB_FILE}" if path is None else str(path)
        raise ValueError(
            f"data.allow_pickle must be true to read the pickle {name}, got false: reading a pickle runs any code its "
            "author put in it. Set it to true if you trust the file, or give data.path a .parquet or .csv table"
        )
    return _download() if path is None else path


def _download() -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_NAME, HUB_FILE, repo_type="dataset"))
    except OSError as error:
        raise ValueError(
            f"data.path must be a local table where {HUB_NAME}/{HUB_FILE} cannot be downloaded, got None: {error}"
        ) from error
