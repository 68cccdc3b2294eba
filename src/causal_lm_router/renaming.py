"""Candidates under other names, all else the same: to see what a router makes of a name it never saw."""

from collections.abc import Mapping
from dataclasses import replace

from causal_lm_router.routing import RoutingData, RoutingExample


def rename_candidates(data: RoutingData, new_names: Mapping[str, str]) -> RoutingData:
    """Return the data with candidates renamed (old name -> new name), in the same order.

    Raises ValueError for a name that the pool does not hold, and for a new name that it holds already.
    """
    for old, new in new_names.items():
        if old not in data.candidate_names:
            raise ValueError(f"data.renamed_candidates={old!r}: allowed is {' | '.join(data.candidate_names)}")
        if new in data.candidate_names:
            raise ValueError(f"data.renamed_candidates: {new!r} is a candidate already, allowed is a name of its own")
    if not new_names:
        return data
    pool = tuple(replace(one, name=new_names.get(one.name, one.name)) for one in data.pool)
    return replace(data, pool=pool, examples=[_renamed(example, new_names) for example in data.examples])


def _renamed(example: RoutingExample, new_names: Mapping[str, str]) -> RoutingExample:
    def rename(values: Mapping[str, float] | None) -> dict[str, float] | None:
        return None if values is None else {new_names.get(name, name): value for name, value in values.items()}

    costs, expected = rename(example.costs), rename(example.expected_scores)
    return replace(example, scores=rename(example.scores) or {}, costs=costs, expected_scores=expected)
