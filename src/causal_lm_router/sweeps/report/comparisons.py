"""Paired differences of configurations from a baseline: tested, corrected for their number, and put in words."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.statistics import (
    NO_DIFFERENCE,
    Difference,
    Resampling,
    Sample,
    adjust_holm,
    estimate_means,
    mcnemar_p,
)
from causal_lm_router.evaluation.stored import RunEvaluation, shared_queries
from causal_lm_router.sweeps.report.configurations import Configuration, find_configuration
from causal_lm_router.sweeps.report.runs import Run

BEST_SINGLE = "best_single"
_COMPARED = ("routing_accuracy", "mean_score")


@dataclass(frozen=True)
class Comparison:
    """One configuration against the baseline; without differences where nothing can be paired: `note` says why."""

    configuration: Configuration
    pairs: tuple[tuple[Run, Run | None], ...]
    """The configuration's run and the baseline's, seed by seed; None for best single, on the run's own queries."""
    num_queries: int
    only_configuration_right: int
    """Pairs of seed and query on which the configuration is right and the baseline is not."""
    only_baseline_right: int
    accuracy: Difference | None
    score: Difference | None
    note: str = ""


def baseline_of(configurations: Sequence[Configuration], text: str | None) -> Configuration | None:
    """Return the baseline that `text` names, None for best single; without a text the first configuration."""
    if text == BEST_SINGLE:
        return None
    return configurations[0] if text is None else find_configuration(configurations, text)


def compare(
    configurations: Sequence[Configuration], baseline: Configuration | None, resampling: Resampling
) -> list[Comparison]:
    """Return the comparison of every configuration but the baseline itself, Holm's correction over all of them."""
    others = [configuration for configuration in configurations if configuration is not baseline]
    return _correct([_compare(configuration, baseline, resampling) for configuration in others])


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Return in one sentence what all comparisons together say."""
    done = [one for one in comparisons if one.accuracy and one.score]
    if not done:
        return "Nothing could be compared with the baseline."
    found: dict[str, list[str]] = {}
    for one in done:
        for name, difference in (("routing accuracy", one.accuracy), ("mean score", one.score)):
            if difference and difference.verdict != NO_DIFFERENCE:
                found.setdefault(f"{difference.verdict} in {name}", []).append(str(one.configuration.number))
    if found:
        said = "; ".join(f"{words}: {', '.join(numbers)}" for words, numbers in found.items())
        return f"Of {len(done)} configurations compared with the baseline (numbers as in the table), {said}."
    of = "the one configuration" if len(done) == 1 else f"any of the {len(done)} configurations"
    return f"No significant difference between the baseline and {of} compared with it."


def _compare(configuration: Configuration, baseline: Configuration | None, resampling: Resampling) -> Comparison:
    pairs = _pairs(configuration, baseline)
    samples = []
    for run, other in pairs:
        assert run.test is not None
        if other is None and run.test.best_single is None:
            note = "not compared: outcomes.jsonl holds no scores of all candidates"
            return Comparison(configuration, pairs, 0, 0, 0, None, None, note)
        paired = _pair_with_best_single(run.test) if other is None else _pair(run.test, other.test)
        if paired is None:
            note = "not compared: asks other queries than the baseline, or routes among another pool"
            return Comparison(configuration, pairs, 0, 0, 0, None, None, note)
        samples.append(paired)
    accuracy, score = estimate_means(samples, resampling)
    differences = [one.values[:, 0] for one in samples]
    wins, losses = (int(sum((sign * values > 0).sum() for values in differences)) for sign in (1, -1))
    sums = _sums(samples)
    return Comparison(
        configuration,
        pairs,
        num_queries=len(sums),
        only_configuration_right=wins,
        only_baseline_right=losses,
        accuracy=Difference(accuracy.estimate, _known(accuracy.p_value), mcnemar_p(sums)),
        score=Difference(score.estimate, _known(score.p_value), None),
        note=_note(configuration, baseline, pairs, samples),
    )


def _pairs(configuration: Configuration, baseline: Configuration | None) -> tuple[tuple[Run, Run | None], ...]:
    """Runs of equal seeds, or where the two share no seed one by one in the order of their seeds."""
    if baseline is None:
        return tuple((run, None) for run in configuration.runs)
    theirs = {run.seed: run for run in baseline.runs}
    same = tuple((run, theirs[run.seed]) for run in configuration.runs if run.seed in theirs)
    return same or tuple(zip(configuration.runs, baseline.runs, strict=False))


def _pair(one: RunEvaluation, other: RunEvaluation | None) -> Sample | None:
    assert other is not None
    if not (shared := shared_queries(one, other)):
        return None
    queries = one.queries if one.queries == other.queries else (one.queries, other.queries)
    return Sample(queries, _columns(one, shared) - _columns(other, shared))


def _pair_with_best_single(evaluation: RunEvaluation) -> Sample:
    assert evaluation.best_single is not None
    single = np.column_stack([evaluation.best_single[name] for name in _COMPARED])
    return Sample(evaluation.queries, _columns(evaluation, evaluation.query_ids) - single)


def _sums(samples: Sequence[Sample]) -> Floats:
    """Per query the sum over seeds of the differences in accuracy, as `mcnemar_p` takes them."""
    by_queries: dict[Hashable, Floats] = {}
    for one in samples:
        by_queries[one.queries] = by_queries.get(one.queries, 0.0) + one.values[:, 0]
    return np.concatenate(list(by_queries.values()))


def _columns(evaluation: RunEvaluation, query_ids: Sequence[str]) -> Floats:
    wanted = set(query_ids)
    rows = [query_id in wanted for query_id in evaluation.query_ids]
    return np.column_stack([evaluation.values[name][rows] for name in _COMPARED])


def _note(
    configuration: Configuration,
    baseline: Configuration | None,
    pairs: Sequence[tuple[Run, Run | None]],
    samples: Sequence[Sample],
) -> str:
    notes = []
    if baseline is not None and len(pairs) < max(len(configuration.runs), len(baseline.runs)):
        notes.append(f"on {len(pairs)} seed(s) that both have")
    if any(isinstance(one.queries, tuple) for one in samples):
        notes.append("on the queries that both asked")
    return ", ".join(notes)


def _known(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value


def _correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    p_values: dict[Hashable, float] = {
        (index, name): difference.p_value
        for index, one in enumerate(comparisons)
        for name, difference in (("accuracy", one.accuracy), ("score", one.score))
        if difference is not None
    }
    adjusted = adjust_holm(p_values)
    corrected = []
    for index, one in enumerate(comparisons):
        if one.accuracy and one.score:
            accuracy = replace(one.accuracy, adjusted_p=adjusted[index, "accuracy"])
            one = replace(one, accuracy=accuracy, score=replace(one.score, adjusted_p=adjusted[index, "score"]))
        corrected.append(one)
    return corrected
