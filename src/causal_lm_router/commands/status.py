"""Show the state of every job of a sweep, why jobs failed, and how long the rest will take.

causal-lm-router status outputs/sweeps/rank [--json]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from causal_lm_router.commands.errors import fail_on_bad_input
from causal_lm_router.runs.job_log import JobState, JobStatus, read_statuses, say_progress, seconds_left
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.terminal import plain_text

COLOURS = {JobState.done: "green", JobState.failed: "red", JobState.running: "cyan", JobState.pruned: "yellow"}


def main() -> None:
    """Run the `status` command."""
    parser = argparse.ArgumentParser(prog="causal-lm-router status", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a sweep folder, such as outputs/sweeps/rank")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    arguments = parser.parse_args()
    sweep = SweepFolder(arguments.folder)
    with fail_on_bad_input():
        # Raises where the folder is not that of a sweep.
        sweep.read_metadata()
        statuses = list(read_statuses(sweep).values())
    if arguments.json:
        jobs = [asdict(status) for status in statuses]
        print(json.dumps({"sweep": str(sweep.path), "seconds_left": seconds_left(statuses), "jobs": jobs}, indent=2))
    else:
        print_statuses(sweep, statuses, Console())


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
        coloured = plain_text(_state_and_reason(status), COLOURS.get(status.state, "default"))
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
