"""Report on a sweep, or on any runs: tables, significance tests, drawings, and one HTML page that opens offline.

causal-lm-router report outputs
causal-lm-router report outputs/sweeps/rank [--baseline "lora.lora_r=16"] [--metric routing_accuracy] [--json]
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from causal_lm_router.commands.errors import fail_on_bad_input

if TYPE_CHECKING:
    from causal_lm_router.sweeps.report.report_folder import SweepReport


def main() -> None:
    """Run the `report` command; bad input ends it with one line on standard error and status 1."""
    arguments = _parser().parse_args()
    with fail_on_bad_input():
        report = _write(arguments)
        _print_json(report) if arguments.json else _print(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causal-lm-router report",
        description="Write tables, significance tests, drawings and an HTML page about a sweep, or about any runs.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a sweep folder, or any folders of runs"
    )
    parser.add_argument("--output", type=Path, help="folder of the report; default: report/ in FOLDER")
    parser.add_argument(
        "--baseline",
        help='best_single, or the settings of a configuration, such as "lora.lora_r=16,optim.learning_rate=0.0005"; '
        "all configurations are compared with it (default: the first one)",
    )
    metrics = ("mean_score", "routing_accuracy")
    parser.add_argument("--metric", choices=metrics, default=metrics[0], help="the highest on validation is chosen")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object instead of tables")
    return parser


def _write(arguments: argparse.Namespace) -> "SweepReport":
    from causal_lm_router.runs.run_folder import RunFolder
    from causal_lm_router.runs.sweep_folder import sweep_of
    from causal_lm_router.sweeps.report.report_folder import write_report

    folders, output = arguments.folders, arguments.output
    if output is None:
        if len(folders) > 1 or RunFolder(folders[0]).config.is_file():
            sweep = sweep_of(folders[0])
            hint = f"; its sweep is {os.path.relpath(sweep.path)}" if len(folders) == 1 and sweep else ""
            raise ValueError(f"--output must be given unless FOLDER is one folder of runs{hint}")
        output = folders[0] / "report"
    return write_report(folders, output, baseline=arguments.baseline, metric=arguments.metric)


def _print(report: "SweepReport") -> None:
    from rich.console import Console

    from causal_lm_router.sweeps.report.terminal import print_summary

    print_summary(report.findings, report.folder, Console())


def _print_json(report: "SweepReport") -> None:
    import json

    from causal_lm_router.sweeps.report.page import plain_report

    print(json.dumps(plain_report(report.findings, report.folder), indent=2, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main()
