"""Targets: the texts a router can generate. Each stands for a candidate.

name         the candidate's name, between the text of `prompt.target`
short_id     a letter for each candidate, in its place
token        a new token for each candidate, which ends the generation by itself
score_class  five new tokens, [1] to [5]: how good the weak one of two candidates would be; 4 and 5 stand for the weak
             one, 1 to 3 for the strong one (RouteLLM, arXiv 2406.18665, section 4.2 and its code's threshold of 4)
outcome      yes or no: whether one candidate, whose record the prompt shows, answers right (SCOPE, arXiv 2601.22323)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase

from causal_lm_router.config.generation import ParseMode
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.prompting.parse import parse_generation
from causal_lm_router.routing import Generation, ParsedRoute, RoutingExample

NAME = "{name}"
YES, NO = "yes", "no"
SCORE_CLASSES = 5
RIGHT_FROM = 0.5
"""The least score that counts as a right answer where it has to be a yes or a no."""
WEAK_FROM = 4
"""The least score class at which the weak candidate is called."""


@dataclass(frozen=True)
class Targets:
    """The targets of a pool.

    `score_class` alone needs `strong`: the candidate to call where the weak one would not do.

    Raises:
        ValueError: `score_class` with a pool of other than two candidates, or whose `strong` is none of them.
    """

    kind: TargetKind
    candidate_names: tuple[str, ...]
    template: str = " {name}"
    strong: str | None = None

    def __post_init__(self) -> None:
        if self.kind is TargetKind.score_class:
            if len(self.candidate_names) != 2:
                raise ValueError(
                    f"target.kind=score_class must have a pool of 2 candidates, got {len(self.candidate_names)}"
                )
            if self.strong not in self.candidate_names:
                raise ValueError(
                    f"target.kind=score_class must have a strong candidate of the pool {self.candidate_names}, "
                    f"got {self.strong!r}"
                )

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """The candidate that each target stands for; an outcome is asked of each, and stands for itself."""
        if self.kind is TargetKind.outcome:
            return self.shown
        if self.kind is not TargetKind.score_class:
            return self.candidate_names
        strong, weak = str(self.strong), self.weak
        # The classes say how good the weak one is: from WEAK_FROM on it is good enough.
        return tuple(weak if number >= WEAK_FROM else strong for number in range(1, SCORE_CLASSES + 1))

    @cached_property
    def weak(self) -> str:
        """The other one of two candidates."""
        return next(name for name in self.candidate_names if name != self.strong)

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The text of each target without the white space around it: what a generation is parsed for."""
        match self.kind:
            case TargetKind.name:
                return self.candidate_names
            case TargetKind.short_id:
                return tuple(_letters(number) for number in range(len(self.candidate_names)))
            case TargetKind.token:
                return tuple(f"<|llm:{name}|>" for name in self.candidate_names)
            case TargetKind.score_class:
                return tuple(f"<|score:{number}|>" for number in range(1, SCORE_CLASSES + 1))
            case TargetKind.outcome:
                return (YES, NO)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each target as it follows the prompt."""
        return self.shown if self.are_tokens else tuple(self.template.replace(NAME, text) for text in self.shown)

    @property
    def are_tokens(self) -> bool:
        """True when each target is one new token, which ends the generation."""
        return self.kind in (TargetKind.token, TargetKind.score_class)

    @cached_property
    def new_tokens(self) -> Mapping[str, str]:
        """New token -> the text whose tokens' mean embedding it starts from."""
        if self.kind is TargetKind.token:
            return dict(zip(self.shown, self.candidate_names, strict=True))
        if self.kind is TargetKind.score_class:
            return {text: str(number) for number, text in enumerate(self.shown, start=1)}
        return {}

    def number_of(self, example: RoutingExample, label: str) -> int:
        """Return the number of the target that an example with this label teaches."""
        if self.kind is TargetKind.score_class:
            # A score of 0..1 to the nearest of five classes.
            return round((SCORE_CLASSES - 1) * example.scores[self.weak])
        if self.kind is TargetKind.outcome:
            return self.shown.index(say_outcome(example.scores[label]))
        return self.candidate_names.index(label)

    def parse(self, generation: Generation, mode: ParseMode, fuzzy_threshold: float) -> ParsedRoute:
        """Return the candidate that a generation names, or why it names none; see `parse_generation`."""
        if self.are_tokens and generation.finish_reason == "length":
            # One token is generated completely or not at all, so a name cannot have been cut off.
            generation = Generation(generation.text, "stop", generation.num_tokens, generation.logprob)
        route = parse_generation(generation, self.shown, mode, fuzzy_threshold)
        if route.candidate is None:
            return route
        return ParsedRoute(self.candidates[self.shown.index(route.candidate)], None, route.fuzzy)


def say_outcome(score: float) -> str:
    """Return a score as a yes or a no."""
    return YES if score >= RIGHT_FROM else NO


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letters = ""
    # Base 26 without a zero: after Z comes AA.
    while number >= 0:
        number, letter = divmod(number, len(ascii_uppercase))
        letters = ascii_uppercase[letter] + letters
        number -= 1
    return letters
