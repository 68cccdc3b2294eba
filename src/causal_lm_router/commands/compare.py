"""Compare runs on the same queries, each with the first one.

causal-lm-router compare outputs/first outputs/second [...] [--output DIR]
"""

import argparse
from pathlib import Path

from causal_lm_router.commands.errors import fail_on_bad_input


def main() -> None:
    """Run the `compare` command; bad input ends it with one line on standard error and status 1."""
    arguments = _parser().parse_args()
    with fail_on_bad_input():
        _compare(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causal-lm-router compare",
        description="Compare two or more runs on the same queries: paired differences, McNemar's exact test, routes.",
    )
    described = "a finished run, or any folder with report.json and outcomes.jsonl; all are compared with the first"
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help=described)
    parser.add_argument("--output", type=Path, help="folder for compare.json, compare.csv, compare.md and frontier.png")
    return parser


def _compare(arguments: argparse.Namespace) -> None:
    # Imported here, since pandas and matplotlib take seconds that --help does not need.
    from rich.console import Console

    from causal_lm_router.evaluation.comparison.compare import compare_runs
    from causal_lm_router.evaluation.comparison.comparison_folder import write_comparison
    from causal_lm_router.evaluation.comparison.tables import print_comparison

    comparison = compare_runs(arguments.folders)
    written = [] if arguments.output is None else write_comparison(comparison, arguments.output)
    print_comparison(comparison, Console())
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
