"""LLMRouter's query files: what its score files lack, found by the query's text."""

import ast
from pathlib import Path
from typing import Any, NamedTuple

from causal_lm_router.config import QueryFilesDataConfig
from causal_lm_router.data.sources.files import find_files
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.row_values import require_text
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line

QUERY_FILES = ("default_query_train.jsonl", "default_query_test.jsonl")


class QueryRecord(NamedTuple):
    """What a query file says of a query: its task, and how many answers it has to choose from, None without."""

    task: str
    num_choices: int | None


def find_query_records(
    config: QueryFilesDataConfig,
    collector: ExampleCollector,
    beside: Path | None = None,
) -> dict[str, QueryRecord] | None:
    """Return query -> record from the files of `data.query_path`, else from LLMRouter's default files in `beside`.

    It is None where there are neither. Each line is {"query", "task_name", "metric"?, "choices"?, ...}; a query under
    several tasks keeps the first, with training files before test files.

    Raises:
        ValueError: `data.query_path` has no files, or a line is bad; the message names its file and line.
    """
    if config.query_path is not None:
        paths = find_files("data.query_path", config.query_path, ["*query*.jsonl"])
    else:
        folder = beside or Path()
        paths = [folder / name for name in QUERY_FILES if beside is not None and (folder / name).is_file()]
    if not paths:
        return None
    records: dict[str, QueryRecord] = {}
    for path in paths:
        for line in read_lines(path, config.max_query_chars):
            with collector.row(f"{path}:{line.number}"):
                row = decode_line(line)
                # The first task stays, and training files come first.
                record = QueryRecord(require_text(row, "task_name"), _count_choices(row))
                records.setdefault(require_text(row, "query"), record)
    return records


def _count_choices(row: dict[str, Any]) -> int | None:
    """Return the number of choices of a row that is scored by its letter.

    LLMRouter writes `choices` as Python prints them: a list of texts, or {"text": such a list, ...}.
    """
    if row.get("metric") != "em_mc" or not isinstance(row.get("choices"), str):
        return None
    try:
        choices = ast.literal_eval(row["choices"])
    # The last two are how Python's parser ends on text that is nested too deeply.
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    texts = choices.get("text") if isinstance(choices, dict) else choices
    return len(texts) if isinstance(texts, list) and texts else None
