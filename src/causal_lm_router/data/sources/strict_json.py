"""Strict JSON: lines and lists, read so that every error message says where the fault is.

Stricter than `json.loads`: a key that appears twice in an object and the literals NaN and Infinity are refused.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causal_lm_router.data.sources.lines import Line

_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class ListItem:
    """One item of a JSON list: its value, and the problem that strict reading found (None where it found none)."""

    value: Any
    problem: str | None

    def row(self) -> dict[str, Any]:
        """Return the item.

        Raises:
            ValueError: it is no object, or strict reading found a problem.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        return _require_object(self.value)


class _StrictDecoder:
    """A JSON decoder that notes the problems that plain decoding ignores.

    It notes them instead of raising, so that in a list the end of a bad item is still found and reading can go on.
    """

    def __init__(self) -> None:
        self._problem: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._to_dict, parse_constant=self._note_constant)

    def decode(self, text: str, start: int) -> tuple[ListItem, int]:
        """Return the value that starts at `start` and the position after it.

        Raises:
            JSONDecodeError: the syntax is bad.
        """
        self._problem = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except RecursionError:  # Python's decoder recurses; a file must not end the process
            raise json.JSONDecodeError("Too many nested lists or objects", text, start) from None
        except json.JSONDecodeError:
            raise
        except ValueError as error:  # an integer of more digits than Python converts
            raise json.JSONDecodeError(str(error).partition(";")[0], text, start) from None
        return ListItem(value, self._problem), end

    def decode_all(self, text: str) -> ListItem:
        """Return the one value in `text`.

        Raises:
            JSONDecodeError: the syntax is bad, or more follows the value.
        """
        item, end = self.decode(text, _after_space(text, 0))
        end = _after_space(text, end)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
        return item

    def _to_dict(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # A dict keeps the last of equal keys, so a repeated key shows as a lower number of entries.
        result = dict(pairs)
        if len(result) != len(pairs):
            self._problem = f"key {find_repeated(key for key, _ in pairs)!r} appears twice in one object"
        return result

    def _note_constant(self, literal: str) -> float:
        self._problem = f"{literal} is not a JSON number"
        return float(literal)


_DECODER = _StrictDecoder()


def find_repeated(values: Iterable[str]) -> str | None:
    """Return the first value that equals an earlier one; None where all differ."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def decode_line(line: Line) -> dict[str, Any]:
    """Return the object in `line`.

    Raises:
        ValueError: the line holds anything else; the message names the column.
    """
    content = line.checked()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_describe_bytes(error)) from None
    try:
        item = _DECODER.decode_all(text)
    except json.JSONDecodeError as error:
        # Only a last line lacks its line feed: then the file was probably cut off.
        hint = "" if content.endswith(b"\n") else " (the file ends within this line: is it truncated?)"
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}{hint}") from None
    return item.row()


def read_list(path: Path, content: bytes | None = None) -> Iterator[tuple[int, ListItem]]:
    """Yield (item number from 1, item) of a file that holds one JSON list: in `content`, where it is read already.

    Raises:
        ValueError: the file holds no list or its syntax breaks, after which nothing can be read; the message names the
            item and the line.
    """
    # Item by item instead of at once: a bad item then has a number, and the good ones around it can still be used.
    text = read_text(path, content)
    position = _after_space(text, 0)
    if text[position : position + 1] != "[":
        raise ValueError(f"{path}: the file must hold a JSON list")
    position = _after_space(text, position + 1)
    # Positions of the text only move forward: no part of the file is decoded twice.
    number = 0
    closed = text[position : position + 1] == "]"
    while not closed:
        number += 1
        item, position, closed = _next_item(path, text, position, number)
        yield number, item
    end = _after_space(text, position + 1)
    if end != len(text):
        raise _broken_list(path, number, json.JSONDecodeError("Extra data after the list", text, end))


def read_object(path: Path) -> dict[str, Any]:
    """Return the one JSON object in the file.

    Raises:
        ValueError: the file holds anything else; the message names file and line.
    """
    text = read_text(path)
    try:
        item = _DECODER.decode_all(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}") from None
    try:
        return item.row()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_text(path: Path, content: bytes | None = None) -> str:
    """Return the text of the whole UTF-8 file (or of `content`, read from it), without a byte order mark.

    Raises:
        ValueError: a byte is not UTF-8; the message names its line.
    """
    content = (path.read_bytes() if content is None else content).removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: {_describe_bytes(error)}") from None


def _next_item(path: Path, text: str, position: int, number: int) -> tuple[ListItem, int, bool]:
    """Return the item at `position`, the position of the next item (or of the bracket), and whether the list ends."""
    try:
        item, position = _DECODER.decode(text, position)
        position = _after_space(text, position)
        mark = text[position : position + 1]
        if mark == "]":
            return item, position, True
        if mark != ",":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
    except json.JSONDecodeError as error:
        raise _broken_list(path, number, error) from None
    return item, _after_space(text, position + 1), False


def _broken_list(path: Path, number: int, error: json.JSONDecodeError) -> ValueError:
    place = f"line {error.lineno}, column {error.colno}"
    return ValueError(f"{path}: item {number}: broken JSON: {error.msg} at {place}")


def _require_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"the row must be an object, got {type(value).__name__}")
    return value


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _describe_bytes(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
