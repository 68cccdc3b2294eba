"""Lines of any length: long ones are refused without filling the memory."""

import io

import pytest

from causal_lm_router.data.sources.lines import Line, longest_line, split_lines


class _Endless(io.BytesIO):
    """A file with one line of 4 GB between two short ones; it remembers the most that was read at once."""

    def __init__(self) -> None:
        super().__init__(b"first\n")
        self.left = 4 * 2**30
        self.most = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size > 0
        self.most = max(self.most, size)
        if line := super().readline(size):
            return line
        part = min(size, self.left)
        self.left -= part
        if part:
            # The same bytes again and again: the test itself must not fill the memory.
            return _PART[:part] if self.left else _PART[: part - 1] + b"\n"
        return b""


_PART = b"x" * (longest_line(10) + 1)


def test_a_line_of_gigabytes_is_passed_over() -> None:
    file = _Endless()
    lines = split_lines(file, 10)
    assert next(lines) == Line(1, b"first\n")
    long = next(lines)
    assert (long.number, long.content) == (2, b"")
    with pytest.raises(ValueError, match=r"the line has more than 4,194,424 bytes, .* data\.max_query_chars=10 allows"):
        long.text()
    assert list(lines) == []
    assert file.most == longest_line(10) + 1
    assert file.left == 0


def test_the_longest_line_is_read() -> None:
    text = b"x" * (longest_line(1) - 1) + b"\n"
    assert [line.problem is None for line in split_lines(io.BytesIO(text + b"x" + text + b"\n" + text), 1)] == [
        True,
        False,
        True,
    ]
