"""The documents: their pages, the commands they show, and what stands in backticks."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import CHECKOUT

PAGES = (
    CHECKOUT / "README.md",
    *sorted((CHECKOUT / "docs").glob("*.md")),
    CHECKOUT / "experiments" / "README.md",
    CHECKOUT / "experiments" / "MEASUREMENTS.md",
    CHECKOUT / "experiments" / "LOG.md",
    CHECKOUT / "CHANGELOG.md",
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(`+)(.+?)\1", flags=re.DOTALL)


class Command(NamedTuple):
    """A command that a page shows, as a shell splits it."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {' '.join(self.words)}"


def name_of(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def spans(page: Path) -> list[str]:
    """What stands in backticks outside of fenced blocks, with line breaks as spaces."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(text.split()) for _, text in _INLINE.findall(prose)]


def commands(page: Path) -> list[Command]:
    """Every command of the page: those of its bash blocks, and those that stand in backticks with arguments."""
    shown = [words for block in blocks(page, "bash") for words in shell_words(block)]
    inline = [shlex.split(span) for span in spans(page) if re.match(r"(causal-lm-router|python|make) \S", span)]
    return [Command(page, tuple(words)) for words in [*shown, *inline]]


def shell_words(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of a bash block; a line `name="text"` gives later ones the value of `$name`."""
    values: dict[str, str] = {}
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending = f"{pending} {line}".strip()
        for name, value in values.items():
            pending = pending.replace(f"${name}", value)
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue  # a quotation goes on in the next line
        assignment = re.fullmatch(r"(\w+)=(.+)", words[0], flags=re.DOTALL) if len(words) == 1 else None
        if assignment:
            values[assignment[1]] = " ".join(assignment[2].split())
        elif words:
            yield words
        pending = ""
    assert not pending, pending
