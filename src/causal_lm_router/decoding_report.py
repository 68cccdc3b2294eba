"""The record of how routes were read out of the base model, and of how far that matters."""

from collections.abc import Mapping
from dataclasses import dataclass

from causal_lm_router.intervals import Figure


@dataclass(frozen=True, slots=True)
class DecodingReport:
    """The method behind the routes, and what free generation and other methods say of the same queries and weights."""

    method: str
    """How the routes of the report were read."""
    free_parse_failure_rate: Figure
    """Share of queries whose free generation names no candidate; under a constraint there are no failures to count."""
    off_list_rate: Figure
    """Share of queries whose free generation is text other than any target: parse failures of kind `unknown`."""
    valid_mass: Figure | None
    """Mean probability of generating any target at all; None unless all were looked at (`scored`)."""
    mean_scores: Mapping[str, Figure]
    """Method -> mean score of its routes."""
    differing_routes: Mapping[str, Figure]
    """Pair of methods, as `free~scored` -> share of queries on which their routes differ."""
