"""Writing a comparison: compare.json, compare.csv, compare.md and the frontier of all runs."""

import json
from pathlib import Path

from causal_lm_router.evaluation.comparison.compare import Comparison
from causal_lm_router.evaluation.comparison.tables import comparison_rows, render_markdown
from causal_lm_router.evaluation.figures.drawing import save_figure
from causal_lm_router.evaluation.figures.frontier import draw_frontier, run_point
from causal_lm_router.evaluation.formatting import write_csv
from causal_lm_router.files.writing import write_text


def write_comparison(comparison: Comparison, output: Path) -> list[Path]:
    """Write the comparison's files into `output`, over those of an earlier one, and return them.

    compare.csv has a row per run and reference, compare.json the same rows and how they were made, compare.md the
    tables to read; frontier.png shows all runs and is left out unless all their costs are known.

    Raises:
        ValueError: `output` holds a run, whose own frontier.png would be lost.
    """
    if (output / "report.json").exists():
        raise ValueError(f"--output must not be the folder of a run, got {output}")
    output.mkdir(parents=True, exist_ok=True)
    first = comparison.first
    rows = comparison_rows(comparison, output)
    plain = {
        "split": first.evaluation.split,
        "queries": first.evaluation.report.num_queries,
        "first": first.name,
        "rows": rows,
    }
    # Every file is written whole; a rerun replaces them one by one.
    names = ["compare.csv", "compare.json", "compare.md"]
    write_csv(rows, list(rows[0]), output / names[0])
    write_text(output / names[1], json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(output / names[2], render_markdown(comparison))
    # The queries are the same, so the first run's references and candidates are those of all runs.
    if all(run.evaluation.report.mean_cost is not None for run in comparison.runs):
        points = [run_point(run.name, run.evaluation.report, run.table) for run in comparison.runs]
        figure = draw_frontier(points, first.evaluation.report.references, candidates=first.table)
        save_figure(figure, output / "frontier.png")
        names.append("frontier.png")
    return [output / name for name in names]
