"""What each choice of LLMRouter's causal-LM router costs: mended alone, and put back alone into the mended router.

Paper: LLMRouter (arXiv 2608.06867), its causal-LM router as version 0.4.0 trains it; `experiment=llmrouter_faithful`
says what is left open. The paper ranks it last and gives no reason; no figure for a single choice is published.

    python experiments/llmrouter_ablation.py outputs/ablation data=routerdc data.path=path/to/llmrouter [--seeds 0 1 2]
    python experiments/llmrouter_ablation.py outputs/ablation                     # the table and figure alone

Trains 18 routers with each seed, each in a process of its own and in a folder of its own; the same command goes on
where it was stopped. Prints a table and writes ablation.png and ablation.pdf: mean score, routing accuracy (any of the
best candidates is right), and the share of generations that name no LLM, which LLMRouter's parser hides. Intervals are
95%, over seeds and queries; differences are paired by query and seed.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from run_routes import table_head, table_row

from causal_lm_router.evaluation.figures.drawing import BLUE, GREY, bar_lengths, save_figure
from causal_lm_router.evaluation.formatting import PERCENT, POINTS, SCORE, format_estimate
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.statistics import Sample, estimate_means
from causal_lm_router.evaluation.stored import read_rows
from causal_lm_router.sweeps.report.comparisons import Comparison, compare
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.runs import Run, read_runs
from causal_lm_router.sweeps.report.summary import reference_estimates, summarise

CHOICES = {
    "ties go to the first candidate": ["data.tie_break=best_on_train"],
    "undecided queries are trained on": ["data.keep_undecided=false"],
    "long rows lose their label": ["objective.cut_rows=false"],
    "the prompt is trained on": ["objective.whole_row=false"],
    "no end token is taught": ["objective.end_token=true"],
    "learning rate 2e-5": ["optim.learning_rate=0.001"],
    "routes are sampled": ["inference.temperature=0"],
    "the parser guesses": ["parsing=lenient"],
}
"""LLMRouter's choice -> the overrides that mend it."""
FAITHFUL, MENDED = "as LLMRouter", "all mended"
FIGURE = "ablation"


@dataclass(frozen=True)
class Variant:
    """One router of the ablation: which choices it mends, and the router that it is compared with."""

    name: str
    mends: tuple[str, ...]
    base: str | None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name.replace(" ", "_").replace(":", "")

    @property
    def overrides(self) -> list[str]:
        """The settings of its runs."""
        mended = [override for choice in self.mends for override in CHOICES[choice]]
        return ["experiment=llmrouter_faithful", *mended]

    def train(self, folder: Path, seed: int, overrides: Sequence[str]) -> None:
        """Train it with a seed, unless that is done; end the script where training fails."""
        run_dir = folder / self.folder / f"seed_{seed}"
        if (run_dir / "report.json").exists():
            return
        settings = [*self.overrides, *overrides, f"seed={seed}", f"run_dir={run_dir}"]
        command = [sys.executable, "-m", "causal_lm_router.commands.cli", "train", *settings]
        if status := subprocess.run(command).returncode:
            raise SystemExit(f"{run_dir}: training ended with status {status}")


def make_variants() -> list[Variant]:
    """Return the variants in the order of the table."""
    every = tuple(CHOICES)
    alone = [Variant(f"mended: {choice}", (choice,), FAITHFUL) for choice in every]
    put_back = [
        Variant(f"put back: {choice}", tuple(one for one in every if one != choice), MENDED) for choice in every
    ]
    return [Variant(FAITHFUL, (), None), *alone, Variant(MENDED, every, FAITHFUL), *put_back]


@dataclass(frozen=True)
class Result:
    """The runs of one variant, and how they compare with its base."""

    variant: Variant
    configuration: Configuration
    comparison: Comparison | None

    @cached_property
    def unnamed(self) -> Estimate:
        """The share of generations that name no LLM, whatever the parser made of them."""
        samples = []
        for run in self.configuration.runs:
            rows = read_rows(run.folder)
            flags = [row["failure"] is not None or row["is_fuzzy"] for row in rows]
            assert run.test is not None
            samples.append(Sample(run.test.queries, np.array(flags, dtype=np.float64)[:, None]))
        return estimate_means(samples, [Measure.share])[0]

    @property
    def gain(self) -> Estimate | None:
        """The mean score over that of its base."""
        found = self.comparison and self.comparison.score
        return found.estimate if found else None


def main() -> None:
    """Train what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments, overrides = parser.parse_known_args()
    if overrides:
        # Seed by seed, and first what others are compared with: a stopped ablation has a table.
        bases = (FAITHFUL, MENDED)
        ordered = sorted(make_variants(), key=lambda one: (one.name not in bases, one.base != MENDED))
        for seed in arguments.seeds:
            for variant in ordered:
                variant.train(arguments.folder, seed, overrides)
    results = read_results(arguments.folder)
    for line in make_table(results):
        print(line)
    for suffix in (".png", ".pdf"):
        save_figure(draw(results), (arguments.folder / FIGURE).with_suffix(suffix))


def read_results(folder: Path) -> list[Result]:
    """Return the results of the variants that have finished runs; the others are named on standard error.

    Ends the script where a variant that others are compared with has none.
    """
    found: dict[str, Configuration] = {}
    for number, variant in enumerate(make_variants(), start=1):
        if runs := finished_runs(folder / variant.folder):
            found[variant.name] = Configuration(number=number, swept={}, texts={}, runs=runs)
        elif variant.name in (FAITHFUL, MENDED):
            raise SystemExit(f"{folder / variant.folder}: must hold a finished run, got none")
        else:
            print(f"missing: {folder / variant.folder}", file=sys.stderr)
    comparisons = {
        id(one.configuration): one
        for base in (FAITHFUL, MENDED)
        for one in compare(
            [found[variant.name] for variant in make_variants() if variant.base == base and variant.name in found],
            found[base],
        )
    }
    return [
        Result(variant, found[variant.name], comparisons.get(id(found[variant.name])))
        for variant in make_variants()
        if variant.name in found
    ]


def finished_runs(folder: Path) -> tuple[Run, ...]:
    """Return a variant's finished runs by seed."""
    runs = read_runs([folder]) if any(folder.glob("*/config.yaml")) else []
    return tuple(sorted((run for run in runs if run.test), key=lambda run: int(run.seed)))


def make_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield table_head("router", "seeds", "mean score", "points over its base", "routing accuracy", "name no LLM")
    for result in results:
        estimates = summarise(result.configuration).estimates
        yield table_row(
            result.variant.name,
            str(len(result.configuration.runs)),
            format_estimate(estimates["mean_score"], SCORE),
            "" if result.gain is None else format_estimate(result.gain, POINTS),
            format_estimate(estimates["routing_accuracy"], PERCENT),
            format_estimate(result.unnamed, PERCENT),
        )
    for reference in reference_estimates(results[0].configuration.runs[:1]):
        score, accuracy = reference.estimates.mean_score, reference.estimates.routing_accuracy
        yield table_row(reference.name, "", format_estimate(score, SCORE), "", format_estimate(accuracy, PERCENT), "")


def draw(results: Sequence[Result]) -> Figure:
    """Return a figure: what each choice changes when it is mended alone, and when it is put back alone."""
    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    titles = {FAITHFUL: "mended, against LLMRouter's", MENDED: "put back, against all mended"}
    groups = {base: [one for one in results if one.variant.base == base and one.gain] for base in titles}
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[1 + len(group) for group in groups.values()])
    for axes, (base, title) in zip(panels, titles.items(), strict=True):
        shown = groups[base]
        for row, result in enumerate(reversed(shown)):
            assert result.gain is not None
            value = 100 * result.gain.value
            bars = 100 * bar_lengths([result.gain])
            axes.errorbar([value], [row], xerr=bars, fmt="o", color=BLUE, capsize=3)
        names = [result.variant.name.partition(": ")[2] or result.variant.name for result in reversed(shown)]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_title(title, fontsize=10)
    panels[-1].set_xlabel("points of mean score (95% intervals over seeds and queries)")
    return figure


if __name__ == "__main__":
    main()
