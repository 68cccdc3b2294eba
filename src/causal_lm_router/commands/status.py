"""Show where runs stand: the jobs of a sweep, why they failed and how long the rest will take; or all runs of a folder.

causal-lm-router status outputs
causal-lm-router status outputs/sweeps/rank [--json]
causal-lm-router status outputs/quickstart/2026-01-31_12-00-00 --check
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from causal_lm_router.commands.errors import fail_on_bad_input
from causal_lm_router.commands.run_list import ListedRun, list_runs
from causal_lm_router.evaluation.formatting import PERCENT, SCORE, format_estimate
from causal_lm_router.files.checksums import find_damage
from causal_lm_router.runs.job_log import JobStatus, read_statuses, say_progress, seconds_left
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.report.runs import find_folders, is_sweep_folder
from causal_lm_router.terminal import plain_text

COLOURS = {"done": "green", "failed": "red", "running": "cyan", "pruned": "yellow", "unreadable": "red"}


def main() -> None:
    """Run the `status` command."""
    parser = argparse.ArgumentParser(prog="causal-lm-router status", description=__doc__.split("\n")[0])
    described = "a sweep folder, such as outputs/sweeps/rank, or any folder with runs in or below it; with --check any"
    parser.add_argument("folder", type=Path, help=described)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    checked = "compare all files in the folder and below with their checksums, and name those that are damaged"
    parser.add_argument("--check", action="store_true", help=checked)
    arguments = parser.parse_args()
    if arguments.check:
        with fail_on_bad_input():
            check_files_of(arguments.folder)
        return
    with fail_on_bad_input():
        show = _show_sweep if is_sweep_folder(arguments.folder) else _show_runs
        show(arguments.folder, as_json=arguments.json)


def _show_sweep(folder: Path, *, as_json: bool) -> None:
    sweep = SweepFolder(folder)
    # Raises where sweep.json cannot be read.
    sweep.read_metadata()
    statuses = list(read_statuses(sweep).values())
    if as_json:
        jobs = [asdict(status) for status in statuses]
        print(json.dumps({"sweep": str(sweep.path), "seconds_left": seconds_left(statuses), "jobs": jobs}, indent=2))
    else:
        print_statuses(sweep, statuses, Console())


def _show_runs(folder: Path, *, as_json: bool) -> None:
    found = list(find_folders(folder))
    if not found:
        raise ValueError(f"{folder}: must hold a run, a folder with config.yaml, or a sweep, got none")
    sweeps = [SweepFolder(path) for path in found if is_sweep_folder(path)]
    runs = list_runs([path for path in found if not is_sweep_folder(path)])
    progress = {str(sweep.path): say_progress(list(read_statuses(sweep).values())) for sweep in sweeps}
    if as_json:
        listed = [run.to_plain() for run in runs]
        print(json.dumps({"folder": str(folder), "runs": listed, "sweeps": progress}, indent=2))
    else:
        print_runs(folder, runs, progress, Console())


def print_runs(folder: Path, runs: Sequence[ListedRun], sweeps: dict[str, str], console: Console) -> None:
    """Print a row per run, the latest first, then a line per sweep; runs are named from `folder`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Run", overflow="fold", min_width=12)
    # The time of day stands below the date, so that 80 columns are enough.
    table.add_column("Date (UTC)", max_width=10)
    table.add_column("State", no_wrap=True)
    table.add_column("Data", overflow="fold", min_width=12)
    for heading in ("Mean\nscore", "Routing\naccuracy", "Parse\nfailures"):
        table.add_column(heading, justify="right")
    for run in runs:
        path = run.folder.relative_to(folder) if run.folder != folder else run.folder
        estimates = [(run.mean_score, SCORE), (run.routing_accuracy, PERCENT), (run.parse_failure_rate, PERCENT)]
        numbers = ["" if value is None else format_estimate(value, form) for value, form in estimates]
        cells = [plain_text(text) for text in (str(path), run.date)]
        table.add_row(*cells, plain_text(run.state, COLOURS.get(run.state, "default")), plain_text(run.data), *numbers)
    if runs:
        console.print(table)
    for run in runs:
        if run.detail:
            console.print(plain_text(f"{run.folder}: {run.detail}"), soft_wrap=True)
    for sweep, progress in sweeps.items():
        console.print(plain_text(f"sweep {sweep}: {progress}"), soft_wrap=True)


def check_files_of(folder: Path) -> None:
    """Name the files in a folder and below it that differ from their checksums; with any, leave with status 1.

    Raises:
        ValueError: there are no checksums to compare with.
    """
    number, damaged = find_damage(folder)
    if not number and not damaged:
        raise ValueError(f"--check must be given with a folder whose files have checksums, got {folder}")
    for line in damaged:
        print(plain_text(line))
    print(f"{number} files compared, {len(damaged)} damaged")
    if damaged:
        raise SystemExit(1)


def print_statuses(sweep: SweepFolder, statuses: Sequence[JobStatus], console: Console) -> None:
    """Print a row per job in the order of their queue, then the messages of jobs, then the progress in one line.

    Overrides that all jobs share are in the title.
    """
    if not statuses:
        console.print(plain_text(f"{sweep.path}: no job yet"))
        return
    shared = set(statuses[0].overrides).intersection(*(status.overrides for status in statuses))
    table = Table(title=plain_text(f"{sweep.path} {' '.join(sorted(shared))}"))
    for heading in ("job", "state", "seconds"):
        table.add_column(heading, no_wrap=True)
    table.add_column("overrides", overflow="fold")
    for status in statuses:
        coloured = plain_text(_state_and_reason(status), COLOURS.get(status.state.value, "default"))
        seconds = "" if status.seconds is None else f"{status.seconds:.0f}"
        own = " ".join(override for override in status.overrides if override not in shared)
        table.add_row(plain_text(status.job), coloured, seconds, plain_text(own))
    console.print(table)
    for message, jobs in _jobs_by_message(statuses).items():
        console.print(plain_text(f"{', '.join(jobs)}: {message}"))
    console.print(say_progress(statuses))


def _state_and_reason(status: JobStatus) -> str:
    return f"{status.state} ({status.reason})" if status.reason else str(status.state)


def _jobs_by_message(statuses: Sequence[JobStatus]) -> dict[str, list[str]]:
    """Return each message of the job log with the jobs that have it: many jobs often fail for one reason."""
    jobs: dict[str, list[str]] = {}
    for status in statuses:
        if status.message:
            jobs.setdefault(f"{_state_and_reason(status)}: {status.message}", []).append(status.job)
    return jobs


if __name__ == "__main__":
    main()
