"""The content of a report, computed before anything is written, and its sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causal_lm_router.evaluation.formatting import HEADINGS, REFERENCE_NAMES, form_of, format_estimate
from causal_lm_router.sweeps.report.comparisons import BEST_SINGLE, Comparison, baseline_of, compare, verdict
from causal_lm_router.sweeps.report.configurations import Configuration, group_runs, mark_repeated
from causal_lm_router.sweeps.report.origins import say_origins
from causal_lm_router.sweeps.report.runs import Run, read_runs
from causal_lm_router.sweeps.report.shortfalls import Shortfalls, find_shortfalls
from causal_lm_router.sweeps.report.summary import (
    ReferenceEstimates,
    Selection,
    Summary,
    check_metric,
    reference_estimates,
    select,
    summarise,
)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The content of a report; without finished runs all but `runs` and `origins` is empty."""

    runs: list[Run]
    origins: list[tuple[str, str]]
    """Heading and text of what the runs were made of and by."""
    configurations: list[Configuration]
    summaries: list[Summary]
    references: list[ReferenceEstimates]
    baseline: str
    """Name of the configuration, or `best single`, that the configurations are compared with."""
    comparisons: list[Comparison]
    selection: Selection | None
    shortfalls: Shortfalls | None

    @property
    def finished(self) -> list[Run]:
        """The runs that the report's numbers are made of."""
        return [run for run in self.runs if run.test]

    @property
    def unfinished(self) -> list[Run]:
        """The runs that are listed alone."""
        return [run for run in self.runs if not run.test]

    @property
    def progress(self) -> str:
        """Number of runs by state: `12 runs: 10 done, 1 running, 1 failed`."""
        states = Counter(run.state for run in self.runs)
        return f"{len(self.runs)} runs: " + ", ".join(f"{number} {state}" for state, number in states.items())

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the final evaluations are of."""
        return sorted({run.test.split for run in self.runs if run.test})


def find(folders: Sequence[Path], baseline: str | None, metric: str) -> Findings:
    """Return the findings over the runs in the given folders.

    Raises:
        ValueError: the folders hold no runs, no configuration fits `baseline`, or `metric` is not in CHOICE_METRICS.
    """
    check_metric(metric)
    # A run found twice would count twice.
    runs = mark_repeated(read_runs(folders))
    if not runs:
        raise ValueError(f"{', '.join(map(str, folders))}: must hold a run or a job; the sweep has none yet")
    origins = say_origins(folders, runs)
    if not any(run.test for run in runs):
        return Findings(
            runs=runs,
            origins=origins,
            configurations=[],
            summaries=[],
            references=[],
            baseline="",
            comparisons=[],
            selection=None,
            shortfalls=None,
        )
    configurations = group_runs(runs)
    chosen = baseline_of(configurations, baseline)
    summaries = [summarise(configuration) for configuration in configurations]
    selection = select(summaries, metric)
    return Findings(
        runs=runs,
        origins=origins,
        configurations=configurations,
        summaries=summaries,
        references=reference_estimates(runs),
        baseline=chosen.name if chosen else REFERENCE_NAMES[BEST_SINGLE],
        comparisons=compare(configurations, chosen),
        selection=selection,
        shortfalls=find_shortfalls(selection),
    )


def say_verdict(findings: Findings) -> str:
    """Return the result of all comparisons as a sentence."""
    if not findings.comparisons:
        return "There is only one configuration: nothing to compare."
    return verdict(findings.comparisons)


def say_selection(findings: Findings) -> list[str]:
    """Return sentences on the configuration chosen on validation, and on the one with the highest value on test."""
    selection = findings.selection
    if selection is None:
        return ["No run has finished yet."]
    if selection.best_on_test is None:
        return ["No configuration is chosen: all are oracles, which know the scores of the queries they are asked."]
    if selection.chosen is None and selection.num_silent:
        return []  # what is said first says why
    if selection.chosen is None:
        return [
            "No configuration is chosen: a choice needs validation metrics, which these runs lack (see "
            "evaluation.final_validation and data.validation_fraction). A choice on test would overstate the result."
        ]
    return [_say_chosen(findings, selection, selection.chosen), _say_best_on_test(selection, selection.best_on_test)]


def _say_chosen(findings: Findings, selection: Selection, chosen: Summary) -> str:
    metric, split = selection.metric, " and ".join(findings.splits)
    value = format_estimate(chosen.validation[metric], form_of(metric))
    tied = f"{selection.num_tied} configurations tie there; the first is chosen. " if selection.num_tied > 1 else ""
    estimates = ", ".join(
        f"{text} {format_estimate(chosen.estimates.get(name), form_of(name))}" for name, text in HEADINGS.items()
    )
    return (
        f"Chosen on validation ({HEADINGS[metric]}, mean over seeds {value}): "
        f"{chosen.configuration.number}: {chosen.configuration.name}. {tied}On {split}: {estimates}."
    )


def _say_best_on_test(selection: Selection, best: Summary) -> str:
    if best is selection.chosen:
        return "It is also the best on test."
    metric = selection.metric
    value = format_estimate(best.estimates[metric].value, form_of(metric))
    return (
        f"Not a result: the best on test is {best.configuration.number}: {best.configuration.name} with "
        f"{HEADINGS[metric]} {value}. The highest of many test values is too high by luck (the winner's curse), so it "
        "is not the result of the sweep."
    )


def say_cautions(findings: Findings) -> list[str]:
    """Return a sentence for everything that limits what the report can say."""
    return [*_say_runs(findings), *_say_seeds(findings), *_say_queries(findings), *_say_choice(findings)]


def _say_runs(findings: Findings) -> list[str]:
    cautions = []
    if findings.unfinished:
        verb = "is" if len(findings.unfinished) == 1 else "are"
        number = f"{len(findings.unfinished)} of {len(findings.runs)} runs {verb}"
        cautions.append(f"{number} left out of all results; the table of runs says why.")
    if len({run.code for run in findings.finished if run.code}) > 1:
        cautions.append(
            "The jobs ran different versions of the code (sweep.allow_mixed=true): results may differ for that reason."
        )
    # Fingerprint of a data config -> fingerprints of what the runs read under it.
    versions: dict[str, set[str]] = {}
    for run in findings.finished:
        for key, version in run.data.items():
            versions.setdefault(key, set()).add(version)
    if any(len(found) > 1 for found in versions.values()):
        cautions.append(
            "The data, or a function that the config names, changed between jobs (sweep.allow_mixed=true): their "
            "results cannot be compared."
        )
    return cautions


def _say_seeds(findings: Findings) -> list[str]:
    seeds = [configuration.num_seeds for configuration in findings.configurations]
    cautions = []
    if seeds and min(seeds) == 1:
        cautions.append(
            "Intervals of a configuration with one seed cover the spread of queries alone: a difference between such "
            "configurations may be one between seeds."
        )
    if len(set(seeds)) > 1:
        cautions.append(f"The configurations have between {min(seeds)} and {max(seeds)} finished seeds.")
    return cautions


def _say_queries(findings: Findings) -> list[str]:
    cautions = []
    # Folds of a cross-validation ask different queries by design.
    if _differ_in_a_fold([(run.replicate[1], run.test.queries) for run in findings.runs if run.test]):
        cautions.append(
            "Not all runs were evaluated on the same queries and pool: compare their rows in the table with care. "
            "Differences are over the queries that both sides share."
        )
    validated = [(run.replicate[1], run.validation.queries) for run in findings.finished if run.validation]
    if _differ_in_a_fold(validated):
        cautions.append("Not all runs were validated on the same queries; the choice on validation ignores that.")
    return cautions


def _differ_in_a_fold(asked: Sequence[tuple[int, str]]) -> bool:
    """Return whether one fold has several sets of queries; `asked` holds a run's fold and its queries' fingerprint."""
    return len(set(asked)) > len({fold for fold, _ in asked})


def _say_choice(findings: Findings) -> list[str]:
    cautions = []
    if findings.selection and findings.selection.chosen and any(not one.validation for one in findings.summaries):
        cautions.append("Configurations without validation metrics cannot be chosen.")
    if any(one.is_oracle for one in findings.configurations):
        cautions.append(
            "Oracles know the scores of the queries they are asked: they are in the tables, but are neither compared "
            "nor chosen."
        )
    if "validation" in findings.splits:
        cautions.append(
            "The final split of some runs is validation: the chosen configuration has no result on other queries."
        )
    return cautions


def say_method(findings: Findings) -> list[str]:
    """Return how estimates, intervals, tests and the choice were made, a paragraph each."""
    num_tests = sum((one.accuracy is not None) + (one.score is not None) for one in findings.comparisons)
    return [
        "A configuration is a resolved config without its seed, run folder, tracking and sweep settings; runs that "
        "differ in their seed alone are its replicates. Routing accuracy is the share of queries whose route scores as "
        "high as any candidate; a parse failure counts as wrong.",
        "Intervals: the values of a query are averaged over the seeds that answered it; shares and scores have Clopper "
        "and Pearson's interval at the effective number of queries, differences that of gains and losses, costs "
        "the gamma interval. Of several seeds the spread between their means is added, at S - 1 degrees of freedom. "
        "What says too little has no interval. References have the intervals of their report.json, over queries.",
        "Differences are paired by query, and by seed where both sides have the same seeds, and averaged over seeds. "
        "p: the smallest level at which the interval leaves out 0. McNemar p: exact, two-sided, of one seed alone. For "
        "routing accuracy the larger of the two counts.",
        f"Holm p: those p-values after Holm's correction over the {num_tests} differences of this report "
        "(accuracy and score of every configuration). A difference is significant where it is at most 0.05.",
        "The chosen configuration has the highest mean over seeds on validation; of equal ones it is the first. "
        "Oracles are left out, and so are configurations that name no LLM on more than half of the validation queries. "
        "Test results take no part in the choice.",
    ]
