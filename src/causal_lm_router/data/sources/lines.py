"""Lines of a file as bytes, none of them so long that it fills the memory."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LONGEST_CHAR = 12
"""Bytes that a character can take in JSON: two escapes of half a pair each."""
_BESIDE_QUERY = 4 * 2**20
"""Bytes of a line that may be something else than its query."""
_DISCARDED = 2**20
"""Bytes read at once of a line that is too long."""


def longest_line(max_query_chars: int) -> int:
    """Return the bytes of the longest line that is read: as many as such a query can take, and much else beside it."""
    return _LONGEST_CHAR * max_query_chars + _BESIDE_QUERY


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank: its number from 1, and its bytes or why they were not read."""

    number: int
    content: bytes
    problem: str | None = None

    def checked(self) -> bytes:
        """Return the bytes.

        Raises:
            ValueError: the line is too long.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        return self.content

    def text(self) -> str:
        """Return the line as a text without its end.

        Raises:
            ValueError: the line is too long or not UTF-8.
        """
        return self.checked().decode("utf-8").rstrip("\r\n")


def read_lines(path: Path, max_query_chars: int) -> Iterator[Line]:
    """Yield every line of the file that is not blank; only "\\n" ends a line."""
    # Bytes, since text readers also split lines at U+2028 and the like, which JSON allows inside a text.
    with path.open("rb") as file:
        yield from split_lines(file, max_query_chars)


def split_lines(file: BinaryIO, max_query_chars: int) -> Iterator[Line]:
    """Yield every line of an open file that is not blank.

    A line longer than `longest_line(max_query_chars)` has a problem in place of its bytes.
    """
    longest = longest_line(max_query_chars)
    number = 0
    while content := file.readline(longest + 1):
        number += 1
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if len(content) > longest:
            yield Line(number, b"", describe_long_line(max_query_chars))
            # The rest goes by in parts: a line of gigabytes must not fill the memory.
            while content and not content.endswith(b"\n"):
                content = file.readline(_DISCARDED)
        elif content.strip():
            yield Line(number, content)


def describe_long_line(max_query_chars: int) -> str:
    """Return why a line is refused that is longer than `longest_line`."""
    most = f"{longest_line(max_query_chars):,} bytes"
    return f"the line has more than {most}, the most that data.max_query_chars={max_query_chars} allows"
