"""Report on a sweep, or on any runs: tables, tests, figures, and one page that opens offline.

causal-lm-router report outputs/sweeps/rank [--baseline "lora.lora_r=16"] [--metric routing_accuracy] [--output DIR]
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_lm_router.sweeps.report.report_folder import SweepReport


def main() -> None:
    """Run the `report` command; bad input ends it with one line on standard error and status 1."""
    arguments = _parser().parse_args()
    try:
        _print(_write(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {'; '.join(str(error).split(chr(10)))}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causal-lm-router report",
        description="Write tables, tests, figures and one HTML page over the runs of a sweep, or over any runs.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a sweep folder, or run folders")
    parser.add_argument("--output", type=Path, help="folder of the report; default: report/ in the sweep folder")
    parser.add_argument(
        "--baseline",
        help='what to compare with: best_single, or settings such as "lora.lora_r=16,optim.learning_rate=0.0005"; '
        "default: the first configuration",
    )
    metrics = ("mean_score", "routing_accuracy")
    parser.add_argument("--metric", choices=metrics, default=metrics[0], help="what is chosen by, on validation")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the bootstrap (default: 0)")
    return parser


def _write(arguments: argparse.Namespace) -> "SweepReport":
    from causal_lm_router.evaluation.statistics import Resampling
    from causal_lm_router.runs.run_folder import RunFolder
    from causal_lm_router.sweeps.report.report_folder import write_report
    from causal_lm_router.sweeps.report.runs import is_sweep_folder

    folders, output = arguments.folders, arguments.output
    if output is None:
        if len(folders) > 1 or (RunFolder(folders[0]).config.is_file() and not is_sweep_folder(folders[0])):
            raise ValueError("--output is needed unless one sweep folder is given")
        output = folders[0] / "report"
    resampling = Resampling(arguments.resamples, arguments.seed)
    return write_report(folders, output, baseline=arguments.baseline, metric=arguments.metric, resampling=resampling)


def _print(report: "SweepReport") -> None:
    from rich.console import Console

    from causal_lm_router.sweeps.report.terminal import print_summary

    print_summary(report.findings, report.folder, Console())


if __name__ == "__main__":
    main()
