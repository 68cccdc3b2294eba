"""Show where the jobs of a sweep stand, why those that failed did, and how long the rest will take.

causal-lm-router status outputs/sweeps/rank [--json]
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.runs.job_log import JobState, JobStatus, read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder

COLOURS = {JobState.done: "green", JobState.failed: "red", JobState.running: "cyan", JobState.pruned: "yellow"}


def main() -> None:
    """Run the `status` command."""
    parser = argparse.ArgumentParser(prog="causal-lm-router status", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a sweep folder, such as outputs/sweeps/rank")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    arguments = parser.parse_args()
    sweep = SweepFolder(arguments.folder)
    try:
        sweep.read_metadata()
        statuses = list(read_statuses(sweep).values())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    if arguments.json:
        jobs = [asdict(status) for status in statuses]
        print(json.dumps({"sweep": str(sweep.path), "seconds_left": seconds_left(statuses), "jobs": jobs}, indent=2))
    else:
        print_statuses(sweep, statuses, Console())


def seconds_left(statuses: Sequence[JobStatus]) -> float | None:
    """Return how long the jobs that are neither over nor failed will take, None before the first one is done.

    Each is expected to take as long as those that are done did on average, with as many at a time as run now. Killed
    jobs count: the next start goes on with them.
    """
    done = [status.seconds for status in statuses if status.state is JobState.done and status.seconds is not None]
    if not done:
        return None
    mean = sum(done) / len(done)
    running = [status for status in statuses if status.state is JobState.running]
    num_waiting = sum(status.state is JobState.queued or status.was_killed for status in statuses)
    ahead = sum(max(0.0, mean - (time.time() - status.since)) for status in running)
    return (num_waiting * mean + ahead) / max(1, len(running))


def print_statuses(sweep: SweepFolder, statuses: Sequence[JobStatus], console: Console) -> None:
    """Print a row per job, in the order they came up, what went wrong, and how many are in which state.

    Overrides that all jobs share stand in the title.
    """
    if not statuses:
        console.print(f"{sweep.path}: no job yet")
        return
    shared = set(statuses[0].overrides).intersection(*(status.overrides for status in statuses))
    table = Table(title=Text(f"{sweep.path} {' '.join(sorted(shared))}"))
    for heading in ("job", "state", "seconds"):
        table.add_column(heading, no_wrap=True)
    table.add_column("overrides", overflow="fold")
    for status in statuses:
        coloured = Text(_state_and_reason(status), COLOURS.get(status.state, "default"))
        seconds = "" if status.seconds is None else f"{status.seconds:.0f}"
        own = " ".join(override for override in status.overrides if override not in shared)
        table.add_row(status.job, coloured, seconds, Text(own))
    console.print(table)
    for message, jobs in _messages(statuses).items():
        console.print(Text(f"{', '.join(jobs)}: {message}"))
    counts = Counter(str(status.state) for status in statuses)
    left = seconds_left(statuses)
    words = f", about {_duration(left)} left" if left else ""
    console.print(f"{len(statuses)} jobs: {', '.join(f'{number} {state}' for state, number in counts.items())}{words}")


def _state_and_reason(status: JobStatus) -> str:
    return f"{status.state} ({status.reason})" if status.reason else str(status.state)


def _messages(statuses: Sequence[JobStatus]) -> dict[str, list[str]]:
    """What the log says of jobs -> the jobs of which it says so."""
    jobs: dict[str, list[str]] = {}
    for status in statuses:
        if status.message:
            jobs.setdefault(f"{_state_and_reason(status)}: {status.message}", []).append(status.job)
    return jobs


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"


if __name__ == "__main__":
    main()
