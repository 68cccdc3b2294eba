"""Changes to routing data: candidates get other names; training scores shrink to their task's mean, or are shuffled."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from causal_lm_router.routing import CandidateNumbers, RoutingData, RoutingExample, check_pool


def rename_candidates(data: RoutingData, new_names: Mapping[str, str]) -> RoutingData:
    """Return the data with candidates renamed (old name -> new name), in the same order.

    Raises:
        ValueError: an old name is not in the pool, a new name already is, or `check_pool` refuses it.
    """
    pool_text = f"the pool is {data.candidate_names}"
    for old, new in new_names.items():
        if old not in data.candidate_names:
            raise ValueError(f"data.renamed_candidates must rename candidates of the pool, got {old!r}; {pool_text}")
        if new in data.candidate_names:
            raise ValueError(f"data.renamed_candidates must give names that are new, got {new!r}; {pool_text}")
    if not new_names:
        return data
    try:
        check_pool([new_names.get(name, name) for name in data.candidate_names])
    except ValueError as error:
        raise ValueError(f"data.renamed_candidates: {error}") from None
    pool = tuple(replace(one, name=new_names.get(one.name, one.name)) for one in data.pool)
    return replace(data, pool=pool, examples=[_rename_scores(example, new_names) for example in data.examples])


def _rename_scores(example: RoutingExample, new_names: Mapping[str, str]) -> RoutingExample:
    def rename(values: Mapping[str, float] | None) -> dict[str, float] | None:
        return None if values is None else {new_names.get(name, name): value for name, value in values.items()}

    costs, expected = rename(example.costs), rename(example.expected_scores)
    return replace(example, scores=rename(example.scores) or {}, costs=costs, expected_scores=expected)


def shrink_to_task(examples: Sequence[RoutingExample], strength: float) -> list[RoutingExample]:
    """Return the examples with every score s replaced by (1 - strength) * s + strength * the candidate's task mean.

    The means are over the given examples, which must be those of training. This is the form of the best linear estimate
    of an expected score from one noisy answer and the mean of its group (James and Stein 1961; Efron and Morris 1973,
    "Stein's estimation rule and its competitors", JASA 68, 117-130). Choose the strength on validation.
    """
    if strength == 0:
        return list(examples)
    by_task: dict[str, list[RoutingExample]] = defaultdict(list)
    for example in examples:
        by_task[example.task].append(example)
    # The mean of each candidate over the task's queries.
    means = {
        task: {name: sum(one.scores[name] for one in group) / len(group) for name in group[0].scores}
        for task, group in by_task.items()
    }
    columns = {name: column for column, name in enumerate(examples[0].scores)} if examples else {}
    return [
        replace(
            example,
            scores=CandidateNumbers(
                columns,
                (
                    (1 - strength) * score + strength * means[example.task][name]
                    for name, score in example.scores.items()
                ),
            ),
        )
        for example in examples
    ]


def shuffle_scores(examples: Sequence[RoutingExample], seed: int) -> list[RoutingExample]:
    """Return the examples with scores and costs dealt out anew among them: means stay, and queries say nothing."""
    donors = [examples[index] for index in np.random.default_rng(seed).permutation(len(examples))]
    return [
        replace(example, scores=donor.scores, costs=donor.costs, expected_scores=donor.expected_scores)
        for example, donor in zip(examples, donors, strict=True)
    ]
