"""Query and pool to prompt text, candidate to target text. Plain text only: tokens are `encoding.py`'s matter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

QUERY, CANDIDATES, NAME = "{query}", "{candidates}", "{name}"


@dataclass(frozen=True)
class PromptFormat:
    """A prompt template and a target template, filled for one pool.

    `template` holds `{query}` once and may hold `{candidates}` once; `target` holds `{name}` once. Prompt text and
    target text are made by replacement, never by `str.format`, so braces in queries and names stay as they are.
    """

    template: str
    target: str
    names: tuple[str, ...]
    neutralise_markers: bool = True

    @cached_property
    def head(self) -> str:
        """The prompt's text before the query."""
        return self._fill(self.template.partition(QUERY)[0])

    @cached_property
    def tail(self) -> str:
        """The prompt's text after the query."""
        return self._fill(self.template.partition(QUERY)[2])

    def _fill(self, text: str) -> str:
        return text.replace(CANDIDATES, ", ".join(self.names))

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """The template's own markers: the words before a colon at a line's start, such as `Query` and `Best LLM`."""
        found = re.findall(r"^[ \t]*([^\n{}:]+?)[ \t]*:", self.template, flags=re.MULTILINE)
        return tuple(dict.fromkeys(found))

    def neutralised(self, query: str) -> str:
        """Return the query with the colon of every marker in it turned into a dash: it cannot mimic the prompt.

        Case and white space inside a marker do not matter, nor what stands before it, since a cut may take that away.
        Off with `neutralise_markers=False`.
        """
        if not self.neutralise_markers:
            return query
        for marker in self.markers:
            words = r"\s+".join(re.escape(word) for word in marker.split())
            query = re.sub(rf"({words})\s*:", r"\1 -", query, flags=re.IGNORECASE)
        return query

    def prompt_text(self, query: str) -> str:
        """Return the prompt of a query, up to where the generation starts."""
        return f"{self.head}{self.neutralised(query)}{self.tail}"

    def target_text(self, name: str) -> str:
        """Return the text to generate for a candidate, without the end token."""
        return self.target.replace(NAME, name)


def make_format(template: str, target: str, names: Sequence[str], neutralise_markers: bool) -> PromptFormat:
    """Return the format for a pool given as any sequence of names."""
    return PromptFormat(template, target, tuple(names), neutralise_markers)
