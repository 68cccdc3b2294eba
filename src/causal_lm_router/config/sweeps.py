"""Settings of the group `sweep`, and which settings make a run another run."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import Settings, check_file_name

OnFailure = StrEnum("OnFailure", {"continue": "continue", "stop": "stop"})
"""What a sweep does after a job that failed."""


NOT_IDENTITY = (
    "run_dir",
    "tracking",
    "sweep",
    "base_model.hub_name",
    "trainer.progress_bar",
    "trainer.log_every_n_steps",
    "trainer.checkpoint_every_n_steps",
)
"""Keys that no result depends on: where a run lies, who records it and how often, how its sweep goes on."""


@dataclass
class SweepConfig(Settings):
    """What `--multirun` does with its jobs."""

    name: str | None
    """Name of the sweep and of its folder; null takes `name`."""
    isolated: bool
    """Run each job in a process of its own: slower, but one that is killed costs only itself."""
    on_failure: OnFailure
    """After a failed job go on with the others (`continue`) or start no further one (`stop`)."""
    retry_failed: bool
    """Run jobs again that failed before; else they stay as they are."""
    allow_mixed: bool
    """Add to a sweep whose earlier jobs ran other code, or read other content from the same data."""
    report: bool
    """Write the sweep's report at its end."""
    trial: int | None
    """Number of the search's trial that the job is; the sweeper sets it."""

    def _own_problems(self) -> Iterator[str]:
        yield from check_file_name("sweep.name", self.name, or_null=True)
