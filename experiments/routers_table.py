"""Print one table of routers, each by every decoding it was evaluated with: means over seeds beside best single.

python experiments/routers_table.py outputs/sweeps/objectives outputs/sweeps/baselines [--against knn_regression]

Folders are runs or sweeps. A row is what was trained, or a baseline, with one decoding; runs that differ in their seed
alone are one row. Intervals are 95%, over seeds and queries; differences are paired by
query. `--against` names a baseline of the table to which every row is compared too.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from run_routes import format_score, table_head, table_row

from causal_lm_router.config import BaselineMethod
from causal_lm_router.evaluation.formatting import POINTS, format_estimate
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.statistics import Sample, estimate_means
from causal_lm_router.evaluation.stored import RunEvaluation, read_evaluation
from causal_lm_router.sweeps.report.comparisons import compare
from causal_lm_router.sweeps.report.configurations import METHOD, Configuration, group_runs, mark_repeated
from causal_lm_router.sweeps.report.runs import Run, read_runs
from causal_lm_router.sweeps.report.summary import summarise

TITLES = ("router", "decoding", "seeds", "mean score", "over best single", "routing accuracy", "parse failures")
COST_TITLE = "USD per 1,000 queries"
TAUGHT = ("data.cost_weight", "data.task_shrinkage")
"""Settings that change which scores are supervised."""


@dataclass(frozen=True)
class Row:
    """One router under one decoding: its runs, a seed each, with that decoding's evaluation as theirs."""

    router: str
    decoding: str
    configuration: Configuration

    @property
    def evaluations(self) -> list[RunEvaluation]:
        """The evaluation of every seed."""
        return [run.test for run in self.configuration.runs if run.test]

    @cached_property
    def estimates(self) -> Mapping[str, Estimate]:
        """Estimate -> its mean over seeds and queries; without `mean_cost` where costs are unknown."""
        return summarise(self.configuration).estimates

    def gain(self) -> Estimate:
        """Return the mean score over best single; raise ValueError where outcomes lack the candidates' scores."""
        (found,) = compare([self.configuration], None)
        if found.score is None:
            raise ValueError(f"{self.router}: {found.note}")
        return found.score.estimate

    def gain_over(self, other: "Row") -> Estimate:
        """Return the mean score over another row's mean over its seeds; raise ValueError for other queries."""
        if {one.queries for one in (*self.evaluations, *other.evaluations)} != {self.evaluations[0].queries}:
            raise ValueError(f"{self.router}, {other.router}: asked other queries")
        theirs = np.mean([one.values["mean_score"] for one in other.evaluations], axis=0)
        differences = [one.values["mean_score"] - theirs for one in self.evaluations]
        samples = [Sample(self.evaluations[0].queries, values[:, None]) for values in differences]
        return estimate_means(samples, [Measure.difference])[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--against", type=BaselineMethod, metavar="NAME")
    arguments = parser.parse_args()
    rows = read_rows(arguments.folders)
    reference = find_baseline(rows, arguments.against) if arguments.against else None
    against = [f"over {reference.router}"] if reference else []
    print(table_head(*TITLES[:5], *against, *TITLES[5:], COST_TITLE))
    for row in sorted(rows, key=lambda row: -row.estimates["mean_score"].value):
        gains = [format_estimate(row.gain(), POINTS)]
        if reference:
            gains += ["" if row is reference else format_estimate(row.gain_over(reference), POINTS)]
        print(format_row((row.router, row.decoding, str(len(row.evaluations))), row.estimates, gains))
    for name, baseline in rows[0].evaluations[0].report.references.items():
        if name not in {row.router for row in rows}:
            estimates = {"mean_score": baseline.mean_score, "routing_accuracy": baseline.routing_accuracy}
            estimates |= {"mean_cost": baseline.mean_cost} if baseline.mean_cost else {}
            print(format_row((name, "", ""), estimates, [""] * (1 + len(against))))


def read_rows(folders: Sequence[Path]) -> list[Row]:
    """Return the rows of the finished runs in the folders; raise ValueError for a folder without any."""
    named: dict[str, list[Run]] = {}
    for run in mark_repeated(read_runs(folders)):
        if run.test:
            named.setdefault(describe(run.config), []).append(run)
    if not named:
        raise ValueError(f"{', '.join(map(str, folders))}: no finished run there")
    rows = []
    for name, runs in named.items():
        for configuration in group_runs(runs):
            # What the name does not tell apart, the settings do that differ.
            router = f"{name}, {configuration.name}" if configuration.swept else name
            rows += merge_equal(list(_decoded(router, configuration)))
    return rows


def merge_equal(rows: Sequence[Row]) -> list[Row]:
    """Return one router's rows, those of decodings that chose the same route for every query and seed as one."""
    merged: list[Row] = []
    for row in rows:
        for index, other in enumerate(merged):
            if _never_differ(other, row):
                merged[index] = replace(other, decoding=f"{other.decoding}, {row.decoding}")
                break
        else:
            merged.append(row)
    return merged


def describe(config: Mapping[str, Any]) -> str:
    """Return what a run's router is, from the flat config: a baseline's name, or target, objective and training."""
    method = config.get(METHOD)
    named = [method] if method else [f"`{config['target.kind']}`", f"`{config['objective.kind']}`"]
    named += [f"{key.partition('.')[2]} {config[key]:g}" for key in TAUGHT if config[key]]
    if not method:
        epochs = config["trainer.num_epochs"]
        named.append(f"{epochs} epoch{'s' if epochs > 1 else ''}")
    return ", ".join(named)


def find_baseline(rows: Sequence[Row], method: BaselineMethod) -> Row:
    """Return the row of a baseline; raise ValueError where there is none."""
    for row in rows:
        if row.router == method.value:
            return row
    raise ValueError(f"--against {method.value}: no run of this baseline in the folders")


def format_row(names: Sequence[str], estimates: Mapping[str, Estimate], gains: Sequence[str]) -> str:
    """Return a row as Markdown: rates without their intervals, which `report` and `compare` print."""
    shown = {name: f"{estimate.value:.1%}" for name, estimate in estimates.items()}
    cost = f"{1000 * estimates['mean_cost'].value:.3f}" if "mean_cost" in estimates else ""
    rates = [shown.get(name, "") for name in ("routing_accuracy", "parse_failure_rate")]
    return table_row(*names, format_score(estimates["mean_score"]), *gains, *rates, cost)


def _decoded(router: str, configuration: Configuration) -> Iterator[Row]:
    """A row per decoding, the configured one first, of those seeds that were evaluated by it."""
    runs: dict[str, list[Run]] = {}
    for run in configuration.runs:
        assert run.test is not None, "groups hold finished runs"
        decoding = run.test.report.decoding
        runs.setdefault(decoding.method if decoding else "", []).append(run)
        for other in sorted((run.folder / "decodings").glob("*/report.json")):
            runs.setdefault(other.parent.name, []).append(replace(run, test=read_evaluation(other.parent)))
    for decoding_name, found in runs.items():
        yield Row(router, decoding_name, replace(configuration, runs=tuple(found)))


def _never_differ(one: Row, other: Row) -> bool:
    """Whether the reports of both rows' seeds, the same ones, say that the two decodings never differ."""
    if len(one.evaluations) != len(other.evaluations):
        return False
    first, second = one.decoding.partition(",")[0], other.decoding
    for evaluation in one.evaluations:
        differing = evaluation.report.decoding.differing_routes if evaluation.report.decoding else {}
        found = differing.get(f"{first}~{second}") or differing.get(f"{second}~{first}")
        if found is None or found.value > 0:
            return False
    return True


if __name__ == "__main__":
    main()
