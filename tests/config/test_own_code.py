"""Functions of the user's own: found, and called as the protocol says."""

from pathlib import Path
from typing import Protocol

import pytest

from causal_lm_router.config.own_code import load_function


class Doubles(Protocol):
    """Doubles a number."""

    def __call__(self, number: int, scale: int) -> int:
        """Return twice the number."""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, which is not on Python's path."""
    (tmp_path / "numbers_of_a_lab.py").write_text("def twice(number, scale=2):\n    return 2 * number\n\nLIMIT = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return "numbers_of_a_lab"


def test_a_function_in_the_working_directory_is_found(lab: str) -> None:
    assert load_function("data.function", f"{lab}:twice", Doubles)(4, 1) == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{lab}:thrice", "data.function must name a function that can be imported, got .*thrice"),
        ("no_lab_at_all:twice", "data.function must name a function that can be imported, got 'no_lab_at_all:twice'"),
        ("{lab}:LIMIT", r"data.function must name a function that is called as LIMIT\(number, scale\)"),
        ("json:dumps", r"data.function must name a function that is called as dumps\(number, scale\)"),
    ],
)
def test_what_cannot_be_called_like_that_is_refused(lab: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_function("data.function", name.format(lab=lab), Doubles)
