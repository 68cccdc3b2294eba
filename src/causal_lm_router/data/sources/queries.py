"""Queries to route, from a file or a stream: JSON lines with the text under `query`, or a query a line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from causal_lm_router.data.sources.strict_json import decode_line, read_lines
from causal_lm_router.routing import check_query


def read_query_file(path: Path, max_chars: int) -> Iterator[dict[str, Any]]:
    """Yield a dictionary with the text under `query` for every line that is not blank; see `query_rows`.

    A `.jsonl` file holds an object a line, any other file a query a line.
    """
    return query_rows(read_lines(path), str(path), path.suffix == ".jsonl", max_chars)


def query_rows(
    lines: Iterable[tuple[int, bytes]], source: str, are_json: bool, max_chars: int
) -> Iterator[dict[str, Any]]:
    """Yield a dictionary per (number, line) with the text under `query`; JSON objects keep their other keys.

    Raises ValueError with source and line for broken JSON, bytes that are not UTF-8, and a query that is missing, blank
    or longer than `max_chars`.
    """
    for number, line in lines:
        try:
            row = decode_line(line) if are_json else {"query": line.decode("utf-8").rstrip("\r\n")}
            check_query(row.get("query"), max_chars)
        except ValueError as error:
            raise ValueError(f"{source}:{number}: {error}") from None
        yield row
