"""Settings of the groups `prompt`, `target` and `objective`: what a training row says."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import require
from causal_lm_router.targets import TargetKind


class CutSide(StrEnum):
    """Which part of an over-long query is cut away."""

    left = "left"
    middle = "middle"


class ObjectiveKind(StrEnum):
    """What training makes likely."""

    completion = "completion"
    multi_positive = "multi_positive"
    soft = "soft"
    per_candidate = "per_candidate"


@dataclass
class PromptConfig:
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

    def __post_init__(self) -> None:
        require(self.template.count("{query}") == 1, "prompt.template", self.template, "a text with {query} once")
        require(self.template.count("{candidates}") <= 1, "prompt.template", self.template, "{candidates} at most once")
        ends_bare = self.template == self.template.rstrip()
        require(ends_bare, "prompt.template", self.template, "a text without white space at its end")
        require(self.target.strip() == "{name}", "prompt.target", self.target, "{name} with white space around it")
        require(self.max_length >= 16, "prompt.max_length", self.max_length, "an integer of at least 16")


@dataclass
class TargetConfig:
    kind: TargetKind
    """What stands for a candidate: its `name`, a letter (`short_id`), a new `token` with a trained embedding, or, for
    two candidates, a `score_class` of the weak one (RouteLLM)."""


@dataclass
class ObjectiveConfig:
    kind: ObjectiveKind
    """What training makes likely: the label (`completion`), any best candidate (`multi_positive`), candidates in the
    shares softmax(score / temperature) (`soft`), or each by its own score (`per_candidate`)."""
    temperature: float
    """tau of `soft`: the smaller, the more the best candidates count."""
    reference_offset: float
    """`per_candidate` reads the log-odds of a candidate's score from the log-likelihood of its target minus that of
    ending at once, minus this offset: the larger, the less likely a generation is to end without a name."""
    valid_weight: float
    """Weight, in `per_candidate`, of the negative log-probability of naming any candidate at all: what keeps free
    generations in the pool."""
    undecided_weight: float
    """Weight of the training queries on which all candidates score the same; others have 1."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, "objective.temperature", self.temperature, "a number above 0")
        for name in ("reference_offset", "valid_weight", "undecided_weight"):
            require(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "a number of at least 0")
