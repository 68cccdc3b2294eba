"""Print the results table of README.md and experiments/README.md from run folders.

python experiments/results_table.py outputs/llmrouter_cpu/2026-01-31_12-00-00 [more run folders ...]
"""

import sys
from pathlib import Path
from typing import Any

import yaml

HEADER = ("run", "queries", "who chooses", "mean score", "routing accuracy", "parse failures")


def main() -> None:
    """Print a Markdown table with a block of rows per run folder."""
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for folder in sys.argv[1:]:
        report = yaml.safe_load((Path(folder) / "report.json").read_text(encoding="utf-8"))
        rows = [("**router**", report, interval(report["parse_failure_rate"], percent=True))]
        rows += [(name, report["references"][name], "") for name in report["references"]]
        for index, (name, estimates, failures) in enumerate(rows):
            who = f"always `{report['best_single']}`" if name == "best_single" else name
            first = (report["name"], f"{report['num_queries']:,}") if index == 0 else ("", "")
            score = interval(estimates["mean_score"])
            accuracy = interval(estimates["routing_accuracy"], percent=True)
            print(f"| {' | '.join((*first, who, score, accuracy, failures))} |")


def interval(estimate: dict[str, Any], percent: bool = False) -> str:
    """Return an estimate with its 95% interval."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if percent:
        return f"{value:.1%} [{low:.1%}, {high:.1%}]"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
