"""Everything a report says, worked out before anything is written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causal_lm_router.evaluation.formatting import HEADINGS, form_of, format_estimate
from causal_lm_router.evaluation.statistics import Resampling
from causal_lm_router.sweeps.report.comparisons import BEST_SINGLE, Comparison, baseline_of, compare, verdict
from causal_lm_router.sweeps.report.configurations import Configuration, group_runs, mark_repeated
from causal_lm_router.sweeps.report.runs import Run, read_runs
from causal_lm_router.sweeps.report.summary import (
    METRICS,
    ReferenceEstimates,
    Selection,
    Summary,
    reference_estimates,
    select,
    summarise,
)


@dataclass(frozen=True)
class Findings:
    """The content of a report; without finished runs only `runs` holds anything."""

    runs: list[Run]
    configurations: list[Configuration]
    summaries: list[Summary]
    references: list[ReferenceEstimates]
    baseline: str
    """Name of what the configurations are compared with."""
    comparisons: list[Comparison]
    selection: Selection | None
    resampling: Resampling

    @property
    def finished(self) -> list[Run]:
        """The runs that the figures are made of."""
        return [run for run in self.runs if run.test]

    @property
    def unfinished(self) -> list[Run]:
        """The runs that are left out of all figures."""
        return [run for run in self.runs if not run.test]

    @property
    def progress(self) -> str:
        """`12 runs: 10 done, 1 running, 1 failed`."""
        states = Counter(run.state for run in self.runs)
        return f"{len(self.runs)} runs: " + ", ".join(f"{number} {state}" for state, number in states.items())

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the final evaluations are of."""
        return sorted({run.test.split for run in self.runs if run.test})


def find(folders: Sequence[Path], baseline: str | None, metric: str, resampling: Resampling) -> Findings:
    """Return what the runs in the given folders show; raise ValueError for what is not among them."""
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}: allowed is {' | '.join(METRICS)}")
    runs = mark_repeated(read_runs(folders))
    if not runs:
        raise ValueError(f"{', '.join(map(str, folders))}: the sweep has no job yet")
    if not any(run.test for run in runs):
        return Findings(runs, [], [], [], "", [], None, resampling)
    configurations = group_runs(runs)
    chosen = baseline_of(configurations, baseline)
    summaries = [summarise(configuration, resampling) for configuration in configurations]
    return Findings(
        runs=runs,
        configurations=configurations,
        summaries=summaries,
        references=reference_estimates(runs),
        baseline=chosen.name if chosen else BEST_SINGLE,
        comparisons=compare(configurations, chosen, resampling),
        selection=select(summaries, metric),
        resampling=resampling,
    )


def say_verdict(findings: Findings) -> str:
    """Return in words what the comparisons say together."""
    if not findings.comparisons:
        return "There is only one configuration: nothing to compare."
    return verdict(findings.comparisons)


def say_selection(findings: Findings) -> list[str]:
    """Return the sentences on the configuration chosen on validation, and on the one that looks best on test."""
    selection = findings.selection
    if selection is None:
        return ["No run has finished yet."]
    metric, split = selection.metric, " and ".join(findings.splits)
    words = HEADINGS[metric]
    if selection.best_on_test is None:
        return ["No configuration is chosen: all are oracles, which know the scores they are judged by."]
    if selection.chosen is None:
        return [
            "No configuration is chosen: it would be chosen by validation figures, which these runs lack (see "
            "evaluation.final_validation and data.validation_fraction). Choosing by test figures would overstate them."
        ]
    chosen, best = selection.chosen, selection.best_on_test
    figures = ", ".join(
        f"{text} {format_estimate(chosen.figures.get(name), form_of(name))}" for name, text in HEADINGS.items()
    )
    tied = (
        f"{selection.num_tied} configurations are equal there, the first is taken. " if selection.num_tied > 1 else ""
    )
    validated = format_estimate(chosen.validation[metric], form_of(metric))
    sentences = [
        f"Chosen on validation ({words}, mean over seeds {validated}): "
        f"{chosen.configuration.number}: {chosen.configuration.name}. {tied}Its figures on {split}: {figures}."
    ]
    value = format_estimate(best.figures[metric].value, form_of(metric))
    if best is chosen:
        sentences.append("It is also the best on test.")
    else:
        sentences.append(
            f"Not a result: the best on test is {best.configuration.number}: {best.configuration.name} with {words} "
            f"{value}. The highest of many test figures is too high by luck (the winner's curse), so it is not "
            "reported as the sweep's outcome."
        )
    return sentences


def say_cautions(findings: Findings) -> list[str]:
    """Return a sentence for everything that limits what the report can say."""
    cautions = []
    seeds = [len(configuration.runs) for configuration in findings.configurations]
    if findings.unfinished:
        cautions.append(
            f"{len(findings.unfinished)} of {len(findings.runs)} runs are left out of all figures; see the runs below."
        )
    if len({run.code for run in findings.finished if run.code}) > 1:
        cautions.append(
            "Not all jobs ran the same code (sweep.allow_mixed=true): they may differ for that reason alone."
        )
    if any(len(versions) > 1 for versions in _data_versions(findings.finished).values()):
        cautions.append("The content of the data changed between jobs (sweep.allow_mixed=true): they do not compare.")
    if seeds and min(seeds) == 1:
        cautions.append(
            "A configuration with one seed has intervals over queries alone: a difference between such configurations "
            "may be one between seeds."
        )
    if len(set(seeds)) > 1:
        cautions.append(f"The configurations have between {min(seeds)} and {max(seeds)} finished seeds.")
    if len({run.test.queries for run in findings.runs if run.test}) > 1:
        cautions.append(
            "Not all runs were evaluated on the same queries and pool: their figures stand side by side but do not "
            "compare, and differences are taken only over queries that both sides share."
        )
    if len({run.validation.queries for run in findings.finished if run.validation}) > 1:
        cautions.append("Not all runs were validated on the same queries, which the choice on validation ignores.")
    if findings.selection and findings.selection.chosen and any(not one.validation for one in findings.summaries):
        cautions.append("Configurations without validation figures cannot be chosen.")
    if any(one.is_oracle for one in findings.configurations):
        cautions.append("Oracles know the scores they are judged by: they are in the tables, but cannot be chosen.")
    if "validation" in findings.splits:
        cautions.append("The final split of some runs is validation: what was chosen on it has no independent figure.")
    return cautions


def _data_versions(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Fingerprint of a data config -> fingerprints of what the runs read under it."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        for key, version in run.data.items():
            versions.setdefault(key, set()).add(version)
    return versions


def say_method(findings: Findings) -> list[str]:
    """Return how the figures, intervals, tests and the choice were made, a paragraph each."""
    resampling = findings.resampling
    return [
        "A configuration is a resolved config without its seed, run folder, tracking and sweep settings; runs that "
        "differ in their seed alone are its replicates. Routing accuracy is the share of queries whose route scores as "
        "high as any candidate; a parse failure counts as wrong.",
        f"Intervals of configurations and differences: hierarchical bootstrap, {resampling.resamples:,} resamples, "
        f"random seed {resampling.seed}. Seeds are drawn and, for all seeds that answered the same queries together, "
        "queries (the pigeonhole bootstrap, Owen 2007); S - 1 of S seeds are drawn (Rao and Wu 1988), and the interval "
        "is Student's t around the mean with the bootstrap's standard error and Satterthwaite's degrees of freedom. A "
        "rate of exactly 0% or 100% has Wilson's interval over queries. Baselines have the intervals of their "
        "report.json, over queries.",
        "Differences are paired by query, and by seed where both sides have the same seeds, and averaged over seeds. "
        "McNemar p: exact, two-sided; of several seeds a query's differences are summed, and the total is compared "
        "with its exact distribution when each query's sum is as likely to have either sign. Bootstrap p: t test with "
        "the bootstrap's standard error. For routing accuracy the larger of the two counts.",
        f"Holm p: those p-values after Holm's correction over the {_count_tests(findings)} differences of this report "
        "(accuracy and score of every configuration). A difference is called significant at most at 0.05.",
        "The best configuration is the one with the highest mean over seeds on validation, of equal ones the first, "
        "oracles left out; test figures take no part in the choice.",
    ]


def _count_tests(findings: Findings) -> int:
    return sum((one.accuracy is not None) + (one.score is not None) for one in findings.comparisons)
