"""Strict CSV rows with their real line numbers, read as a stream."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LONGEST_CELL = 2**31 - 1


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


@contextmanager
def open_csv(path: Path) -> Iterator[tuple[list[str], Iterator[CsvRow]]]:
    """Open a CSV file (UTF-8, commas, double quotes) and yield its column names and a stream of its rows.

    Blank lines are skipped.

    Raises:
        ValueError: the header is missing, broken or names a column twice; the message names the file.
    """
    # By default csv refuses cells above 128 KiB, with an error that does not say where. So the limit is raised, and the
    # length of a query is checked later, with its line. The limit is global to the process: it is put back.
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        # Bytes that are not UTF-8 become lone surrogates here, so that the row that holds them can be named later.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = _read_rows(file)
            header = next(rows, CsvRow(1, []))
            yield _check_header(path, header), rows
    finally:
        csv.field_size_limit(limit)


def _read_rows(lines: Iterator[str]) -> Iterator[CsvRow]:
    reader = csv.reader(lines, strict=True)
    # Not a for loop: the reader can go on after an error, so one broken row does not end the file.
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield CsvRow(reader.line_num, [], f"broken CSV: {error}")
            continue
        if cells:
            yield CsvRow(reader.line_num, cells)


def _check_header(path: Path, header: CsvRow) -> list[str]:
    if header.problem is not None:
        raise ValueError(f"{path}:{header.line_number}: {header.problem}")
    if not header.cells:
        raise ValueError(f"{path}: the file must start with a header, got an empty file")
    if not all(map(_is_utf8, header.cells)):
        raise ValueError(f"{path}:{header.line_number}: the header has a byte that is not UTF-8")
    repeated = [name for name in header.cells if header.cells.count(name) > 1]
    if repeated:
        raise ValueError(f"{path}:{header.line_number}: column {repeated[0]!r} appears twice")
    return header.cells


def _is_utf8(cell: str) -> bool:
    # The range of lone surrogates that `surrogateescape` maps bad bytes to.
    return cell.isascii() or not any("\udc80" <= char <= "\udcff" for char in cell)
