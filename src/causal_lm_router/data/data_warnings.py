"""What is suspicious about routing data: scores that say nothing, answers inside queries, costs that never vary."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from causal_lm_router.data.split import RoutingSplits
from causal_lm_router.routing import FEWEST_QUERIES, RoutingExample

_LEAKED = 0.95
"""Share of the queries that name one LLM on which it is the best one, from which the answer counts as leaked."""
_EXPECTED = 0.8
"""The same share by chance, above which it says nothing: an LLM that is nearly always best is so where it is named."""
_EQUAL = 0.5
"""Share of a task's queries on which all LLMs score the same, above which the task is said to tell little of them."""
_MOST_LISTED = 6
"""Tasks that one warning lists."""


def warn_of_data(splits: RoutingSplits) -> tuple[str, ...]:
    """Return a sentence or two for each thing about the data that is suspicious."""
    examples = [*splits.train, *splits.validation, *splits.test]
    return (
        *splits.warnings,
        *_warn_of_equal_scores(splits.train, examples),
        *_warn_of_leaks(examples, splits.candidate_names),
        *_warn_of_constant_costs(examples, splits.candidate_names),
        *_warn_of_tasks(examples, splits.candidate_names),
    )


def _warn_of_equal_scores(train: Sequence[RoutingExample], examples: Sequence[RoutingExample]) -> Iterator[str]:
    for which, part in (("", examples), ("training ", train)):
        if all(example.is_undecided() for example in part):
            yield (
                f"on every one of the {len(part):,} {which}queries all LLMs score the same: there is nothing to learn, "
                "and any route is as good as another. Check how the scores were made."
            )
            return


def _warn_of_leaks(examples: Sequence[RoutingExample], names: Sequence[str]) -> Iterator[str]:
    decided = [example for example in examples if not example.is_undecided()]
    # Whole words, and the longest of the names that fit: `llama` is not named where `llama-3-8b` is.
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE)
    by_spelling = {name.lower(): name for name in names}
    # One after the other: a set for each of a million queries would fill the memory.
    found = (
        (example, {by_spelling[text.lower()] for text in pattern.findall(example.query) if text.lower() in by_spelling})
        for example in decided
    )
    named = [(example, mentioned.pop()) for example, mentioned in found if len(mentioned) == 1]
    num_right = sum(name in example.best_candidates() for example, name in named)
    if len(named) < FEWEST_QUERIES or num_right < _LEAKED * len(named):
        return
    # A name that is a common word, such as `a`, would be named by chance: then it is right as often as anywhere.
    best = {name: sum(name in example.best_candidates() for example in decided) / len(decided) for name in names}
    if sum(best[name] for _, name in named) <= _EXPECTED * len(named):
        yield (
            f"{len(named):,} queries name one LLM, and on {num_right:,} of them it is the best one: the answer seems "
            "to have leaked into the queries. Take it out of them."
        )


def _warn_of_constant_costs(examples: Sequence[RoutingExample], names: Sequence[str]) -> Iterator[str]:
    costs = [example.costs for example in examples if example.costs is not None]
    constant = [name for name in names if costs and all(row[name] == costs[0][name] for row in costs)]
    if constant and len(costs) >= FEWEST_QUERIES:
        yield (
            f"the cost of {', '.join(constant)} is the same on all {len(costs):,} queries, though costs follow the "
            "lengths of query and answer. If it is not known, leave it out: it then counts as unknown."
        )


def _warn_of_tasks(examples: Sequence[RoutingExample], names: Sequence[str]) -> Iterator[str]:
    """Yield what looks wrong about the scores of whole tasks."""
    by_task: dict[str, list[RoutingExample]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    groups = {task: group for task, group in by_task.items() if len(group) >= FEWEST_QUERIES}
    at_chance = {task: _share_at_chance(group, names) for task, group in groups.items()}
    if any(at_chance.values()):
        yield (
            "answers to questions with choices are no better than random ones for "
            f"{_list_tasks(at_chance, 'of the LLMs on')}. Check the answer key, and how answers are found in the texts."
        )
    equal = {task: sum(example.is_undecided() for example in group) / len(group) for task, group in groups.items()}
    equal = {task: share for task, share in equal.items() if _EQUAL < share < 1}
    if equal:
        yield (
            f"all LLMs score the same on {_list_tasks(equal, 'of the queries of')}: such tasks say little about which "
            "LLM to choose."
        )


def _list_tasks(shares: Mapping[str, float], words: str) -> str:
    """Return the tasks with the largest shares above 0, each as "79% <words> <task>", and how many more there are."""
    ordered = sorted((share, task) for task, share in shares.items() if share)[::-1]
    listed = [f"{share:.0%} {words} {task}" for share, task in ordered[:_MOST_LISTED]]
    more = len(ordered) - len(listed)
    return ", ".join(listed) + (f" and so on in {more} more tasks" if more else "")


def _share_at_chance(group: Sequence[RoutingExample], names: Sequence[str]) -> float:
    """Return the share of LLMs whose mean score is not above that of random answers; 0 where a query has no choices."""
    if any(example.num_choices is None for example in group):
        return 0.0
    chance = sum(1 / example.num_choices for example in group if example.num_choices) / len(group)
    means = [sum(example.scores[name] for example in group) / len(group) for name in names]
    return sum(mean <= chance for mean in means) / len(names)
