"""Scores drawn towards their task's mean: one answer says little of how well a candidate does on queries like it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from causal_lm_router.routing import RoutingExample


def shrink_to_task(examples: Sequence[RoutingExample], strength: float) -> list[RoutingExample]:
    """Return the examples with every score s replaced by (1 - strength) s + strength times the candidate's task mean.

    The means are over the given examples, which are to be those of training. It is the form of the best linear estimate
    of an expected score from one noisy answer and the mean of its group (James and Stein 1961; Efron and Morris 1973,
    "Stein's estimation rule and its competitors", JASA 68, 117-130); the strength is left to be chosen on validation.
    """
    if strength == 0:
        return list(examples)
    by_task: dict[str, list[RoutingExample]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    means = {
        task: {name: sum(one.scores[name] for one in group) / len(group) for name in group[0].scores}
        for task, group in by_task.items()
    }
    return [
        replace(
            example,
            scores={
                name: (1 - strength) * score + strength * means[example.task][name]
                for name, score in example.scores.items()
            },
        )
        for example in examples
    ]
