"""The table of a sweep's jobs."""

import io

from rich.console import Console

from causal_lm_router.commands.status import print_statuses
from causal_lm_router.runs.job_log import JobState, JobStatus
from causal_lm_router.runs.sweep_folder import SweepFolder


def test_escape_sequences_of_a_foreign_job_log_are_shown_not_obeyed() -> None:
    bad = "\x1b[2J\u202e"
    jobs = [
        JobStatus(job=bad, overrides=[bad, f"{bad}{number}"], state=JobState.failed, message=bad, since=0.0)
        for number in (0, 1)
    ]
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_statuses(SweepFolder("x"), jobs, console)
    text = console.file.getvalue()
    assert text.count("\\x1b[2J\\u202e") == 8
    assert text.replace("\n", "").isprintable()
