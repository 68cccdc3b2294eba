"""Wide tables from CSV, Parquet and pickled data frames, read row by row, with a location for each row."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causal_lm_router.data.sources.csv_rows import open_csv

PICKLE_SUFFIXES = (".pkl", ".pickle")
SUFFIXES = (".csv", ".parquet", *PICKLE_SUFFIXES)

_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its location ("file.csv:12", "file.parquet: row 11"), and its cells or the problem with them."""

    location: str
    cells: dict[str, Any]
    problem: str | None = None

    def checked(self) -> dict[str, Any]:
        """Return column -> cell; cells of a CSV are texts.

        Raises:
            ValueError: the row is broken.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        return self.cells


@dataclass(frozen=True, slots=True)
class Table:
    """An open table: `rows(columns)` streams the named columns of every row."""

    path: Path
    columns: list[str]
    read: Callable[[list[str]], Iterator[TableRow]]

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Return the rows with the named columns.

        Raises:
            ValueError: the table lacks a column.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise ValueError(
                f"{self.path}: column {missing[0]!r} is missing; the columns are {', '.join(self.columns)}"
            )
        return self.read(list(columns))


@contextmanager
def open_table(path: Path, max_query_chars: int) -> Iterator[Table]:
    """Open a `.csv`, `.parquet` or pickled table. Unpickling runs code: get the user's permission before.

    Raises:
        ValueError: the file has another ending, or cannot be read as its ending says.
    """
    if path.suffix == ".csv":
        with _open_csv_table(path, max_query_chars) as table:
            yield table
    elif path.suffix == ".parquet":
        with _open_parquet_table(path) as table:
            yield table
    elif path.suffix in PICKLE_SUFFIXES:
        yield _read_pickle_table(path)
    else:
        raise ValueError(f"data.path must end with {', '.join(SUFFIXES)}, got {str(path)!r}")


@contextmanager
def _open_csv_table(path: Path, max_query_chars: int) -> Iterator[Table]:
    with open_csv(path, max_query_chars) as (columns, rows):

        def read(wanted: list[str]) -> Iterator[TableRow]:
            for row in rows:
                location = f"{path}:{row.line_number}"
                # A problem travels with its row: raised here, it would end the stream for the rows after it.
                try:
                    cells = row.by_column(columns)
                except ValueError as error:
                    yield TableRow(location, {}, str(error))
                else:
                    yield TableRow(location, {name: cells[name] for name in wanted})

        yield Table(path, columns, read)


@contextmanager
def _open_parquet_table(path: Path) -> Iterator[Table]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: the file must be a Parquet file: {error}") from None

    def read(wanted: list[str]) -> Iterator[TableRow]:
        # In batches, so that a table larger than memory can be read.
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            for cells in batch.to_pylist():
                number += 1
                yield TableRow(f"{path}: row {number}", cells)

    with file:
        yield Table(path, list(file.schema_arrow.names), read)


def _read_pickle_table(path: Path) -> Table:
    import pickle

    import pandas

    try:
        frame = pandas.read_pickle(path)
    # The errors that a damaged pickle, or one of another library version, raises.
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: cannot be unpickled: {type(error).__name__}: {error}") from error
    if not isinstance(frame, pandas.DataFrame):
        raise ValueError(f"{path}: the pickle must hold a pandas DataFrame, got {type(frame).__name__}")

    def read(wanted: list[str]) -> Iterator[TableRow]:
        for number, values in enumerate(frame[wanted].itertuples(index=False, name=None), start=1):
            yield TableRow(f"{path}: row {number}", dict(zip(wanted, map(_to_plain, values), strict=True)))

    return Table(path, [str(name) for name in frame.columns], read)


def _to_plain(value: Any) -> Any:
    """Return a plain value or list for a NumPy scalar or array, None for a missing number, anything else unchanged."""
    import numpy

    plain = value.tolist() if isinstance(value, numpy.generic | numpy.ndarray) else value
    # pandas' mark of an empty cell.
    return None if isinstance(plain, float) and math.isnan(plain) else plain
