"""Print one table of routers, each by every decoding it was evaluated with: means over seeds beside best single.

python experiments/routers_table.py outputs/sweeps/objectives outputs/sweeps/baselines [--against knn_regression]

Folders are runs or sweeps. A row is what was trained, or a baseline, with one decoding; runs that differ in their seed
alone are one row. Intervals are 95%, from the hierarchical bootstrap over seeds and queries; differences are paired by
query. `--against` names a baseline of the table to which every row is compared too.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from run_routes import format_score, table_head, table_row

from causal_lm_router.config import BaselineMethod
from causal_lm_router.intervals import Figure
from causal_lm_router.routing_report import Baseline
from causal_lm_router.sweep_report.evaluations import Floats, RunEvaluation, read_evaluation
from causal_lm_router.sweep_report.runs import read_runs
from causal_lm_router.sweep_report.statistics import Resampling, Sample, estimate_means

TITLES = ("router", "decoding", "seeds", "mean score", "over best single", "routing accuracy", "parse failures")
COST_TITLE = "USD per 1,000 queries"
TAUGHT = ("data.cost_weight", "data.task_shrinkage")
"""Settings that change which scores are taught."""


@dataclass(frozen=True)
class Row:
    """One router under one decoding: an evaluation per seed."""

    router: str
    decoding: str
    evaluations: tuple[RunEvaluation, ...]

    def figure(self, name: str) -> Figure:
        """Return the mean of a figure over seeds and queries; raise KeyError for costs that are unknown."""
        return self._estimate([one.values[name] for one in self.evaluations])

    def gain(self) -> Figure:
        """Return the mean score over best single; raise ValueError where outcomes lack the candidates' scores."""
        singles = [one.best_single for one in self.evaluations]
        if any(single is None for single in singles):
            raise ValueError(f"{self.router}: outcomes.jsonl holds no scores of all candidates")
        pairs = zip(self.evaluations, singles, strict=True)
        return self._estimate([one.values["mean_score"] - (single or {})["mean_score"] for one, single in pairs])

    def gain_over(self, other: "Row") -> Figure:
        """Return the mean score over another row's mean over its seeds; raise ValueError for other queries."""
        if {one.queries for one in (*self.evaluations, *other.evaluations)} != {self.evaluations[0].queries}:
            raise ValueError(f"{self.router}, {other.router}: asked other queries")
        theirs = np.mean([one.values["mean_score"] for one in other.evaluations], axis=0)
        return self._estimate([one.values["mean_score"] - theirs for one in self.evaluations])

    def _estimate(self, values: Iterable[Floats]) -> Figure:
        pairs = zip(self.evaluations, values, strict=True)
        (estimate,) = estimate_means([Sample(one.queries, column[:, None]) for one, column in pairs], Resampling())
        return estimate.figure


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
    for row in sorted(rows, key=lambda row: -row.figure("mean_score").value):
        print(format_row(row, reference))
    for name, figures in rows[0].evaluations[0].report.baselines.items():
        if name not in {row.router for row in rows}:
            print(table_row(name, "", "", *_baseline_cells(figures, reference is not None)))


def read_rows(folders: Sequence[Path]) -> list[Row]:
    """Return the rows of the finished runs in the folders; raise ValueError for a folder without any."""
    grouped: dict[tuple[str, str], list[RunEvaluation]] = {}
    for run in read_runs(folders):
        if run.test is not None:
            name = describe(run.config)
            for decoding, evaluation in _decodings(run.folder, run.test):
                grouped.setdefault((name, decoding), []).append(evaluation)
    if not grouped:
        raise ValueError(f"{', '.join(map(str, folders))}: no finished run there")
    return merge_equal([Row(*key, tuple(evaluations)) for key, evaluations in grouped.items()])


def merge_equal(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, decodings of one router that chose the same route for every query on every seed as one row."""
    merged: list[Row] = []
    for row in rows:
        same = [index for index, other in enumerate(merged) if other.router == row.router and _equal(other, row)]
        if same:
            other = merged[same[0]]
            merged[same[0]] = Row(row.router, f"{other.decoding}, {row.decoding}", other.evaluations)
        else:
            merged.append(row)
    return merged


def describe(config: Mapping[str, Any]) -> str:
    """Return what a run's router is, from the flat config: a baseline's name, or target, objective and training."""
    method = config.get("baseline.method")
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


def format_row(row: Row, reference: Row | None) -> str:
    """Return a row as Markdown."""
    against = []
    if reference is not None:
        against = ["" if row is reference else format_points(row.gain_over(reference))]
    figures = [format_rate(row.figure(name)) for name in ("routing_accuracy", "parse_failure_rate")]
    costs = [one.values.get("mean_cost") for one in row.evaluations]
    cost = "" if any(one is None for one in costs) else f"{1000 * row.figure('mean_cost').value:.3f}"
    seeds = str(len(row.evaluations))
    score, gain = format_score(row.figure("mean_score")), format_points(row.gain())
    return table_row(row.router, row.decoding, seeds, score, gain, *against, *figures, cost)


def format_points(figure: Figure) -> str:
    """Return a difference of mean scores in points, with its interval."""
    points = f"{100 * figure.value:+.1f}"
    if figure.low is None or figure.high is None:
        return points
    return f"{points} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def format_rate(figure: Figure) -> str:
    """Return a rate without its interval, which `report` and `compare` print."""
    return f"{figure.value:.1%}"


def _decodings(folder: Path, first: RunEvaluation) -> Iterator[tuple[str, RunEvaluation]]:
    decoding = first.report.decoding
    yield decoding.method if decoding else "", first
    for other in sorted((folder / "decodings").glob("*/report.json")):
        yield other.parent.name, read_evaluation(other.parent)


def _equal(one: Row, other: Row) -> bool:
    """Whether the reports say that the two rows' decodings never differ."""
    first, second = one.decoding.partition(",")[0], other.decoding
    for evaluation in one.evaluations:
        differing = evaluation.report.decoding.differing_routes if evaluation.report.decoding else {}
        found = differing.get(f"{first}~{second}") or differing.get(f"{second}~{first}")
        if found is None or found.value > 0:
            return False
    return True


def _baseline_cells(figures: Baseline, has_reference: bool) -> list[str]:
    cost = "" if figures.mean_cost is None else f"{1000 * figures.mean_cost.value:.3f}"
    between = [""] * (2 if has_reference else 1)
    return [format_score(figures.mean_score), *between, format_rate(figures.routing_accuracy), "", cost]


if __name__ == "__main__":
    main()
