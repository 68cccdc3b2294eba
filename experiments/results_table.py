"""Print the results table of README.md and experiments/README.md from run folders.

python experiments/results_table.py outputs/llmrouter_cpu/2026-01-31_12-00-00 [more run folders ...]
"""

import sys
from pathlib import Path

from causal_lm_router.evaluation.formatting import PERCENT, REFERENCE_NAMES, SCORE, format_estimate
from causal_lm_router.evaluation.stored import read_facts, read_report

HEADER = ("run", "queries", "who chooses", "mean score", "routing accuracy", "parse failures")


def main() -> None:
    """Print a Markdown table with a block of rows per run folder."""
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for folder in map(Path, sys.argv[1:]):
        report, name = read_report(folder), read_facts(folder)["name"]
        rows = [("**router**", report.mean_score, report.routing_accuracy, report.parse_failure_rate)]
        for key, reference in report.references.items():
            who = f"always `{report.best_single}`" if key == "best_single" else REFERENCE_NAMES[key]
            rows.append((who, reference.mean_score, reference.routing_accuracy, None))
        for index, (who, score, accuracy, failures) in enumerate(rows):
            first = (name, f"{report.num_queries:,}") if index == 0 else ("", "")
            failed = "" if failures is None else format_estimate(failures, PERCENT)
            cells = (*first, who, format_estimate(score, SCORE), format_estimate(accuracy, PERCENT), failed)
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
