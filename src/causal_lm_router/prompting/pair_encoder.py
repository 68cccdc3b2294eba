"""Prompts of pairs: a query with one candidate's record on similar queries, after which a yes or a no follows.

The method of SCOPE (arXiv 2601.22323), which also predicts how long an answer becomes. The name of the candidate is not
in the prompt, so that a router can be asked for candidates it was not trained on.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import RECORD_PARTS, OutcomeTargetConfig, PromptConfig
from causal_lm_router.data.neighbours import ScoredQueries
from causal_lm_router.files.source_code import code_alone
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.prompt import QUERY, PromptFormat
from causal_lm_router.prompting.targets import YES, Targets, say_outcome

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Takes texts, returns a vector of unit length for each."""
UNKNOWN = "unknown"
"""Stands for what cannot be known, as a candidate has no scores on other queries."""


class PairEncoder(Encoder):
    """The prompts of every pair of a query and a candidate; those of one query begin alike and cut it alike.

    `neighbours` has a column for each candidate of the pool, in its order. `embed` makes vectors of queries that are
    not among them.

    Raises:
        ValueError: as `Encoder`, `target.num_neighbours` is more than there are, or a candidate has no scores.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        targets: Targets,
        settings: OutcomeTargetConfig,
        neighbours: ScoredQueries,
        embed: Embed,
    ) -> None:
        assert neighbours.num_candidates == len(targets.candidate_names), "a column each"
        check_num_neighbours(settings, len(neighbours.vectors))
        _check_scores(targets, neighbours)
        self.neighbours = neighbours
        self._settings, self._embed = settings, embed
        super().__init__(tokenizer, config, targets)

    def with_neighbours(self, neighbours: ScoredQueries) -> "PairEncoder":
        """Return the encoder of the same pool with other scores known of it."""
        return PairEncoder(self.tokenizer, self.config, self.targets, self._settings, neighbours, self._embed)

    def _make_format(self) -> PromptFormat:
        template = self.config.template.partition(QUERY)[0] + QUERY + self._settings.record
        return PromptFormat(template, self.targets, self.config.neutralise_markers)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything the token ids of a query's pairs depend on, the code that makes them included."""
        code = [code_alone(inspect.getsource(sys.modules[part.__module__])) for part in (PairEncoder, ScoredQueries)]
        settings = self._settings
        counts = [settings.num_neighbours, settings.num_averaged, settings.embedding]
        whole = [super().fingerprint, code, counts, self.neighbours.content_hash]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

    def encode_prompts(
        self, queries: Sequence[str], listed: Sequence[str] | None = None, *, cut: bool = True
    ) -> list[EncodedPrompt]:
        """Return the pairs of every query in order, those with the candidates of `listed`, None meaning the pool."""
        names = self.targets.candidate_names
        columns = [column for column, name in enumerate(names) if listed is None or name in listed]
        frames = [[row[column] for column in columns] for row in self._frames(queries)]
        neutral = [self.format.neutralise(query) for query in queries]
        texts = [f"{head}{query}{tail}" for query, row in zip(neutral, frames, strict=True) for head, tail in row]
        encoded = self._ids(texts) if texts else []
        prompts = []
        for number, query in enumerate(queries):
            rows = encoded[number * len(columns) : (number + 1) * len(columns)]
            is_long = cut and max(map(len, rows)) > self.max_prompt_tokens
            pairs = self._cut(query, rows, frames[number]) if is_long else rows
            prompts.append(EncodedPrompt(pairs[0], is_long, tuple(pairs)))
        return prompts

    def example_prompt(self, query: str, candidate_name: str) -> str:
        """Return the text of the prompt of a pair."""
        head, tail = self._frames([query])[0][self.targets.candidate_names.index(candidate_name)]
        return f"{head}{self.format.neutralise(query)}{tail}"

    def _frames(self, queries: Sequence[str]) -> list[list[tuple[str, str]]]:
        """Return what stands before and after every query, for each candidate."""
        if not queries:
            return []
        num_shown, num_averaged = self._settings.num_neighbours, self._settings.num_averaged
        head, tail = self.format.frame("")
        nearest = self.neighbours.nearest(queries, self._vectors(queries), max(num_shown, num_averaged))
        return [
            [(head, self._fill(tail, *record)) for record in zip(scores, means, strict=True)]
            for scores, means in zip(nearest.scores, nearest.means, strict=True)
        ]

    def _fill(self, tail: str, scores: NDArray[np.float32], mean: float) -> str:
        """Return the text behind the query with what a candidate scored on the nearest queries, and on all."""
        known = scores[~np.isnan(scores)]
        outcomes = " ".join(say_outcome(score) for score in known[: self._settings.num_neighbours])
        similar = known[: self._settings.num_averaged]
        said = (outcomes or UNKNOWN, _say_share(similar.mean(dtype=np.float64) if len(similar) else np.nan))
        for part, text in zip(RECORD_PARTS, (*said, _say_share(mean)), strict=True):
            tail = tail.replace(part, text)
        return tail

    def _vectors(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Return the queries' vectors [Q, D]; most training queries are neighbours themselves and have theirs."""
        rows = self.neighbours.find_rows(queries)
        others = {query: None for query, row in zip(queries, rows, strict=True) if row is None}
        made = dict(zip(others, self._embed(list(others)), strict=True)) if others else {}
        known = self.neighbours.vectors
        return np.stack([made[query] if row is None else known[row] for query, row in zip(queries, rows, strict=True)])

    def _longest_empty_prompt(self) -> str:
        tail = self.format.frame("")[1]
        longest = (" ".join([YES] * self._settings.num_neighbours), "100%", "100%")
        for part, text in zip(RECORD_PARTS, longest, strict=True):
            tail = tail.replace(part, text)
        return self.format.frame("")[0] + tail


def _say_share(share: float) -> str:
    return UNKNOWN if np.isnan(share) else f"{share:.0%}"


def check_num_neighbours(settings: OutcomeTargetConfig, num_queries: int) -> None:
    """Check that there are neighbours enough for a training query, which is none of its own.

    Raises:
        ValueError: `target.num_neighbours` is more.
    """
    if settings.num_neighbours >= num_queries:
        raise ValueError(
            f"target.num_neighbours must be in 1..{num_queries - 1}, below the number of training queries, got "
            f"{settings.num_neighbours}"
        )


def _check_scores(targets: Targets, neighbours: ScoredQueries) -> None:
    for name, scores in zip(targets.candidate_names, neighbours.scores.T, strict=True):
        if np.isnan(scores).all():
            raise ValueError(f"{name!r} must have a score on at least 1 query to be routed to, got none")
