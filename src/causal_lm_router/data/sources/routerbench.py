"""The `routerbench` format: RouterBench's wide table (arXiv 2403.12031; hub: withmartian/routerbench).

One row a query with the columns `sample_id`, `prompt`, `eval_name` (the task) and, for each candidate, `<candidate>`
(its score) and `<candidate>|total_cost` (USD); the candidates are the columns that have such a cost column, in their
order. Other columns are ignored. A prompt that is a list of turns, or such a list written as text ("['...']"), becomes
its turns with a blank line between them.

`data.path` is a `.csv`, `.parquet` or pickled (`.pkl`, `.pickle`) table; without one the zero-shot table is downloaded
from the hub. Pickles are read only under `data.allow_pickle=true`: reading one runs whatever code its author put in.
Rows are placed by line in a CSV ("file.csv:12"), else by number from 1 ("file.pkl: row 11").
"""

import ast
import warnings
from pathlib import Path
from typing import Any

from causal_lm_router.config import DataConfig
from causal_lm_router.data.sources.pool import choose_pool, find_pool
from causal_lm_router.data.sources.rows import ExampleCollector, require_text
from causal_lm_router.data.sources.tables import PICKLE_SUFFIXES, Table, open_table
from causal_lm_router.routing import RoutingData

HUB_NAME = "withmartian/routerbench"
HUB_FILE = "routerbench_0shot.pkl"

_COST = "|total_cost"
_TEXT_COLUMNS = ("sample_id", "prompt", "eval_name")
_BOOLEANS = {"True": True, "False": False}


def load(config: DataConfig) -> RoutingData:
    """Return the routing data of a RouterBench table; raise ValueError with the place of a bad row."""
    path = _find_file(config)
    collector = ExampleCollector(config)
    with open_table(path) as table:
        names = _candidate_names(table)
        collector.pool = choose_pool(names, find_pool(config))
        for row in table.rows([*_TEXT_COLUMNS, *names, *(name + _COST for name in names)]):
            with collector.row(row.location):
                _add_row(row.checked(), names, collector)
    return collector.data()


def _add_row(cells: dict[str, Any], names: list[str], collector: ExampleCollector) -> None:
    scores = {name: _to_number(cells[name]) for name in names}
    costs = {name: _to_number(cells[name + _COST]) for name in names}
    query = _to_query(cells["prompt"])
    collector.add(query, scores, costs, require_text(cells, "eval_name"), require_text(cells, "sample_id"))


def _candidate_names(table: Table) -> list[str]:
    names = [name for name in table.columns if name + _COST in table.columns]
    if not names:
        listed = ", ".join(table.columns)
        raise ValueError(
            f"{table.path}: no candidates: no column '<name>{_COST}' beside '<name>'; columns are {listed}"
        )
    return names


def _to_number(cell: object) -> object:
    """Return the number that a CSV's text stands for; anything else as it is, for the checks to judge."""
    if not isinstance(cell, str):
        return cell
    try:
        return _BOOLEANS[cell] if cell in _BOOLEANS else float(cell)
    except ValueError:
        return cell


def _to_query(prompt: object) -> object:
    """Return the prompt's text; turns are joined with a blank line between them."""
    turns: object = prompt
    if isinstance(prompt, str) and prompt.startswith("[") and prompt.endswith("]"):
        turns = _read_list(prompt)
    is_turns = isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns)
    return "\n\n".join(turns) if is_turns and isinstance(turns, list) else prompt


def _read_list(text: str) -> object:
    """Return the Python literal that `text` is, or None: a prompt may well begin and end with brackets itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a prompt that is no literal warns of an invalid escape
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None


def _find_file(config: DataConfig) -> Path:
    """Return the table's file; raise ValueError for a pickle without leave to read it."""
    path = None if config.path is None else Path(config.path).expanduser()
    if path is not None and not path.is_file():
        raise ValueError(f"data.path={config.path!r}: no such file; expected is a .csv, .parquet or .pkl table")
    if path is not None and path.suffix not in PICKLE_SUFFIXES:
        return path
    if not config.allow_pickle:
        name = f"{HUB_NAME}/{HUB_FILE}" if path is None else str(path)
        raise ValueError(
            f"data.allow_pickle=False: {name} is a pickle, and reading one runs whatever code its author put in it. "
            "Set data.allow_pickle=true if you trust it, or give data.path a .parquet or .csv table"
        )
    return _download() if path is None else path


def _download() -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_NAME, HUB_FILE, repo_type="dataset"))
    except OSError as error:
        raise ValueError(
            f"data.path=None: {HUB_NAME}/{HUB_FILE} cannot be downloaded: {error}. Give data.path a local table"
        ) from error
