"""The nouns of routing: queries with scores, candidates, generations, routes and outcomes."""

import math
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

FEWEST_QUERIES = 10
"""Fewer queries may look suspicious by chance."""
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that show nothing and yet change what is seen: line breaks and other control
characters, zero-width and direction marks, halves of surrogate pairs."""


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
    size: float | None = None
    """Billions of parameters; None where unknown."""


class CandidateNumbers(Mapping[str, float]):
    """A number per candidate, in pool order: a dictionary that cannot change, in a third of the memory.

    A million queries have three of them each. Rows of one pool share `columns`, which maps a name to its place.
    """

    __slots__ = ("_columns", "_numbers")

    def __init__(self, columns: Mapping[str, int], numbers: Iterable[float]) -> None:
        self._columns = columns
        self._numbers = array("d", numbers)

    def __getitem__(self, name: str) -> float:
        """Return a candidate's number."""
        return self._numbers[self._columns[name]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in pool order."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self._columns)

    def __repr__(self) -> str:
        """Return what the dictionary would show."""
        return repr(dict(self))


@dataclass(frozen=True, slots=True)
class RoutingExample:
    """One query with the score (0..1) and, where known, the cost (USD) of every candidate's answer.

    `expected_scores` holds each candidate's expected score where the data's model is known (simulated data), else None.
    `source_split` is the split the source itself assigns ("train", "validation", "test"), or None. Queries of
    one `family` (variants of one question) or one `group` (which the user asked for) stay in one split.
    """

    query_id: str
    query: str
    task: str
    scores: Mapping[str, float]
    costs: Mapping[str, float] | None = None
    expected_scores: Mapping[str, float] | None = None
    source_split: str | None = None
    family: str | None = None
    group: str | None = None
    num_choices: int | None = None
    """Number of answers to choose from, where the query has some; a random answer is right on one query of so many."""

    def reordered(self, candidate_names: Sequence[str]) -> "RoutingExample":
        """Return the example with scores and costs in the order of these names, which must be its candidates."""

        def sort(values: Mapping[str, float] | None) -> dict[str, float] | None:
            return None if values is None else {name: values[name] for name in candidate_names}

        costs, expected = sort(self.costs), sort(self.expected_scores)
        return replace(self, scores=sort(self.scores) or {}, costs=costs, expected_scores=expected)

    def best_candidates(self) -> list[str]:
        """Return the names of all candidates whose score equals the best score, in pool order."""
        best = max(self.scores.values())
        return [name for name, score in self.scores.items() if score == best]

    def is_undecided(self) -> bool:
        """Return whether all candidates have the same score, so that no route is better than another."""
        return len(set(self.scores.values())) == 1


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A source row that was left out: its location and the reason."""

    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoutingData:
    """The data of a source: examples that all score the whole pool, the pool, and the rows it left out.

    `warnings` are sentences about what the source noticed and the examples no longer show.
    """

    examples: list[RoutingExample]
    pool: tuple[Candidate, ...]
    skipped_rows: tuple[SkippedRow, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def candidate_names(self) -> list[str]:
        """Candidate names in pool order, the order of every example's scores."""
        return [candidate.name for candidate in self.pool]


@dataclass(frozen=True, slots=True)
class Generation:
    """Text that the base model generated. `finish_reason` is "stop" (it ended by itself) or "length" (it was cut off).

    `logprob` is the sum of the generated tokens' log-probabilities (nats), None if the backend was not asked for it.
    """

    text: str
    finish_reason: str
    num_tokens: int = 0
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class ParsedRoute:
    """The candidate that a generation names, or the failure to name one: exactly one of the two is set."""

    candidate: str | None
    failure: ParseFailure | None = None
    fuzzy: bool = False

    def __post_init__(self) -> None:
        assert (self.candidate is None) != (self.failure is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOutcome:
    """One query's label, generation and route; `called` is the LLM that would be called, the route or the fallback."""

    example: RoutingExample
    label: str
    generation: Generation
    route: ParsedRoute
    called: str | None
    truncated_query: bool = False
    predicted: Mapping[str, float] | None = None
    """Candidate -> the predicted score of its answer or the probability to choose it, 0..1; higher is better.

    None if the router only names a candidate and does not score the others.
    """

    @property
    def score(self) -> float:
        """Score of the called candidate's answer; 0 if no LLM is called."""
        return 0.0 if self.called is None else self.example.scores[self.called]

    @property
    def cost(self) -> float | None:
        """Cost (USD) of the called candidate's answer; 0 if no LLM is called, None if costs are unknown."""
        if self.example.costs is None:
            return None
        return 0.0 if self.called is None else self.example.costs[self.called]

    @property
    def is_correct(self) -> bool:
        """Whether the route's score equals the best score: ties count as correct, a parse failure never does."""
        candidate = self.route.candidate
        return candidate is not None and self.example.scores[candidate] == max(self.example.scores.values())


def check_pool(candidate_names: Sequence[str]) -> None:
    """Check that candidate names can be generated and parsed back without confusion.

    Raises:
        ValueError: there are fewer than two names; a name is empty or has outer white space or INVISIBLE characters;
            two names are equal, or differ only in Unicode normalisation.
    """
    if len(candidate_names) < 2:
        raise ValueError(f"the pool must have at least 2 candidates, got {list(candidate_names)}")
    for name in candidate_names:
        if not isinstance(name, str) or not name or name != name.strip():
            raise ValueError(f"a candidate name must be a text, not be empty or have outer white space, got {name!r}")
        # A generation that names a candidate is one line, and two names that look the same must be the same.
        if any(unicodedata.category(char) in INVISIBLE for char in name):
            raise ValueError(
                "a candidate name must not have line breaks, control characters, zero-width or direction marks, "
                f"got {name!r}"
            )
    # Normalised, since a tokenizer may write one form of an accented letter where the pool has the other.
    seen: dict[str, str] = {}
    for name in candidate_names:
        normalised = unicodedata.normalize("NFC", name)
        if normalised in seen:
            raise ValueError(f"candidate names must differ, got {seen[normalised]!r} and {name!r}")
        seen[normalised] = name


def describe_other_pool(candidate_names: Sequence[str], expected: Sequence[str]) -> str:
    """Return how a pool differs from the expected one: `it lacks a; it adds b (the pool is a, c)`."""
    differences = [
        f"it {verb} {', '.join(names)}"
        for verb, names in (
            ("lacks", [name for name in expected if name not in candidate_names]),
            ("adds", [name for name in candidate_names if name not in expected]),
        )
        if names
    ]
    return f"{'; '.join(differences) or 'it has another order'} (the pool is {', '.join(expected)})"


def check_text(value: object, what: str) -> str:
    """Return `value`, which `what` names in messages.

    Raises:
        ValueError: it is no text, or holds half a surrogate pair, which cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = ascii(value[error.start])
        raise ValueError(f"{what} holds half a surrogate pair ({half}), which is no character") from None
    return value


def check_query(value: object, max_chars: int) -> str:
    """Return `value`, a query to use.

    Raises:
        ValueError: it is no text, is blank, has more than `max_chars` characters, or `check_text` refuses it.
    """
    if not isinstance(value, str):
        raise ValueError(f"query must be a text, got {type(value).__name__}")
    if not value.strip():
        raise ValueError("query is empty")
    if len(value) > max_chars:
        raise ValueError(f"query has {len(value):,} characters, data.max_query_chars allows {max_chars:,}")
    return check_text(value, "query")


def check_score(value: object) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: it is no number in 0..1.
    """
    # Sources that say right or wrong give booleans.
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"score must be a number in 0..1, got {value!r}")
    return float(value)


def check_cost(value: object) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: it is not a finite number of USD, at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"cost must be a finite number of USD, at least 0, got {value!r}")
    return float(value)
