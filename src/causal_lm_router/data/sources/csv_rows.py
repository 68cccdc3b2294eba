"""Strict CSV rows with their real line numbers, read as a stream."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from causal_lm_router.data.sources.lines import describe_long_line, longest_line
from causal_lm_router.data.sources.strict_json import find_repeated

_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row of a CSV file: the line it ends on, and its cells or what is wrong with them."""

    line_number: int
    cells: list[str]
    problem: str | None = None

    def by_column(self, columns: list[str]) -> dict[str, str]:
        """Return column -> cell.

        Raises:
            ValueError: the row is broken, has more or fewer cells than the header, or a cell is not UTF-8.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        if len(self.cells) != len(columns):
            raise ValueError(f"the row must have {len(columns)} cells as the header does, got {len(self.cells)}")
        for name, cell in zip(columns, self.cells, strict=True):
            if not _is_utf8(cell):
                raise ValueError(f"column {name!r} has a byte that is not UTF-8")
        return dict(zip(columns, self.cells, strict=True))


def read_number(cell: object) -> object:
    """Return the number or truth value in a cell's text, None for an empty one; anything else unchanged."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    # Python would take an underscore inside a number.
    if not text or "_" in text:
        return cell if text else None
    try:
        return _BOOLEANS[text.lower()] if text.lower() in _BOOLEANS else float(text)
    except ValueError:
        return cell


@contextmanager
def open_csv(path: Path, max_query_chars: int) -> Iterator[tuple[list[str], Iterator[CsvRow]]]:
    """Open a CSV file (UTF-8, commas, double quotes) and yield its column names and a stream of its rows.

    Blank lines are skipped; a line, or a cell over several lines, that is longer than `longest_line` is a broken row.

    Raises:
        ValueError: the header is missing, broken or names a column twice; the message names the file.
    """
    # By default csv refuses cells above 128 KiB. The limit is global to the process: it is put back.
    limit = csv.field_size_limit(longest_line(max_query_chars))
    try:
        # Bytes that are not UTF-8 become lone surrogates here, so that the row that holds them can be named later.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = _read_rows(_Lines(file, max_query_chars))
            header = next(rows, CsvRow(1, []))
            yield _check_header(path, header), rows
    finally:
        csv.field_size_limit(limit)


class _Lines:
    """The lines of a file, for csv's reader: one that is too long raises csv's error and is passed over in parts."""

    def __init__(self, file: TextIO, max_query_chars: int) -> None:
        self._file = file
        self._max_query_chars = max_query_chars
        self.number = 0
        """Number of the last line, from 1."""

    # Not a generator, which would end with the first error.
    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        longest = longest_line(self._max_query_chars)
        line = self._file.readline(longest + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > longest:
            while line and not line.endswith("\n"):
                line = self._file.readline(longest)
            raise csv.Error(describe_long_line(self._max_query_chars))
        return line


def _read_rows(lines: _Lines) -> Iterator[CsvRow]:
    reader = csv.reader(lines, strict=True)
    # Not a for loop: the reader can go on after an error, so one broken row does not end the file.
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield CsvRow(lines.number, [], f"broken CSV: {error}")
            continue
        if cells:
            yield CsvRow(lines.number, cells)


def _check_header(path: Path, header: CsvRow) -> list[str]:
    if header.problem is not None:
        raise ValueError(f"{path}:{header.line_number}: {header.problem}")
    if not header.cells:
        raise ValueError(f"{path}: the file must start with a header, got an empty file")
    if not all(map(_is_utf8, header.cells)):
        raise ValueError(f"{path}:{header.line_number}: the header has a byte that is not UTF-8")
    repeated = find_repeated(header.cells)
    if repeated is not None:
        raise ValueError(f"{path}:{header.line_number}: column {repeated!r} appears twice")
    return header.cells


def _is_utf8(cell: str) -> bool:
    # The range of lone surrogates that `surrogateescape` maps bad bytes to.
    return cell.isascii() or not any("\udc80" <= char <= "\udcff" for char in cell)
