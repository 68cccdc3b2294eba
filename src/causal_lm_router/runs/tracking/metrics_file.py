"""The file metrics.csv: one figure a row under the header `step,epoch,name,value`, appended while a run goes on.

A process killed while writing leaves a last line without its line break. That line is torn: readers leave it out, and
the next write removes it.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from causal_lm_router.files import write_text

FILE_NAME = "metrics.csv"
HEADER = "step,epoch,name,value"


class MetricRow(NamedTuple):
    """One figure at an optimizer step. `epoch` is None for figures logged outside of training."""

    step: int
    epoch: int | None
    name: str
    value: float


def append_rows(path: Path, rows: Iterable[MetricRow]) -> None:
    """Append `rows` in one flushed write, after removing a torn last line; writes the header into an empty file.

    Values are written so that reading them gives the same float, bit for bit. The parent folder must exist.
    """
    text = _format(rows)
    with path.open("ab") as file:
        if file.tell() and not _ends_line(path):
            file.truncate(len(_whole_lines(path)))
            file.seek(0, os.SEEK_END)
        file.write((text if file.tell() else f"{HEADER}\n{text}").encode())


def read_metrics(path: Path) -> list[MetricRow]:
    """Return all rows in the order of writing, without a torn last line.

    Raises ValueError with file and line for anything that is not a row, and FileNotFoundError where there is no file.
    """
    lines = _whole_lines(path).decode().splitlines()
    if lines and lines[0] != HEADER:
        raise ValueError(f"{path}:1: got {lines[0]!r}, the header is {HEADER!r}")
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines[1:], start=2)]


def drop_rows_after(path: Path, step: int) -> None:
    """Rewrite the file, whole or not at all, without the rows of steps above `step`; nothing to do without a file."""
    if path.exists():
        kept = (row for row in read_metrics(path) if row.step <= step)
        write_text(path, f"{HEADER}\n{_format(kept)}")


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _format(rows: Iterable[MetricRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        if len(row.name.splitlines()) != 1:
            raise ValueError(f"metric name {row.name!r} is empty or holds a line break")
        writer.writerow([row.step, "" if row.epoch is None else row.epoch, row.name, repr(row.value)])
    return text.getvalue()


def _parse(line: str, location: str) -> MetricRow:
    try:
        step, epoch, name, value = next(csv.reader([line]))
        return MetricRow(int(step), int(epoch) if epoch else None, name, float(value))
    except (ValueError, StopIteration) as error:
        raise ValueError(f"{location}: {line!r} is not a row of {HEADER}") from error
