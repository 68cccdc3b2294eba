"""Settings of the groups `prompt` and `target`: what a training row says."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import Settings, check


class TargetKind(StrEnum):
    """What stands for a candidate."""

    name = "name"
    short_id = "short_id"
    token = "token"
    score_class = "score_class"


class CutSide(StrEnum):
    """Which part of an over-long query is cut away."""

    left = "left"
    middle = "middle"


@dataclass
class PromptConfig(Settings):
    """Query to prompt text, candidate to target text."""

    template: str
    """Text before the target: `{query}` once, `{candidates}` (the pool's names, comma-separated) at most once."""
    target: str
    """Text to generate: `{name}` with the white space before it. The end token is added by itself."""
    max_length: int
    """Tokens of prompt and target together; longer inputs lose part of the query, never instruction or target."""
    cut_side: CutSide
    """Which part of an over-long query is cut: its `left` (beginning) or its `middle`."""
    shuffle_seed: int | None
    """Seed of the candidates' order in `{candidates}`, drawn anew for every query; null lists them in pool order."""
    neutralise_markers: bool
    """Rewrite the prompt's own markers (such as `Best LLM:`) where they occur inside a query."""

    def _own_problems(self) -> Iterator[str]:
        text, target = self.template, self.target
        yield from check(text.count("{query}") == 1, "prompt.template", "a text with {query} once", text)
        named = text.count("{candidates}")
        yield from check(named <= 1, "prompt.template", "a text with {candidates} at most once", text)
        yield from check(text == text.rstrip(), "prompt.template", "a text without white space at its end", text)
        yield from check(target.strip() == "{name}", "prompt.target", "{name} with white space around it", target)
        yield from check(self.max_length >= 16, "prompt.max_length", "an integer of at least 16", self.max_length)


@dataclass
class TargetConfig(Settings):
    """What stands for a candidate."""

    kind: TargetKind
    """What stands for a candidate: its `name`, a letter (`short_id`), a new `token` with a trained embedding, or, for
    two candidates, a `score_class` of the weak one (RouteLLM)."""
