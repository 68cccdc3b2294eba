"""LLMRouter's query files: the task names that its score files lack, found by the query's text."""

from pathlib import Path

from causal_lm_router.config import QueryFilesDataConfig
from causal_lm_router.data.sources.files import find_files
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.row_values import require_text
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line

QUERY_FILES = ("default_query_train.jsonl", "default_query_test.jsonl")


def find_tasks(
    config: QueryFilesDataConfig,
    collector: ExampleCollector,
    beside: Path | None = None,
) -> dict[str, str] | None:
    """Return query -> task from the files of `data.query_path`, else from LLMRouter's default files in `beside`.

    It is None where there are neither. Each line is {"query", "task_name", ...}; a query under several tasks keeps the
    first, with training files before test files.

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
    tasks: dict[str, str] = {}
    for path in paths:
        for line in read_lines(path, config.max_query_chars):
            with collector.row(f"{path}:{line.number}"):
                row = decode_line(line)
                # The first task stays, and training files come first.
                tasks.setdefault(require_text(row, "query"), require_text(row, "task_name"))
    return tasks
