"""The grid: every combination of the swept values is a job. The same command again goes on where it stopped."""

from collections.abc import Sequence
from itertools import chain

from hydra.core.override_parser.types import Override

from causal_lm_router.sweeps.launched_jobs import SweepJobs


def run_grid(jobs: SweepJobs, overrides: Sequence[Override], max_batch_size: int | None) -> list[str]:
    """Run every job that the overrides make and return their ids.

    A parallel launcher gets at most `max_batch_size` jobs at a time; None gives it all of them.

    Raises:
        ValueError: a job does not compose or cannot run on its data (then none is started), or not all jobs finished.
    """
    # Imported late: Hydra loads its plugin modules a second time while it looks for plugins, which makes new classes.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    combinations = chain.from_iterable(BasicSweeper.split_arguments(list(overrides), None))
    # All jobs are composed and checked before any starts, so that a mistake costs no training.
    grid = jobs.compose_all(combinations)
    jobs.check(grid)
    jobs.start()
    jobs.queue(grid)
    # Launch batch by batch; the launcher waits for a batch before it takes the next one.
    batch_size = max_batch_size or len(grid)
    for begin in range(0, len(grid), batch_size):
        jobs.launch(grid[begin : begin + batch_size])
    jobs.finish(grid)
    return [job.id for job in grid]
