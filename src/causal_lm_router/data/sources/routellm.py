"""The `routellm` format: RouteLLM's evaluation CSVs, which say for two candidates whether each answered right.

`mmlu_<subject>.csv` and `gsm8k_responses.csv` have the column `prompt`, a column of True or False for each candidate
(named after it) and, in GSM8K, `<candidate>_response`. `data.path` is one such file, the folder of the MMLU files, or
the folder with `mmlu/` and `gsm8k_responses.csv` (one of them is enough). The task is the subject, or `gsm8k`;
`data.files` picks some of a folder's files. Messages name the line on which a row ends, since prompts span several.

Prices are RouteLLM's own estimates (arXiv 2406.18665: about USD 24.7 per million tokens for GPT-4 and 0.24 for Mixtral
8x7B), for input and output alike; `data.pool_path` gives others. GSM8K's costs are estimated from its prompts and
responses at four characters a token; MMLU has no responses, so its costs are unknown unless
`data.assumed_output_tokens` is set.
"""

from collections.abc import Iterator
from pathlib import Path

from causal_lm_router.config import RouteLLMDataConfig
from causal_lm_router.data.sources.csv_rows import open_csv
from causal_lm_router.data.sources.files import find_files, require_path
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, count_tokens, find_pool
from causal_lm_router.data.sources.row_values import require_text
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line
from causal_lm_router.routing import Candidate, RoutingData

PAPER_PRICES = {"gpt-4-1106-preview": 24.7, "mistralai/Mixtral-8x7B-Instruct-v0.1": 0.24}
"""USD per million tokens, input and output alike: RouteLLM's estimates (arXiv 2406.18665)."""

_FILES = ("mmlu/mmlu_*.csv", "mmlu_*.csv", "gsm8k_responses.csv")
_RESPONSE = "_response"


def load(config: RouteLLMDataConfig) -> RoutingData:
    """Return the routing data of RouteLLM's CSVs.

    Under `data.drop_contaminated` the prompts that RouteLLM lists as too close to its training data are left out and
    recorded as skipped rows with the reason "contaminated".

    Raises:
        ValueError: there is no such file, the files have different candidates, a list of contaminated prompts is
            missing, or a row is bad; the message names its file and line.
    """
    value = require_path("data.path", config.path, f"a .csv file, or a folder with {' or '.join(_FILES)}")
    paths = find_files("data.path", value, _FILES)
    if config.files is not None:
        paths = [path for path in paths if path.match(config.files)]
        if not paths:
            raise ValueError(f"data.files must match a file of data.path={value!r}, got {config.files!r}")
    collector = ExampleCollector(config)
    contaminated: dict[Path, frozenset[str]] = {}
    for path in paths:
        left_out: frozenset[str] = frozenset()
        if config.drop_contaminated:
            # All MMLU files share one listing: it is read once.
            listing = _find_listing(path)
            if listing not in contaminated:
                contaminated[listing] = frozenset(_read_listing(listing, config.max_query_chars))
            left_out = contaminated[listing]
        _load_file(path, config, left_out, collector)
    return collector.data()


def _load_file(
    path: Path,
    config: RouteLLMDataConfig,
    contaminated: frozenset[str],
    collector: ExampleCollector,
) -> None:
    # Each file names its candidates in its header; all files must agree on one pool.
    with open_csv(path, config.max_query_chars) as (columns, rows):
        pool = _choose_pool(path, columns, config)
        if collector.pool is None:
            collector.pool = pool
        if collector.pool != pool:
            before = _join_names(collector.pool)
            raise ValueError(
                f"{path}:1: the candidates must be those of the files before, {before}, got {_join_names(pool)}"
            )
        for row in rows:
            location = f"{path}:{row.line_number}"
            with collector.row(location):
                cells = row.by_column(columns)
                if cells["prompt"] in contaminated:
                    collector.leave_out(location, "contaminated")
                else:
                    _add_row(cells, pool, _name_task(path), collector)


def _add_row(cells: dict[str, str], pool: tuple[Candidate, ...], task: str, collector: ExampleCollector) -> None:
    prompt = cells["prompt"]
    scores = {candidate.name: _to_score(candidate.name, cells[candidate.name]) for candidate in pool}
    costs = {
        candidate.name: _estimate_cost(candidate, prompt, cells.get(candidate.name + _RESPONSE)) for candidate in pool
    }
    collector.add(prompt, scores, costs, task)


def _estimate_cost(candidate: Candidate, prompt: str, response: str | None) -> float | None:
    # MMLU files have no responses; the collector then estimates the costs, or leaves them unknown.
    return None if response is None else answer_cost(candidate, count_tokens(prompt), count_tokens(response))


def _choose_pool(path: Path, columns: list[str], config: RouteLLMDataConfig) -> tuple[Candidate, ...]:
    if "prompt" not in columns:
        raise ValueError(f"{path}:1: column 'prompt' is missing; the columns are {', '.join(columns)}")
    candidate_names = [name for name in columns if name != "prompt" and not name.endswith(_RESPONSE)]
    known = find_pool(config) or tuple(_set_paper_price(name) for name in candidate_names)
    try:
        return choose_pool(candidate_names, known)
    except ValueError as error:
        raise ValueError(f"{path}:1: {error}") from None


def _set_paper_price(name: str) -> Candidate:
    # The paper's estimate is one price for input and output.
    price = PAPER_PRICES.get(name)
    return Candidate(name, price, price)


def _to_score(name: str, cell: str) -> float:
    if cell not in ("True", "False"):
        raise ValueError(f"candidate {name!r} must be True or False, got {cell!r}")
    return float(cell == "True")


def _name_task(path: Path) -> str:
    return path.stem.removeprefix("mmlu_").removesuffix("_responses")


def _join_names(pool: tuple[Candidate, ...]) -> str:
    return ", ".join(candidate.name for candidate in pool)


def _find_listing(path: Path) -> Path:
    """Return the file of contaminated prompts for a CSV, which lies beside it or beside its folder."""
    name = f"{path.stem.split('_')[0]}_contaminated_prompts.jsonl"
    for folder in (path.parent, path.parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"data.drop_contaminated=True needs {name} beside {path} or beside its folder")


def _read_listing(path: Path, max_query_chars: int) -> Iterator[str]:
    """Yield the evaluation prompts of a file of {"eval_prompt": text, ...} lines."""
    for line in read_lines(path, max_query_chars):
        try:
            yield require_text(decode_line(line), "eval_prompt")
        except ValueError as error:
            raise ValueError(f"{path}:{line.number}: {error}") from None
