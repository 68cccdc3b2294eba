"""Why an estimate of a report is null: a sentence for each, written beside them."""

from collections.abc import Iterator, Mapping
from typing import Any

_VALIDATION = "there is no validation split, or its evaluation has no predictions"
_EXPECTED = "expected scores are known of simulated data alone"
_NOBODY = "no LLM was called"
_SAME_COST = "all candidates cost the same on average"
_NOT_BETTER = "best single, the strong candidate, does not score higher than the other one on these queries"
_THRESHOLDS = "RouteLLM's code stops where two of its eleven thresholds, the deciles of the win shares, are equal"
_WHY = {
    "decisive_accuracy": "all candidates score the same on every query",
    "mean_cost": "the cost of at least one query is unknown",
    "gap_recovered": "best single scores as high as the oracle: there is nothing to gain",
    "bayes_score": _EXPECTED,
    "bayes_gap_recovered": _EXPECTED,
    "expected_gap_recovered": _EXPECTED,
    "queries_per_second": "the speed of this router was not measured",
    "p95_seconds": "it needs 20 calls",
    "p99_seconds": "it needs 100 calls",
    "decoding": "this router generates no text",
    "predictions": "there is no number for every candidate (decoding=scored gives them), or training was going on",
    "valid_mass": "decoding=scored alone looks at every target",
    "auroc": "all answers of this candidate score the same",
    "temperature": _VALIDATION,
    "ece_scaled": _VALIDATION,
    "brier_scaled": _VALIDATION,
    "conformal": _VALIDATION,
    "threshold": "validation has too few queries for this level: every candidate is in every set",
    "route_entropy": _NOBODY,
    "normalised_route_entropy": _NOBODY,
    "top_route_share": _NOBODY,
    "cost_quality": "the cost of at least one query is unknown",
    "aiq": _SAME_COST,
    "zero_router_aiq": _SAME_COST,
    "aiq_gain": _SAME_COST,
    "perf_gain": "best single scores 0 on every query",
    "cost_save": "no configuration scores as high as best single, or best single costs nothing",
    "trade_off": "infinite: the cheapest candidate is always called",
    "two_candidates": "it is for a pool of two",
    "apgr_paper": _NOT_BETTER,
    "apgr_code": _NOT_BETTER,
    "cpt50_paper": _NOT_BETTER,
    "cpt50_code": _NOT_BETTER,
    "cpt80_paper": _NOT_BETTER,
    "cpt80_code": _NOT_BETTER,
}
"""Name of a field -> why it is null."""


def explain_missing(report: Mapping[str, Any]) -> dict[str, str]:
    """Return dotted path -> why it is null, of every estimate that is null in a plain report (`to_dict`)."""
    return dict(_explain("", report))


def _explain(path: str, plain: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # An estimate says itself why it has no interval.
    if {"value", "note"} <= plain.keys():
        return
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _explain(f"{path}{key}.", value)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from _explain(f"{path}{key}.{index}.", one) if isinstance(one, Mapping) else ()
        elif value is None:
            yield f"{path}{key}", _why(path, key, plain)


def _why(path: str, key: str, siblings: Mapping[str, Any]) -> str:
    # The AUROCs stand under the names of the candidates.
    if path.endswith("auroc."):
        return _WHY["auroc"]
    # Two causes: what is defined by the paper alone lacks its thresholds.
    if key.endswith("_code") and siblings["apgr_paper"] is not None:
        return _THRESHOLDS
    if key in ("bayes_gap_recovered", "expected_gap_recovered") and siblings["bayes_score"] is not None:
        return "best single is as good as the best possible router"
    return _WHY[key]
