"""The grid: every combination of the swept values is a job, and the same command again goes on where it stopped."""

from collections.abc import Sequence
from itertools import chain

from hydra.core.override_parser.types import Override

from causal_lm_router.sweeps.launched_jobs import SweepJob, SweepJobs


def run_grid(jobs: SweepJobs, overrides: Sequence[Override], max_batch_size: int | None) -> list[str]:
    """Run every job that the overrides make, of a parallel launcher so many at a time; return their ids.

    Raises ValueError where one does not compose, before any has begun, and where not all come to their end.
    """
    # Hydra runs its plugins' modules anew when it looks for plugins: what is imported early is another class by then.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    combinations = chain.from_iterable(BasicSweeper.split_arguments(list(overrides), None))
    composed = [jobs.compose(combination) for combination in combinations]
    grid: list[SweepJob] = list({job.id: job for job in composed}.values())
    jobs.check_unmixed(grid)
    jobs.start()
    jobs.queue(grid)
    batch_size = max_batch_size or len(grid)
    for begin in range(0, len(grid), batch_size):
        jobs.launch(grid[begin : begin + batch_size])
    jobs.finish(grid)
    return [job.id for job in grid]
