"""From a query and the pool to the text of a prompt; `encoder.py` turns the text into tokens."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.prompting.targets import Targets

QUERY, CANDIDATES = "{query}", "{candidates}"


@dataclass(frozen=True)
class PromptFormat:
    """A prompt template filled for the targets of one pool.

    `template` holds `{query}` once and may hold `{candidates}` once. Prompt text and target text are made by
    replacement, never by `str.format`, so braces in queries and names stay as they are. With `shuffle_seed` the
    candidates of every query stand in an order of its own, drawn from (seed, query).
    """

    template: str
    targets: Targets
    neutralise_markers: bool = True
    shuffle_seed: int | None = None

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """Names of the pool, in its order."""
        return self.targets.candidate_names

    def frame(self, query: str, listed: Sequence[str] | None = None) -> tuple[str, str]:
        """Return the prompt's text before and after a query; it lists the candidates in `listed`, None meaning all."""
        head, _, tail = self.template.partition(QUERY)
        if CANDIDATES not in self.template:
            return head, tail
        candidates = ", ".join(self._listing(query, self.candidate_names if listed is None else listed))
        return head.replace(CANDIDATES, candidates), tail.replace(CANDIDATES, candidates)

    def _listing(self, query: str, listed: Sequence[str]) -> list[str]:
        shows_id = self.targets.kind is TargetKind.short_id
        # A letter means nothing by itself, so the prompt says which name it stands for.
        texts = {
            name: f"{shown} = {name}" if shows_id else name
            for name, shown in zip(self.candidate_names, self.targets.shown, strict=False)
        }
        # Always in the order of the pool, not in the order of `listed`.
        names = [name for name in self.candidate_names if name in listed]
        if self.shuffle_seed is not None:
            # Seeded by a text, Python's generator draws the same in every process; `hash` would not.
            random.Random(f"{self.shuffle_seed} {query}").shuffle(names)
        return [texts.get(name, name) for name in names]

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """The template's own markers: the words before a colon at a line's start, such as `Query` and `Best LLM`."""
        found = re.findall(r"^[ \t]*([^\n{}:]+?)[ \t]*:", self.template, flags=re.MULTILINE)
        return tuple(dict.fromkeys(found))

    def neutralise(self, query: str) -> str:
        """Return the query with the colon of every marker in it turned into a dash: it cannot mimic the prompt.

        Case and white space inside a marker do not matter, nor what stands before it, since a cut may take that away.
        Off with `neutralise_markers=False`.
        """
        if not self.neutralise_markers:
            return query
        # The words stay readable; without its colon a marker is no longer one.
        for marker in self.markers:
            words = r"\s+".join(re.escape(word) for word in marker.split())
            query = re.sub(rf"({words})\s*:", r"\1 -", query, flags=re.IGNORECASE)
        return query

    def prompt_text(self, query: str, listed: Sequence[str] | None = None) -> str:
        """Return the prompt of a query, up to where the generation starts."""
        head, tail = self.frame(query, listed)
        return f"{head}{self.neutralise(query)}{tail}"
