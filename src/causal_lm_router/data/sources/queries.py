"""Queries to route, from a file or a stream: JSON lines with the text under `query`, or one query per line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from causal_lm_router.data.sources.lines import Line, read_lines
from causal_lm_router.data.sources.strict_json import decode_line
from causal_lm_router.routing import check_query


def read_query_file(path: Path, max_chars: int) -> Iterator[dict[str, Any]]:
    """Return an iterator of a dictionary for every line that is not blank, with the text under `query`.

    A `.jsonl` file has one object per line, any other file one query per line; errors are those of `parse_queries`.
    """
    return parse_queries(read_lines(path, max_chars), str(path), path.suffix == ".jsonl", max_chars)


def parse_queries(lines: Iterable[Line], source: str, are_json: bool, max_chars: int) -> Iterator[dict[str, Any]]:
    """Yield a dictionary for every line, with the text under `query`; JSON objects keep their other keys.

    Raises:
        ValueError: broken JSON, bytes that are not UTF-8, or a query that is missing, blank or longer than
            `max_chars`; the message names source and line.
    """
    for line in lines:
        try:
            row = decode_line(line) if are_json else {"query": line.text()}
            check_query(row.get("query"), max_chars)
        except ValueError as error:
            raise ValueError(f"{source}:{line.number}: {error}") from None
        yield row
