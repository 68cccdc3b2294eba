"""The same sweep under Hydra's parallel launchers: the same folders, the same results, the same resume."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from causal_lm_router.runs.job_log import read_events, read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from tests.conftest import Result
from tests.sweeps.test_sweep import SMALL, results, snapshot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = ["train", "-m", *SMALL, "seed=0,1", "trainer.num_threads=1"]


@pytest.fixture(autouse=True)
def no_cluster_left() -> Iterator[None]:
    """End the Ray cluster that a sweep starts in this process."""
    yield
    import ray

    ray.shutdown()


@pytest.mark.parametrize("launcher", ["joblib", "ray", "submitit_local"])
def test_a_launcher_gives_the_results_of_one_process(
    launcher: str, main: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert main(*SWEEP, "sweep.name=plain").status == 0
    command = [*SWEEP, "sweep.name=parallel", f"hydra/launcher={launcher}"]
    result = main(*command)
    assert result.status == 0, result.errors
    plain, parallel = (SweepFolder(tmp_path / "outputs" / "sweeps" / name) for name in ("plain", "parallel"))
    jobs = list(read_statuses(plain))
    assert list(read_statuses(parallel)) == jobs
    for job in jobs:
        assert results(parallel.run_dir(job)) == results(plain.run_dir(job))
    workers = {event.process for event in read_events(parallel) if event.process}
    assert workers.isdisjoint({event.process for event in read_events(plain)})
    written = snapshot(parallel.path)
    again = main(*command)
    assert (again.status, snapshot(parallel.path)) == (0, written)
    assert "2 jobs: 2 done, 0 to run" in again.output


def test_a_job_that_fails_under_a_launcher_costs_only_itself(main: Callable[..., Result], tmp_path: Path) -> None:
    swept = ["lora.target_modules=[nope],[q_proj]", "sweep.name=s", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    result = main("train", "-m", *SMALL, *swept)
    assert result.status == 1
    assert "1 done, 1 failed of 2 jobs" in result.errors
    states = [
        status.state.value for status in read_statuses(SweepFolder(tmp_path / "outputs" / "sweeps" / "s")).values()
    ]
    assert sorted(states) == ["done", "failed"]
