"""Routes as rows of a file, in parts that are joined at the end: JSON lines, CSV or Parquet, by the file's suffix."""

import csv
import datetime
import decimal
import io
import itertools
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.files.writing import open_atomic

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
BATCH_ROWS = 200
"""Rows that are looked at together before routing."""
PREDICTED = "predicted"
ANSWER = ("model_name", "parse_failure", "generation")
"""Columns that every route adds to its query's row; where the decoding scores candidates, `PREDICTED` follows."""


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """How rows are written: the suffix says the format, CSV and Parquet have the same columns in every row.

    `schema` holds the types of Parquet's columns.
    """

    suffix: str
    columns: tuple[str, ...] = ()
    schema: "pyarrow.Schema | None" = None

    def encode(self, rows: Sequence[Row], *, is_first: bool) -> bytes:
        """Return the rows as a part of the file; the first part of a CSV has the header."""
        if self.suffix == ".parquet":
            return self._encode_parquet(rows)
        if self.suffix == ".csv":
            return self._encode_csv(rows, is_first)
        return "".join(encode_line(row) for row in rows).encode()

    def join(self, parts: Iterable[Path], path: Path) -> None:
        """Write the parts, in their order, as the file at `path`: whole or not at all, a part in memory at a time."""
        with open_atomic(path, "wb") as file:
            if self.suffix == ".parquet":
                from pyarrow import parquet

                with parquet.ParquetWriter(file, self.schema) as writer:
                    for part in parts:
                        writer.write_table(parquet.read_table(part))
                return
            for part in parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, file)

    def _encode_csv(self, rows: Sequence[Row], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if is_first:
            writer.writerow(self.columns)
        writer.writerows([_to_cell(row.get(name)) for name in self.columns] for row in rows)
        return text.getvalue().encode()

    def _encode_parquet(self, rows: Sequence[Row]) -> bytes:
        import pyarrow
        from pyarrow import parquet

        content = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=self.schema), content)
        return content.getvalue()


def encode_line(row: Row) -> str:
    """Return a row as a line of JSON.

    Raises:
        ValueError: a value, such as bytes, cannot be JSON.
    """
    return json.dumps(_to_json(row), ensure_ascii=False) + "\n"


def choose_format(suffix: str, rows: Iterable[Row], candidate_names: Sequence[str] | None) -> tuple[RowFormat, int]:
    """Return the format for the routes of these queries, and the number of queries, which are read once, as a stream.

    `candidate_names` are those that every route has a prediction for; None where routes have no predictions.

    Raises:
        ValueError: the values of a column have no type in common, so that Parquet cannot hold them; a value cannot be
            JSON.
    """
    columns: dict[str, None] = {}
    schema, num_rows = None, 0
    for batch in _cut(rows, BATCH_ROWS):
        num_rows += len(batch)
        columns |= dict.fromkeys(name for row in batch for name in row)
        place = f"rows {num_rows - len(batch) + 1:,} to {num_rows:,}"
        if suffix == ".parquet":
            schema = _merge_schemas(schema, batch, place)
        else:
            _check_json(batch, place)
    predicted = () if candidate_names is None else (PREDICTED,)
    # A key of the answer replaces the row's own.
    columns |= dict.fromkeys((*ANSWER, *predicted))
    if schema is not None:
        schema = _add_answer(schema, list(columns), candidate_names)
    return RowFormat(suffix=suffix, columns=tuple(columns), schema=schema), num_rows


def _check_json(rows: Sequence[Row], place: str) -> None:
    try:
        for row in rows:
            _to_json(row)
    except ValueError as error:
        raise ValueError(f"input: {place}: {error}") from None


def _merge_schemas(known: "pyarrow.Schema | None", rows: Sequence[Row], place: str) -> "pyarrow.Schema":
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    fields = []
    for name in names:
        try:
            fields.append(pyarrow.field(name, pyarrow.array([row.get(name) for row in rows]).type))
        except pyarrow.ArrowException as error:
            raise _no_common_type(name, place, error) from None
    found = pyarrow.schema(fields)
    if known is None:
        return found
    try:
        # Whole numbers and others become floating-point ones; nothing becomes a text.
        return pyarrow.unify_schemas([known, found], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise _no_common_type(", ".join(names), place, error) from None


def _no_common_type(column: str, place: str, error: Exception) -> ValueError:
    return ValueError(f"input: {place}: {column!r} must have values of one type where output is Parquet: {error}")


def _add_answer(
    schema: "pyarrow.Schema", columns: Sequence[str], candidate_names: Sequence[str] | None
) -> "pyarrow.Schema":
    import pyarrow

    types = {name: pyarrow.string() for name in ANSWER}
    if candidate_names is not None:
        types[PREDICTED] = pyarrow.struct([(name, pyarrow.float64()) for name in candidate_names])
    return pyarrow.schema([(name, types.get(name) or schema.field(name).type) for name in columns])


def _cut(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    stream = iter(rows)
    while batch := list(itertools.islice(stream, size)):
        yield batch


def _to_cell(value: Any) -> Any:
    """Return what a cell of a CSV shows of a value: texts and numbers as they are, lists and objects as JSON."""
    plain = _to_json(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict | bool) else plain


def _to_json(value: Any) -> Any:
    """Return a value of a Parquet file as one that JSON has; a number that is not finite becomes null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | str() | int():
            return value
        case dict():
            return {key: _to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_json(item) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return str(value)
    raise ValueError(f"values must be such that JSON has where output is not Parquet, got {type(value).__name__}")
