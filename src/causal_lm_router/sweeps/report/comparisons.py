"""Paired differences of configurations from a baseline: tested, corrected for their number, and put in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.statistics import (
    NO_DIFFERENCE,
    Difference,
    Sample,
    correct_differences,
    estimate_differences,
    pool_folds,
)
from causal_lm_router.evaluation.stored import RunEvaluation, shared_queries
from causal_lm_router.sweeps.report.configurations import Configuration, find_configuration
from causal_lm_router.sweeps.report.runs import Run

BEST_SINGLE = "best_single"
_COMPARED = ("routing_accuracy", "mean_score")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One configuration against the baseline; without differences where nothing can be paired, and `note` says why."""

    configuration: Configuration
    pairs: tuple[tuple[Run, Run | None], ...]
    """The configuration's run and the baseline's, seed by seed; None for best single, on the run's own queries."""
    num_queries: int = 0
    only_configuration_right: int = 0
    """Pairs of seed and query on which the configuration is right and the baseline is not."""
    only_baseline_right: int = 0
    accuracy: Difference | None = None
    score: Difference | None = None
    note: str = ""


def baseline_of(configurations: Sequence[Configuration], text: str | None) -> Configuration | None:
    """Return the baseline that `text` names, None for best single; without a text the first that is no oracle."""
    if text == BEST_SINGLE:
        return None
    if text is None:
        return next((one for one in configurations if not one.is_oracle), configurations[0])
    return find_configuration(configurations, text)


def compare(configurations: Sequence[Configuration], baseline: Configuration | None) -> list[Comparison]:
    """Return the comparison of every configuration but the baseline itself, Holm's correction over all of them."""
    others = [configuration for configuration in configurations if configuration is not baseline]
    return _correct([_compare(configuration, baseline) for configuration in others])


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Return in one sentence which configurations differ significantly from the baseline."""
    done = [one for one in comparisons if one.accuracy and one.score]
    if not done:
        return "Nothing could be compared with the baseline."
    # Verdict -> numbers of the configurations it holds for.
    found: dict[str, list[str]] = {}
    for one in done:
        for name, difference in (("routing accuracy", one.accuracy), ("mean score", one.score)):
            if difference and difference.verdict != NO_DIFFERENCE:
                found.setdefault(f"{difference.verdict} in {name}", []).append(str(one.configuration.number))
    if found:
        said = "; ".join(f"{words}: {', '.join(numbers)}" for words, numbers in found.items())
        return f"Of {len(done)} configurations compared with the baseline, by their numbers in the table: {said}."
    of = "the one configuration" if len(done) == 1 else f"any of the {len(done)} configurations"
    return f"No significant difference between the baseline and {of} compared with it."


def _compare(configuration: Configuration, baseline: Configuration | None) -> Comparison:
    pairs = _pairs(configuration, baseline)
    if configuration.is_oracle:
        # That it is better than a router says nothing about routers, and would cost the others power.
        note = "not compared: an oracle knows the scores of the queries it is asked"
        return Comparison(configuration=configuration, pairs=pairs, note=note)
    samples = []
    for run, other in pairs:
        assert run.test is not None
        if other is None and run.test.best_single is None:
            note = "not compared: outcomes.jsonl lacks the candidates' scores"
            return Comparison(configuration=configuration, pairs=pairs, note=note)
        paired = _pair_with_best_single(run.test) if other is None else _pair(run.test, other.test)
        if paired is None:
            note = "not compared: asks other queries than the baseline, or routes among another pool"
            return Comparison(configuration=configuration, pairs=pairs, note=note)
        samples.append(paired)
    pooled = pool_folds([run.seed for run, _ in pairs], samples)
    accuracy, score = estimate_differences(pooled, [Measure.difference] * len(_COMPARED), accuracy=0)
    return Comparison(
        configuration=configuration,
        pairs=pairs,
        # Seeds with the same queries count them once.
        num_queries=sum({one.queries: len(one.values) for one in samples}.values()),
        only_configuration_right=sum(int((one.values[:, 0] > 0).sum()) for one in samples),
        only_baseline_right=sum(int((one.values[:, 0] < 0).sum()) for one in samples),
        accuracy=accuracy,
        score=score,
        note=_note(configuration, baseline, pairs, samples),
    )


def _pairs(configuration: Configuration, baseline: Configuration | None) -> tuple[tuple[Run, Run | None], ...]:
    """Runs of equal seeds, or where the two share no seed one by one in the order of their seeds."""
    if baseline is None:
        return tuple((run, None) for run in configuration.runs)
    theirs = {run.replicate: run for run in baseline.runs}
    # Equal seeds share what they draw, such as the order of the data: pairing them removes that spread.
    same = tuple((run, theirs[run.replicate]) for run in configuration.runs if run.replicate in theirs)
    return same or tuple(zip(configuration.runs, baseline.runs, strict=False))


def _pair(one: RunEvaluation, other: RunEvaluation | None) -> Sample | None:
    """Differences on the queries that both asked; None where there is no such query."""
    assert other is not None
    if not (shared := shared_queries(one, other)):
        return None
    # A part of the queries has a fingerprint of its own: the pair of both.
    queries = one.queries if one.queries == other.queries else (one.queries, other.queries)
    return Sample(queries, _values(one, shared) - _values(other, shared))


def _pair_with_best_single(evaluation: RunEvaluation) -> Sample:
    assert evaluation.best_single is not None
    single = np.column_stack([evaluation.best_single[name] for name in _COMPARED])
    return Sample(evaluation.queries, _values(evaluation, evaluation.query_ids) - single)


def _values(evaluation: RunEvaluation, query_ids: Sequence[str]) -> Floats:
    """The compared metrics of the given queries, shape (queries, metrics), sorted by query id."""
    wanted = set(query_ids)
    # Both evaluations are sorted by query id, so equal rows are equal queries.
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


def _correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    # Accuracies and scores together: the report makes its claims out of all of them.
    corrected = correct_differences(
        {
            (index, name): difference
            for index, one in enumerate(comparisons)
            for name, difference in (("accuracy", one.accuracy), ("score", one.score))
            if difference is not None
        }
    )
    return [
        replace(one, accuracy=corrected.get((index, "accuracy")), score=corrected.get((index, "score")))
        for index, one in enumerate(comparisons)
    ]
