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
    outcome = "outcome"


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
    two candidates, a `score_class` of the weak one (RouteLLM). Or the `outcome`: yes or no to whether a candidate
    answers right, asked for each candidate with its record on similar training queries."""


@dataclass
class OutcomeTargetConfig(TargetConfig):
    """`target=outcome`: each candidate is judged by its record on similar training queries, its name is not shown."""

    record: str
    """Text between the query and the answer, in the place of what follows the query in `prompt.template`. Of the
    candidate it shows: {outcomes}, yes or no for each neighbour, the most similar first; {similar}, its mean score on
    the `num_averaged` most similar queries; {all}, that on all queries."""
    num_neighbours: int
    """Training queries whose outcomes are shown one by one, at most: a score from .5 on is a yes."""
    num_averaged: int
    """Training queries that {similar} is the mean of, at most."""
    embedding: str
    """What turns queries into vectors to find similar ones: `minilm` (all-MiniLM-L6-v2, from a Python package), or the
    hub name or folder of a sentence-transformers model."""
    max_trained_queries: int | None
    """Train on at most so many of the training queries, drawn at random; null trains on all. The others are neighbours
    all the same."""

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("target", "num_neighbours", "num_averaged")
        yield from self.check_counts("target", "max_trained_queries", or_null=True)
        record = self.record
        shows = all(record.count(part) <= 1 for part in RECORD_PARTS) and any(part in record for part in RECORD_PARTS)
        yield from check(shows, "target.record", "a text with some of {outcomes}, {similar}, {all}, once each", record)
        yield from check(record == record.rstrip(), "target.record", "a text without white space at its end", record)
        named = bool(self.embedding.strip())
        yield from check(named, "target.embedding", "minilm, a hub name or a folder", self.embedding)


RECORD_PARTS = ("{outcomes}", "{similar}", "{all}")
"""What `target.record` can show of a candidate."""
TARGET_SCHEMAS: dict[TargetKind, type[TargetConfig]] = {
    **dict.fromkeys(TargetKind, TargetConfig),
    TargetKind.outcome: OutcomeTargetConfig,
}
"""The keys of `target`, by `target.kind`."""
