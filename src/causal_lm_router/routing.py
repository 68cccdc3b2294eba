"""The nouns of routing: queries with scores, candidates, generations, routes and outcomes."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class ParseFailure(StrEnum):
    """Why a generation names no candidate."""

    empty = "empty"
    unknown = "unknown"
    ambiguous = "ambiguous"
    truncated = "truncated"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LLM that can be chosen. Prices are USD per million tokens, None where unknown."""

    name: str
    input_price: float | None = None
    output_price: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class RoutingExample:
    """One query with the score (0..1) and, where known, the cost (USD) of every candidate's answer.

    `expected_scores` holds each candidate's expected score where the data's model is known (simulated data), else None.
    `source_split` is the split the source itself assigns ("train", "test"), or None.
    """

    query_id: str
    query: str
    task: str
    scores: Mapping[str, float]
    costs: Mapping[str, float] | None = None
    expected_scores: Mapping[str, float] | None = None
    source_split: str | None = None

    def best_candidates(self) -> list[str]:
        """Names of all candidates whose score equals the best score, in pool order."""
        best = max(self.scores.values())
        return [name for name, score in self.scores.items() if score == best]

    def is_undecided(self) -> bool:
        """True when every candidate has the same score, so that no route is better than another."""
        return len(set(self.scores.values())) == 1


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A source row left out under `data.on_bad_row=skip`: where it is and what is wrong with it."""

    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoutingData:
    """What a source yields: examples over one complete score matrix, the pool, and the rows it left out."""

    examples: list[RoutingExample]
    pool: tuple[Candidate, ...]
    skipped_rows: tuple[SkippedRow, ...] = ()

    @property
    def candidate_names(self) -> list[str]:
        """Candidate names in pool order, the order of every example's scores."""
        return [candidate.name for candidate in self.pool]


@dataclass(frozen=True, slots=True)
class Generation:
    """Text out of the base model. `finish_reason` is "stop" (it ended itself) or "length" (it was cut off).

    `logprob` is the sum of the generated tokens' log-probabilities (nats), None where the backend was not asked for it.
    """

    text: str
    finish_reason: str
    num_tokens: int = 0
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class ParsedRoute:
    """The candidate a generation names, or the failure to name one: exactly one of the two is set."""

    candidate: str | None
    failure: ParseFailure | None = None
    fuzzy: bool = False

    def __post_init__(self) -> None:
        assert (self.candidate is None) != (self.failure is None)


@dataclass(frozen=True, slots=True)
class RouteOutcome:
    """One query's label, generation and route. `called` is the LLM that would be called: the route or the fallback."""

    example: RoutingExample
    label: str
    generation: Generation
    route: ParsedRoute
    called: str | None
    truncated_query: bool = False
    predicted: Mapping[str, float] | None = None
    """What the router says the answer of each candidate is worth, or how likely it would choose it, 0..1: the higher,
    the better. None where the router names a candidate and says nothing of the others."""

    @property
    def score(self) -> float:
        """Score of the called candidate's answer; 0 where no LLM is called."""
        return 0.0 if self.called is None else self.example.scores[self.called]

    @property
    def cost(self) -> float | None:
        """Cost (USD) of the called candidate's answer; 0 where no LLM is called, None where costs are unknown."""
        if self.example.costs is None:
            return None
        return 0.0 if self.called is None else self.example.costs[self.called]

    @property
    def is_correct(self) -> bool:
        """True when the route's score equals the best score (ties count as right); a parse failure is never right."""
        candidate = self.route.candidate
        return candidate is not None and self.example.scores[candidate] == max(self.example.scores.values())


def check_pool(names: Sequence[str]) -> None:
    """Check that candidate names can be generated and parsed back without confusion.

    Raises ValueError for fewer than two names, repeated names, and names that are empty, carry outer white space or
    control characters, or differ only in Unicode normalisation.
    """
    if len(names) < 2:
        raise ValueError(f"pool: got {len(names)} candidate(s) {list(names)}, routing needs at least 2")
    for name in names:
        if not name or name != name.strip():
            raise ValueError(f"pool: candidate name {name!r} is empty or has outer white space")
        if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name):
            raise ValueError(f"pool: candidate name {name!r} holds a line break or control character")
    seen: dict[str, str] = {}
    for name in names:
        normalised = unicodedata.normalize("NFC", name)
        if normalised in seen:
            raise ValueError(f"pool: candidate names {seen[normalised]!r} and {name!r} are the same name")
        seen[normalised] = name


def check_query(value: object, max_chars: int) -> str:
    """Return `value`; raise ValueError unless it is a text, not blank, of at most `max_chars` characters."""
    if not isinstance(value, str):
        raise ValueError(f"query is a {type(value).__name__}, not a text")
    if not value.strip():
        raise ValueError("query is empty")
    if len(value) > max_chars:
        raise ValueError(f"query has {len(value):,} characters, data.max_query_chars allows {max_chars:,}")
    return value


def check_score(value: object) -> float:
    """Return `value` as a float; raise ValueError unless it is a number in 0..1."""
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"score {value!r} is not a number in 0..1")
    return float(value)


def check_cost(value: object) -> float:
    """Return `value` as a float; raise ValueError unless it is a finite number of USD, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"cost {value!r} is not a finite number of USD, at least 0")
    return float(value)
