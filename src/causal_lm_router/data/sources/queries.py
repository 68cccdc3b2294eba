"""Queries to route, read as a stream: JSON lines, CSV or Parquet with the text under `query`, or a query a line.

What else a row holds stays in it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causal_lm_router.data.sources.lines import Line, read_lines
from causal_lm_router.data.sources.strict_json import decode_line, find_repeated
from causal_lm_router.data.sources.tables import open_table
from causal_lm_router.routing import check_query

QUERY = "query"
TABLES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class QueryFile:
    """A file of queries, which can be read any number of times.

    `.jsonl` has an object per line, `.csv` and `.parquet` a row per query, any other file a query per line.
    """

    path: Path
    max_chars: int
    """Characters that a query may have."""
    shown: str
    """What messages call the file."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a dictionary for every row, with the text under `query`; blank lines are passed over.

        Raises:
            ValueError: broken JSON or CSV, bytes that are not UTF-8, a file that is no Parquet, a column `query` that
                is missing, or a query that is missing, blank or too long; the message names file and line (or row).
        """
        if self.path.suffix in TABLES:
            return _read_table(self.path, self.max_chars)
        lines = read_lines(self.path, self.max_chars)
        return _parse_lines(lines, self.shown, self.path.suffix == ".jsonl", self.max_chars)


def read_query_file(path: Path, max_chars: int) -> Iterator[dict[str, Any]]:
    """Return an iterator of the rows of a `QueryFile`, with its errors."""
    return QueryFile(path=path, max_chars=max_chars, shown=str(path)).rows()


def _read_table(path: Path, max_chars: int) -> Iterator[dict[str, Any]]:
    with open_table(path, max_chars) as table:
        if repeated := find_repeated(table.columns):
            raise ValueError(f"{path}: column {repeated!r} appears twice")
        if QUERY not in table.columns:
            columns = ", ".join(table.columns)
            raise ValueError(f"{path}: must have a column {QUERY!r}, got the columns {columns}")
        for row in table.rows(table.columns):
            with _name_place(row.location):
                check_query(row.checked()[QUERY], max_chars)
            yield row.cells


def _parse_lines(lines: Iterable[Line], source: str, are_json: bool, max_chars: int) -> Iterator[dict[str, Any]]:
    for line in lines:
        with _name_place(f"{source}:{line.number}"):
            row = decode_line(line) if are_json else {QUERY: line.text()}
            check_query(row.get(QUERY), max_chars)
        yield row


@contextlib.contextmanager
def _name_place(place: str) -> Iterator[None]:
    """Put the place in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
