"""What a sweep did not reach, said before anything else: no LLM named, worse than chance, not above best single."""

from dataclasses import dataclass

import numpy as np

from causal_lm_router.evaluation.formatting import SCORE_DIFFERENCE, form_of, format_estimate
from causal_lm_router.evaluation.statistics import NO_DIFFERENCE
from causal_lm_router.sweeps.report.comparisons import Comparison, compare
from causal_lm_router.sweeps.report.summary import Selection, Summary

TRY = (
    "To try: decoding=scored or decoding=trie, which can only name candidates; a higher optim.learning_rate or "
    "trainer.num_epochs; and read what is generated in outcomes.jsonl."
)


@dataclass(frozen=True, kw_only=True)
class Shortfalls:
    """The best configuration beside a random LLM and the best single LLM."""

    best: Summary
    """The one chosen on validation, or without a choice the best on test."""
    is_chosen: bool
    random_score: float
    """Mean score of a random LLM on the same queries."""
    best_single: str
    over_single: Comparison
    """Paired by query with best single on the run's own queries."""


def find_shortfalls(selection: Selection) -> Shortfalls | None:
    """Return how the best configuration stands beside the references; None where there is no router."""
    best = selection.chosen or selection.best_on_test
    if best is None:
        return None
    reports = [run.test.report for run in best.configuration.runs if run.test]
    (over_single,) = compare([best.configuration], None)
    return Shortfalls(
        best=best,
        is_chosen=selection.chosen is not None,
        random_score=float(np.mean([report.references["random"].mean_score.value for report in reports])),
        best_single=reports[0].best_single,
        over_single=over_single,
    )


def say_shortfalls(found: Shortfalls | None, selection: Selection | None) -> list[str]:
    """Return what a reader has to know first, a sentence for each thing that the sweep did not reach."""
    if found is None or selection is None:
        return []
    sentences = []
    if selection.num_silent and selection.chosen is None:
        each = "the only one" if selection.num_silent == 1 else f"each of the {selection.num_silent}"
        sentences.append(
            f"No configuration is chosen: {each} names no LLM on more than half of the validation queries. {TRY}"
        )
    if found.best.is_silent:
        rate = format_estimate(found.best.estimates["parse_failure_rate"].value, form_of("parse_failure_rate"))
        sentences.append(f"{_name(found)} names no LLM on {rate} of the queries.")
    score = found.best.estimates["mean_score"].value
    shown = f"mean score {format_estimate(score, form_of('mean_score'))}"
    if score < found.random_score:
        chance = format_estimate(found.random_score, form_of("mean_score"))
        sentences.append(f"{_name(found)} is worse than calling a random LLM: {shown}, {chance} at random.")
    elif sentence := _say_single(found, shown):
        sentences.append(sentence)
    return sentences


def _say_single(found: Shortfalls, shown: str) -> str | None:
    """What is to be said of best single, to which a router below chance need not be held."""
    difference = found.over_single.score
    if difference is None:
        return None
    gain = f"{shown}, {format_estimate(difference.estimate, SCORE_DIFFERENCE)} over always {found.best_single}"
    if difference.estimate.value <= 0:
        return f"{_name(found)} is not above the best single LLM: {gain}."
    if difference.verdict == NO_DIFFERENCE:
        return f"{_name(found)} is not shown to be above the best single LLM: {gain}, which is no significant gain."
    return None


def _name(found: Shortfalls) -> str:
    which = "The configuration chosen on validation" if found.is_chosen else "Even the best configuration on test"
    return f"{which} ({found.best.configuration.number})"
