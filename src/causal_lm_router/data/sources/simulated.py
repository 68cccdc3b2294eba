"""Simulated routing data: real puzzle queries, and six invented candidates whose answers are drawn from a known model.

Queries come from reasoning-gym: every task type of `TASKS` at `NUM_LEVELS` difficulty levels, in equal shares. No LLM
answers them. The outcome of candidate c on query i follows an item-response model with one ability per task family
(a two-parameter logistic curve with a common slope, as in Lord 1980, "Applications of Item Response Theory"):

    difficulty[i] ~ Normal(LEVEL_DIFFICULTY[level of i], ITEM_SPREAD)
    p[c, i]       = sigmoid(discrimination * (skill[c, family of i] - difficulty[i]))
    score[c, i]   ~ Binomial(num_attempts, p[c, i]) / num_attempts

`expected_scores` holds p, so the best possible router is known: it picks the largest p of each query. Within a family
the curves of two candidates never cross, so the best choice depends only on the family, which the query's text shows,
while the scores that supervise a router are noisy. A cost (USD) is

    (characters of the query / 4 * input_price + output_tokens[c] * output_price) / 1e6.

All draws come from `DATA_SEED` together with `data.simulated.seed`, in one stream per task and level: the same settings
and the same version of reasoning-gym give the same data in every process, and asking for more queries keeps the first.
"""

import importlib
import math
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from causal_lm_router.config import SimulatedConfig, SimulatedDataConfig
from causal_lm_router.data.sources.pool import CHARS_PER_TOKEN, TOKENS_PER_PRICE
from causal_lm_router.data.sources.rows import hash_query
from causal_lm_router.routing import Candidate, CandidateNumbers, RoutingData, RoutingExample
from causal_lm_router.terminal import progress_bar

DATA_SEED = 20260731
"""Entropy of every stream, mixed with `data.simulated.seed`, the task and the level."""

NUM_LEVELS = 3
LEVEL_DIFFICULTY = (-1.6, 0.0, 1.6)
"""Mean difficulty of the easy, the middle and the hard level, on the scale of the skills."""
ITEM_SPREAD = 0.6
"""Standard deviation of the difficulties within a level."""

MAX_QUERY_CHARS = 500
"""Longer questions are dropped and others drawn: short queries keep training on a CPU fast."""
TRIES_PER_QUERY = 20
"""Draws per wanted query, and at least 1,000 in all, before a task counts as having too few distinct questions."""

FAMILIES = ("arithmetic", "number theory", "algebra", "text", "logic", "dates", "puzzles")


@dataclass(frozen=True, slots=True)
class SimulatedCandidate:
    """An invented LLM: prices in USD per million tokens, tokens per answer, and one skill per family of `FAMILIES`."""

    name: str
    input_price: float
    output_price: float
    output_tokens: int
    skills: tuple[float, ...]
    description: str

    def cost(self, query: str) -> float:
        """Cost (USD) of an answer to `query`, at four characters per input token."""
        input_tokens = len(query) / CHARS_PER_TOKEN
        return (input_tokens * self.input_price + self.output_tokens * self.output_price) / TOKENS_PER_PRICE


CANDIDATES = (
    SimulatedCandidate(
        "aster-mini", 0.05, 0.2, 80, (-0.8, -1.4, -1.4, -1.0, -1.4, -0.6, -1.8), "smallest and cheapest, weak all round"
    ),
    SimulatedCandidate(
        "aster-mini-math", 0.1, 0.4, 250, (2.6, 2.4, 1.0, -2.4, -1.4, -0.8, -1.0), "small, tuned on calculation"
    ),
    SimulatedCandidate(
        "borealis-large", 2.5, 10.0, 150, (0.8, 0.4, 0.6, 1.0, 0.8, 2.6, 0.4), "large generalist, knows the world best"
    ),
    SimulatedCandidate(
        "borealis-large-think", 3.0, 12.0, 700, (0.0, 0.4, 2.6, -0.6, 2.6, 0.2, 0.4), "large, deduces step by step"
    ),
    SimulatedCandidate(
        "cobalt-8b-text", 0.15, 0.3, 100, (-1.8, -2.0, -1.6, 2.6, -0.4, -0.4, -1.4), "small, tuned on text editing"
    ),
    SimulatedCandidate(
        "dorado-24b", 0.6, 1.8, 400, (-0.2, 0.0, -0.4, -0.6, 0.2, -1.0, 2.6), "mid-sized, trained on games and search"
    ),
)


_COLUMNS = {one.name: column for column, one in enumerate(CANDIDATES)}


def _levels(**values: tuple[object, ...]) -> tuple[dict[str, Any], ...]:
    """Return one reasoning-gym configuration per level, from one value per level for each parameter."""
    return tuple({name: by_level[level] for name, by_level in values.items()} for level in range(NUM_LEVELS))


TASKS: Mapping[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "basic_arithmetic": (
        "arithmetic",
        # Without division, since the search for terms that divide evenly can take minutes.
        _levels(min_terms=(2, 3, 5), max_terms=(2, 4, 6), max_digits=(2, 3, 4), operators=(("+", "-", "*"),) * 3),
    ),
    "chain_sum": (
        "arithmetic",
        _levels(min_terms=(2, 4, 6), max_terms=(3, 5, 8), min_digits=(2, 2, 3), max_digits=(2, 3, 4)),
    ),
    "products": ("arithmetic", _levels(min_digits=(2, 3, 5), max_digits=(2, 4, 6))),
    "gcd": ("number theory", _levels(max_numbers=(2, 2, 3), min_numbers=(2, 2, 3), max_value=(200, 2000, 9000))),
    "lcm": ("number theory", _levels(max_numbers=(2, 2, 3), min_numbers=(2, 2, 3), max_value=(60, 200, 300))),
    "prime_factorization": ("number theory", _levels(min_value=(2, 5000, 20000), max_value=(4999, 19999, 99999))),
    "count_primes": ("number theory", _levels(max_n=(200, 1000, 10000))),
    "simple_equations": ("algebra", _levels(min_terms=(2, 3, 4), max_terms=(2, 3, 5), max_value=(30, 60, 100))),
    "complex_arithmetic": (
        "algebra",
        _levels(operations_weights=((0.5, 0.5, 0, 0), (0.2, 0.2, 0.6, 0), (0, 0, 0.4, 0.6))),
    ),
    "spell_backward": ("text", _levels(min_word_len=(3, 6, 8), max_word_len=(5, 7, 10))),
    "letter_counting": ("text", _levels(min_words=(5, 8, 15), max_words=(7, 14, 25))),
    "caesar_cipher": ("text", _levels(min_words=(3, 6, 10), max_words=(5, 9, 14))),
    "sentence_reordering": ("text", _levels(min_words_in_sentence=(4, 7, 11), max_words_in_sentence=(6, 10, 16))),
    "syllogism": ("logic", _levels(inversion_probability=(1.0, 0.0, 0.0), allow_some_not=(True, False, True))),
    "aiw": ("logic", _levels(task_type_weights=((1, 0, 0), (1, 0, 0), (0, 1, 0)), max_entities=(6, 20, 20))),
    "family_relationships": ("logic", _levels(min_family_size=(4, 5, 7), max_family_size=(4, 6, 8))),
    "calendar_arithmetic": (
        "dates",
        _levels(
            tasks=(["is_leap_year", "weekday_of_date"], ["weekday_offset"], ["count_days", "count_business_days"]),
            leap_year_range=(800, 800, 800),
        ),
    ),
    "time_intervals": ("dates", _levels(task_types=(["time"], ["date", "time_seconds"], ["datetime_tz"]))),
    "word_ladder": ("puzzles", _levels(min_word_length=(3, 4, 5), max_word_length=(3, 4, 5))),
    "countdown": ("puzzles", _levels(min_numbers=(3, 3, 4), max_numbers=(3, 3, 4), min_target=(20, 200, 200))),
    "maze": (
        "puzzles",
        _levels(min_grid_size=(6, 7, 8), max_grid_size=(6, 7, 8), min_dist=(3, 5, 7), max_dist=(6, 8, 10)),
    ),
}
"""Task type of reasoning-gym -> its family and its parameters at each level."""


def load(config: SimulatedDataConfig) -> RoutingData:
    """Return `data.simulated.num_queries` queries, distinct up to case and white space, with simulated outcomes.

    Raises:
        ValueError: a task is unknown or listed twice, or has too few distinct questions.
    """
    settings = config.simulated
    tasks = _check_tasks(settings.tasks)
    cells = [(task, level) for level in range(NUM_LEVELS) for task in tasks]
    max_chars = min(MAX_QUERY_CHARS, config.max_query_chars)
    seen: set[str] = set()
    examples: list[RoutingExample] = []
    bar = progress_bar(name="making queries", unit="queries", total=settings.num_queries)
    for index, (task, level) in enumerate(cells):
        # Equal shares; the first cells get one query more where the number does not divide.
        num_wanted = settings.num_queries // len(cells) + (index < settings.num_queries % len(cells))
        # One stream per cell, from the task's name and not its place: other tasks and more queries change nothing.
        stream = np.random.default_rng([DATA_SEED, settings.seed, zlib.crc32(task.encode()), level])
        questions = _draw_questions(task, level, num_wanted, int(stream.integers(2**31)), max_chars, seen)
        for number, question in enumerate(questions):
            examples.append(_simulate_example(f"{task}-{level}-{number:05d}", question, task, level, settings, stream))
            bar.update()
    bar.close()
    pool = (Candidate(one.name, one.input_price, one.output_price, one.description) for one in CANDIDATES)
    return RoutingData(examples, tuple(pool))


def _check_tasks(tasks: list[str]) -> list[str]:
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown or len(set(tasks)) < len(tasks):
        raise ValueError(
            f"data.simulated.tasks must list tasks of {', '.join(TASKS)}, each once, or be [], got {tasks}"
        )
    return tasks or list(TASKS)


def _draw_questions(task: str, level: int, num_wanted: int, seed: int, max_chars: int, seen: set[str]) -> Iterator[str]:
    """Yield `num_wanted` questions whose normalised texts are not in `seen`, and add them to it."""
    # Easy tasks repeat their questions, so more are drawn than wanted, up to a limit that shows an exhausted task.
    max_tries = max(1000, TRIES_PER_QUERY * num_wanted)
    dataset = _import_reasoning_gym().create_dataset(task, seed=seed, size=max_tries, **TASKS[task][1][level])
    num_found = 0
    for index in range(max_tries):
        if num_found == num_wanted:
            return
        # The item follows from (seed, index) alone, so the order of tasks and earlier draws do not matter.
        question = dataset[index]["question"].strip()
        # Distinct over all tasks, in the sense in which the split removes duplicates.
        key = hash_query(question)
        if len(question) <= max_chars and key not in seen:
            seen.add(key)
            num_found += 1
            yield question
    if num_found < num_wanted:
        raise ValueError(
            f"data.simulated.num_queries must be lower for these tasks: it needs {num_wanted} queries of task {task!r} "
            f"at level {level}, but only {num_found} distinct ones of at most {max_chars} characters were found"
        )


def _import_reasoning_gym() -> ModuleType:
    # Imported late, since it takes two seconds. It draws from the global random state, which is put back.
    state = random.getstate()
    module = importlib.import_module("reasoning_gym")
    random.setstate(state)
    return module


def _simulate_example(
    query_id: str, query: str, task: str, level: int, settings: SimulatedConfig, stream: np.random.Generator
) -> RoutingExample:
    family = FAMILIES.index(TASKS[task][0])
    # The draws of a query follow one another in the stream: first its difficulty, then one per candidate in pool order.
    difficulty = stream.normal(LEVEL_DIFFICULTY[level], ITEM_SPREAD)
    chances = [_sigmoid(settings.discrimination * (one.skills[family] - difficulty)) for one in CANDIDATES]
    attempts = settings.num_attempts
    drawn = (int(stream.binomial(attempts, chance)) / attempts for chance in chances)
    dollars = (one.cost(query) for one in CANDIDATES)
    scores, costs, expected = (CandidateNumbers(_COLUMNS, row) for row in (drawn, dollars, chances))
    return RoutingExample(query_id, query, task, scores, costs, expected)


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))
