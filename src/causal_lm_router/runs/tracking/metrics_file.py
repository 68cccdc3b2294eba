"""The file metrics.csv: one metric a row under the header `step,epoch,name,value`, appended while a run goes on.

A process killed while writing leaves a last line without its line break. That line is torn: readers leave it out, and
the next write removes it.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from causal_lm_router.files.checksums import check_file, drop_checksum
from causal_lm_router.files.writing import write_text

FILE_NAME = "metrics.csv"
HEADER = "step,epoch,name,value"


class MetricRow(NamedTuple):
    """The value of one metric at an optimizer step. `epoch` is None for metrics logged outside of training."""

    step: int
    epoch: int | None
    name: str
    value: float


def append_rows(path: Path, rows: Iterable[MetricRow]) -> None:
    """Append `rows` in one flushed write, after removing a torn last line; writes the header into an empty file.

    Values are written so that reading them gives the same float, bit for bit. The parent folder must exist.

    Raises:
        ValueError: a name is empty or holds a line break.
    """
    text = _format(rows)
    with path.open("ab") as file:
        # Appending to a torn line would make one broken row out of two.
        if file.tell() and not _ends_line(path):
            file.truncate(len(_whole_lines(path)))
            file.seek(0, os.SEEK_END)
        file.write((text if file.tell() else f"{HEADER}\n{text}").encode())


def read_metrics(path: Path) -> list[MetricRow]:
    """Return all rows in the order of writing, without a torn last line.

    Raises:
        ValueError: a line is not a row, or the file is damaged; the message names file and line.
        FileNotFoundError: there is no file.
    """
    check_file(path)
    lines = _whole_lines(path).decode().splitlines()
    if lines and lines[0] != HEADER:
        raise ValueError(f"{path}:1: the header must be {HEADER!r}, got {lines[0]!r}")
    # Line 1 is the header.
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines[1:], start=2)]


def drop_rows_after(path: Path, step: int) -> None:
    """Rewrite the file, whole or not at all, without the rows of steps above `step`. Do nothing without a file."""
    if path.exists():
        kept = [row for row in read_metrics(path) if row.step <= step]
        drop_checksum(path)
        write_text(path, f"{HEADER}\n{_format(kept)}")


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _whole_lines(path: Path) -> bytes:
    # A torn line is one without its line break: everything after the last one.
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _format(rows: Iterable[MetricRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        # Readers go line by line, so not even a quoted name may hold a line break.
        if len(row.name.splitlines()) != 1:
            raise ValueError(f"the name of a metric must be one line of text, got {row.name!r}")
        # repr is the shortest text that gives the same float back.
        writer.writerow([row.step, "" if row.epoch is None else row.epoch, row.name, repr(row.value)])
    return text.getvalue()


def _parse(line: str, location: str) -> MetricRow:
    try:
        step, epoch, name, value = next(csv.reader([line]))
        return MetricRow(step=int(step), epoch=int(epoch) if epoch else None, name=name, value=float(value))
    except (ValueError, StopIteration) as error:
        # An empty line makes the reader stop without a row.
        raise ValueError(f"{location}: must be a row of {HEADER}, got {line!r}") from error
