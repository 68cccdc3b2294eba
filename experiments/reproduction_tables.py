"""Tables and figures of README.md from the run folders of `reproduce.py`, by way of results.json.

A table stands between `<!-- table: SECTION -->` and `<!-- end -->`. results.json holds what the tables show, so that a
test can compare the two. A row whose runs are missing says so in its cells.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from reproduce import Row, Section
from run_routes import table_head, table_row

from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, bar_lengths, plain_label, save_figure
from causal_lm_router.evaluation.formatting import COST, PERCENT, POINTS, SCORE, Form, format_estimate
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.statistics import Sample, estimate_means, pool_folds
from causal_lm_router.evaluation.stored import read_evaluation, read_facts, read_rows
from causal_lm_router.files.writing import write_text
from causal_lm_router.sweeps.report.comparisons import compare
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.runs import FOLD, Run, read_runs
from causal_lm_router.sweeps.report.summary import summarise

Results = dict[str, dict[str, Any]]
"""Section -> what its table shows: `rows`, each with its name, its numbers of runs and its estimates, and `made`."""

COLUMNS: dict[str, tuple[str, Form]] = {
    "mean_score": ("mean score", SCORE),
    "over best single": ("over best single", POINTS),
    "over mixture": ("over the mixture at its cost", POINTS),
    "routing_accuracy": ("routing accuracy", PERCENT),
    "unnamed": ("name no LLM", PERCENT),
    "parse_failure_rate": ("parse failures", PERCENT),
    "mean_cost": ("USD per 1,000 queries", COST),
    "apgr_paper": ("APGR", SCORE),
    "cpt50_paper": ("CPT(50%)", PERCENT),
    "cpt80_paper": ("CPT(80%)", PERCENT),
}
"""Key of an estimate -> its heading and form."""
GAINS = "over "
"""What the key of a gain over another row begins with."""
TABLES = {
    "routers": [
        "mean_score",
        "over best single",
        "over mixture",
        "routing_accuracy",
        "parse_failure_rate",
        "mean_cost",
    ],
    "two_candidates": [
        "mean_score",
        "over best single",
        "parse_failure_rate",
        "apgr_paper",
        "cpt50_paper",
        "cpt80_paper",
    ],
    "ablation": ["mean_score", "routing_accuracy", "parse_failure_rate", "unnamed"],
}
"""Kind of table -> its columns. Gains over the rows that others are compared with come last."""


def write_sections(sections: Sequence[Section], root: Path, place: Path) -> list[Path]:
    """Rebuild the sections' parts of results.json, of README.md and of figures/; return the run folders that miss."""
    results: Results = read_results(place)
    missing: list[Path] = []
    for section in sections:
        results[section.name], absent = collect(section, root)
        missing += absent
    text = (place / "README.md").read_text()
    for section in sections:
        text = fill(text, section.name, results[section.name])
    # All of it fits: now it is written.
    write_text(place / "results.json", json.dumps(results, indent=1) + "\n")
    for section in sections:
        if results[section.name]["figure"]:
            figure = draw(results[section.name], section.figure)
            (place / "figures").mkdir(exist_ok=True)
            save_figure(figure, place / results[section.name]["figure"])
            save_figure(figure, root / f"{section.name}.pdf")
    write_text(place / "README.md", text)
    return missing


def read_results(place: Path) -> Results:
    """Return what the tables of README.md show; nothing where there are none yet."""
    path = place / "results.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def collect(section: Section, root: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return what the table of a section shows, and the run folders that it misses."""
    found, missing = {}, []
    for row in section.rows:
        folders = [section.folder(root, row, run) for run in section.runs_of(row)]
        absent = [folder for folder in folders if not (folder / "report.json").is_file()]
        missing += absent
        if runs := [_read(row, folder, place) for place, folder in enumerate(folders) if folder not in absent]:
            found[row.name] = Configuration(number=1, swept={}, texts={}, runs=tuple(runs))
    rows = [
        {
            "name": row.name,
            "runs": [len(found[row.name].runs) if row.name in found else 0, len(section.runs_of(row))],
            "published": row.published,
            "estimates": _estimates(section, row, found) if row.name in found else {},
        }
        for row in section.rows
    ]
    against = dict.fromkeys([*section.against, *(name for row in section.rows for name in row.against or ())])
    shown = [*TABLES[section.table], *(GAINS + name for name in against)]
    results = {"rows": rows, "columns": shown, "made": _say_made(found.values())}
    drawn = any(gains_of(results, name) for name in section.figure)
    return {**results, "figure": f"figures/{section.name}.png" if drawn else ""}, missing


def _read(row: Row, folder: Path, place: int) -> Run:
    # Beside the evaluation by the run's own decoding lie those by others.
    (run,) = read_runs([folder if row.decoding is None else folder.parents[1]])
    if run.test is None:
        raise ValueError(f"{folder}: must be a finished run, got one that is {run.state}: {run.detail}")
    # Runs that test on other tasks are folds too: two rows are paired by the places of their runs.
    config = {**run.config, FOLD: place}
    return replace(run, config=config, test=run.test if row.decoding is None else read_evaluation(folder))


def _estimates(section: Section, row: Row, found: Mapping[str, Configuration]) -> dict[str, list[float | None]]:
    """Return the estimates of a row: value, low and high each."""
    configuration = found[row.name]
    estimates: dict[str, Estimate | None] = dict(summarise(configuration).estimates)
    estimates["over best single"] = _gain(configuration, None)
    estimates["over mixture"] = _pool(
        [run.test.report.score_gains.get("same_cost_mixture") for run in _tests(configuration)], configuration
    )
    for name in section.against if row.against is None else row.against:
        if name in found and name != row.name:
            estimates[GAINS + name] = _gain(configuration, found[name])
    estimates["unnamed"] = _unnamed(configuration)
    for key in TABLES["two_candidates"][3:]:
        predictions = [run.test.report.predictions for run in _tests(configuration)]
        estimates[key] = _pool([getattr(one, key, None) for one in predictions], configuration)
    return {key: [one.value, one.low, one.high] for key, one in estimates.items() if one is not None}


def _unnamed(configuration: Configuration) -> Estimate:
    """Return the share of generations that name no LLM, whatever the parser made of them."""
    samples = []
    for run in _tests(configuration):
        flags = [row["failure"] is not None or row["is_fuzzy"] for row in read_rows(run.folder)]
        samples.append(Sample(run.test.queries, np.array(flags, dtype=np.float64)[:, None]))
    return estimate_means(pool_folds([run.seed for run in _tests(configuration)], samples), [Measure.share])[0]


def _tests(configuration: Configuration) -> Iterator[Any]:
    return (run for run in configuration.runs if run.test)


def _gain(configuration: Configuration, other: Configuration | None) -> Estimate | None:
    (found,) = compare([configuration], other)
    return found.score.estimate if found.score else None


def _pool(estimates: Sequence[Estimate | None], configuration: Configuration) -> Estimate | None:
    """Return the mean of what reports say of each run's own queries, weighed by their number.

    With an interval where there is one run, or where the runs are folds: these are independent, and their errors add.
    """
    if not estimates or any(one is None for one in estimates):
        return None
    known = [one for one in estimates if one is not None]
    if len(known) == 1:
        return known[0]
    sizes = np.array([run.test.report.num_queries for run in _tests(configuration)], dtype=np.float64)
    shares = sizes / sizes.sum()
    value = float(shares @ [one.value for one in known])
    errors = [one.standard_error for one in known]
    if configuration.num_seeds > 1 or None in errors:
        return Estimate(value=value, note="seeds whose spread the reports do not hold")
    half = 1.96 * float(np.sqrt(np.sum((shares * np.array(errors, dtype=np.float64)) ** 2)))
    return Estimate(value=value, low=value - half, high=value + half)


def _say_made(configurations: Any) -> str:
    """Return in a line what made the runs: processors, number formats of training, commits."""
    facts = [read_facts(run.folder) for one in configurations for run in one.runs]
    made = [fact.get("provenance") or {} for fact in facts]
    processors = sorted({str(one["processor"]) for one in made if one.get("processor")})
    precisions = sorted({str(fact["precision"]["trainer"]) for fact in facts if fact.get("precision")})
    commits = sorted({str(one["commit"])[:7] for one in made if one.get("commit")})
    parts = [", ".join(part) for part in (processors, precisions, [f"commit {commit}" for commit in commits]) if part]
    return "; ".join(parts)


def render(results: Mapping[str, Any]) -> str:
    """Return the table of a section as Markdown."""
    shown = [key for key in results["columns"] if any(key in row["estimates"] for row in results["rows"])]
    published = any(row["published"] for row in results["rows"])
    heads = [COLUMNS[key][0] if key in COLUMNS else key for key in shown]
    lines = [table_head("router", "runs", *heads, *(["published"] if published else []))]
    for row in results["rows"]:
        num, planned = row["runs"]
        cells = [_cell(row["estimates"].get(key), key) if num else "missing" for key in shown]
        runs = str(num) if num == planned else f"{num} of {planned}"
        lines.append(table_row(row["name"], runs, *cells, *([row["published"]] if published else [])))
    made = f"\nMeasured on: {results['made']}.\n" if results["made"] else ""
    figure = f"\n![gains]({results['figure']})\n" if results["figure"] else ""
    return "\n".join(lines) + "\n" + figure + made


def _cell(numbers: Sequence[float | None] | None, key: str) -> str:
    if numbers is None:
        return ""
    value, low, high = numbers
    assert value is not None, "an estimate has a value"
    form = COLUMNS[key][1] if key in COLUMNS else POINTS
    return format_estimate(Estimate(value=value, low=low, high=high), form)


def fill(text: str, name: str, results: Mapping[str, Any]) -> str:
    """Return README.md with the table of a section between its marks; raise ValueError where it has none."""
    pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md must have <!-- table: {name} --> and <!-- end -->, got none")
    return pattern.sub(lambda match: f"{match[1]}{render(results)}{match[2]}", text, count=1)


def gains_of(results: Mapping[str, Any], name: str) -> dict[str, Estimate]:
    """Return the gain of every row that has one over the row, or the reference, of that name."""
    gains = {row["name"]: row["estimates"].get(GAINS + name) for row in results["rows"]}
    return {row: Estimate(value=gain[0], low=gain[1], high=gain[2]) for row, gain in gains.items() if gain}


def draw(results: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """Return a figure of the gains over each of these, a panel each and a line for each row, with their intervals."""
    panels = {name: gains for name in names if (gains := gains_of(results, name))}
    sizes = [1 + len(gains) for gains in panels.values()]
    figure = Figure(figsize=(7, 0.7 + 0.27 * sum(sizes)), layout="constrained")
    axes_of = figure.subplots(len(panels), 1, sharex=True, height_ratios=sizes, squeeze=False)[:, 0]
    for axes, (name, gains) in zip(axes_of, panels.items(), strict=True):
        # The first row of the table is on top.
        rows = list(reversed(gains.items()))
        values, bars = [100 * gain.value for _, gain in rows], bar_lengths([gain for _, gain in rows], 100)
        axes.errorbar(values, range(len(rows)), xerr=bars, fmt="o", color=BLUE, capsize=3)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [plain_label(row) for row, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_title(f"over {name}", fontsize=10)
    axes_of[-1].set_xlabel("points of mean score (95% intervals)")
    return figure
