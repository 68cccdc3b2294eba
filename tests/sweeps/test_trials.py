"""The search as a sweep: on planted runs, whose estimates follow from their settings, and on real ones."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from causal_lm_router.config import TrainConfig
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample
from causal_lm_router.runs.job_log import read_events, read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.search_space import distribution_of
from tests.conftest import Result

pytestmark = pytest.mark.slow

SMALL = ["data=simulated", "debug=smoke"]
SMALL += ["lora.merge_lora=false", "trainer.progress_bar=false", "tracking.tensorboard=false"]
SMALL += ["data.simulated.num_queries=60", "sweep.report=false"]
SEARCH = ["-m", "hydra/sweeper=optuna", *SMALL, "sweep.name=s", "hydra.sweeper.n_trials=5"]
SPACE = ["optim.learning_rate=tag(log,interval(1e-5,1e-1))", "lora.lora_r=choice(2,4,8)"]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "outputs" / "sweeps" / "s")


def right_of_20(config: TrainConfig) -> int:
    """The planted result: best near a learning rate of 0.001, better with a lower rank."""
    return max(0, round(20 - 5 * abs(math.log10(config.optim.learning_rate) + 3) - config.lora.lora_r))


def make_report(num_right: int, cost: float | None = None) -> RoutingReport:
    outcomes = []
    for number in range(20):
        costs = None if cost is None else {"a": cost, "b": cost}
        example = RoutingExample(str(number), "text", "task", {"a": 1.0, "b": 0.0}, costs)
        route = ParsedRoute("a" if number < num_right else "b")
        outcomes.append(
            RouteOutcome(
                example=example, label="a", generation=Generation("text", "stop"), route=route, called=route.candidate
            )
        )
    return evaluate_outcomes(outcomes, ("a", "b"), "b", queries_per_second=None).report


class Planted:
    """Stands in for training. `runs` lists the trials that it ran; `before` may raise in place of a run.

    It evaluates once while it "trains", at step 10.
    """

    def __init__(self) -> None:
        self.runs: list[int | None] = []
        self.before: Callable[[TrainConfig], None] = lambda config: None
        self.cost: Callable[[TrainConfig], float | None] = lambda config: None

    def train_router(self, config: TrainConfig, workbench: Any, on_evaluation: Any) -> RoutingReport:
        self.runs.append(config.sweep.trial)
        self.before(config)
        report = make_report(right_of_20(config), self.cost(config))
        on_evaluation(report, 10)
        text = json.dumps({"split": "validation", "seed": config.seed, **report.to_dict()})
        run_dir = Path(config.run_dir)
        (run_dir / "validation").mkdir(parents=True, exist_ok=True)
        (run_dir / "validation" / "report.json").write_text(text)
        # The test estimates are the opposite: whoever chooses by them is found out.
        opposite = make_report(20 - right_of_20(config), self.cost(config))
        (run_dir / "report.json").write_text(json.dumps(opposite.to_dict()))
        return report


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    planted = Planted()
    monkeypatch.setattr("causal_lm_router.runs.complete_run.train_router", planted.train_router)
    return planted


def study_of(sweep: SweepFolder) -> optuna.Study:
    """The study as Optuna itself reads it."""
    storage = JournalStorage(JournalFileBackend(str(sweep.study)))
    return optuna.load_study(study_name=sweep.path.name, storage=storage)


def told(sweep: SweepFolder) -> list[tuple[int, dict[str, Any], str, list[float] | None]]:
    return [(trial.number, trial.params, trial.state.name, trial.values) for trial in study_of(sweep).trials]


def best_of(sweep: SweepFolder) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((sweep.path / "best.json").read_text())
    return loaded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=choice(4,8,16)", CategoricalDistribution([4, 8, 16])),
        ("x=4,8", CategoricalDistribution([4, 8])),
        ("x=shuffle(4,8)", CategoricalDistribution([4, 8])),
        ("x=true,null,[q_proj],a-b,'c d'", CategoricalDistribution([True, "null", "[q_proj]", "a-b", "'c d'"])),
        ("x=range(1,8)", IntDistribution(1, 7)),
        ("x=range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("x=range(8,1,-3)", IntDistribution(2, 8, step=3)),
        ("x=range(0.0,1.0,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("x=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("x=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("x=int(interval(1,8))", IntDistribution(1, 8)),
        ("x=tag(log,int(interval(1,8)))", IntDistribution(1, 8, log=True)),
        ("x=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
    ],
)
def test_ranges_are_distributions(text: str, expected: BaseDistribution) -> None:
    assert distribution_of(OverridesParser.create().parse_override(text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=range(1,1)", "a range must hold at least one number"),
        ("x=tag(logarithmic,interval(1,2))", "tags must be log, for a range or an interval, got ['logarithmic']"),
        ("x=tag(log,choice(1,2))", "tags must be log, for a range or an interval, got ['log']"),
        ("x=tag(log,interval(0,1))", "low"),
        ("x=interval(2,1)", "low"),
    ],
)
def test_wrong_ranges_name_themselves(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        distribution_of(OverridesParser.create().parse_override(text))
    assert str(error.value).startswith(f"{text}: ")
    assert message in str(error.value)


def test_a_search_names_its_best_trial_and_goes_on(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    result = main("train", *SEARCH, *SPACE)
    assert result.status == 0, result.errors
    assert planted.runs == [0, 1, 2, 3, 4]
    accuracy = {number: values[0] for number, _, _, values in told(sweep) if values}
    statuses = {status.trial: status.job for status in read_statuses(sweep).values()}
    first_best = min(accuracy, key=lambda number: (-accuracy[number], number))
    run_dir = sweep.run_dir(statuses[first_best])
    assert best_of(sweep) == [
        {
            "number": first_best,
            "values": {"routing_accuracy": accuracy[first_best]},
            "params": study_of(sweep).trials[first_best].params,
            "job": run_dir.name,
            "run_dir": str(run_dir),
        }
    ]
    assert json.loads((run_dir / "validation" / "report.json").read_text())["routing_accuracy"]["value"] == max(
        accuracy.values()
    )
    assert f"best trial {first_best}: routing_accuracy={accuracy[first_best]}" in result.output
    assert f"run folder: outputs/sweeps/s/{run_dir.name}" in result.output
    before = told(sweep)
    assert main("train", *SEARCH, *SPACE).status == 0
    assert (planted.runs, told(sweep)) == ([0, 1, 2, 3, 4], before)
    assert main("train", *SEARCH, *reversed(SPACE), "hydra.sweeper.n_trials=7", "tracking=default").status == 0
    assert planted.runs == [0, 1, 2, 3, 4, 5, 6]
    assert told(sweep)[:5] == before


RANKS = """# @package _global_
hydra:
  sweeper:
    params:
      lora.lora_r: choice(2, 4)
      optim.weight_decay: 0.0,0.1
      seed: 3
"""


def test_parameters_may_stand_in_the_config_and_a_single_value_fixes_one(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    (sweep.path.parents[2] / "mine" / "experiment").mkdir(parents=True)
    (sweep.path.parents[2] / "mine" / "experiment" / "ranks.yaml").write_text(RANKS)
    result = main(
        "train",
        "--config-dir=mine",
        *SEARCH,
        "experiment=ranks",
        "lora.lora_r=8",
        "optim.weight_decay=interval(0.2,0.3)",
    )
    assert result.status == 0, result.errors
    assert {tuple(trial.params) for trial in study_of(sweep).trials} == {("optim.weight_decay",)}
    assert study_of(sweep).trials[0].distributions == {"optim.weight_decay": FloatDistribution(0.2, 0.3)}
    for status in read_statuses(sweep).values():
        assert {"seed=3", "lora.lora_r=8"} <= set(status.overrides)


def test_trials_that_share_a_job_run_it_once(main: Callable[..., Result], planted: Planted, sweep: SweepFolder) -> None:
    result = main("train", *SEARCH, "lora.lora_r=choice(2,4)", "hydra.sweeper.n_jobs=3")
    assert result.status == 0, result.errors
    assert len(planted.runs) == len(read_statuses(sweep)) == 2
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE"] * 5
    (best,) = best_of(sweep)
    assert best["params"] == {"lora.lora_r": 2}


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_an_interrupted_search_is_the_undisturbed_one(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder, num_parallel: int
) -> None:
    def interrupt(config: TrainConfig) -> None:
        if config.sweep.trial == 3 and planted.runs.count(3) == 1:
            raise KeyboardInterrupt

    parallel = f"hydra.sweeper.n_jobs={num_parallel}"
    planted.before = interrupt
    assert main("train", *SEARCH, *SPACE, parallel).status == 130
    assert told(sweep)[3][2] == "RUNNING"
    result = main("train", *SEARCH, *SPACE, parallel)
    assert result.status == 0, result.errors
    assert planted.runs == [0, 1, 2, 3, 3, 4]
    assert main("train", *SEARCH, *SPACE, parallel, "sweep.name=calm").status == 0
    assert told(sweep) == told(SweepFolder(sweep.path.parent / "calm"))


def test_a_job_that_ended_before_the_study_was_told_is_told(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("causal_lm_router.sweeps.search.Search.complete", dies)
        assert main("train", *SEARCH, *SPACE).status == 130
    assert [state for _, _, state, _ in told(sweep)] == ["RUNNING"]
    assert main("train", *SEARCH, *SPACE).status == 0
    assert planted.runs == [0, 1, 2, 3, 4]
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE"] * 5


def test_pruned_trials_are_pruned(main: Callable[..., Result], planted: Planted, sweep: SweepFolder) -> None:
    """The first trial (the start-up of the pruner here) is done; all that are worse than it at step 10 are stopped."""

    pruner = ["hydra.sweeper.pruner=median", "hydra.sweeper.pruner_args={n_startup_trials:1}"]
    result = main("train", *SEARCH, *SPACE, *pruner, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=8")
    assert result.status == 0, result.errors
    trials = study_of(sweep).trials
    states = {status.trial: status.state.value for status in read_statuses(sweep).values()}
    done: list[float] = []
    for trial in trials:
        value = trial.intermediate_values[10]
        median = sorted(done)[len(done) // 2] if len(done) % 2 else sum(sorted(done)[len(done) // 2 - 1 :][:2]) / 2
        expected = "PRUNED" if done and value < median else "COMPLETE"
        assert trial.state.name == expected
        assert states[trial.number] == ("pruned" if expected == "PRUNED" else "done")
        done += [value] if expected == "COMPLETE" else []
    assert len(done) < len(trials), "none was pruned"
    assert best_of(sweep)[0]["values"]["routing_accuracy"] == max(done)


def test_several_objectives_name_the_pareto_front(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    planted.cost = lambda config: config.optim.learning_rate
    objectives = "hydra.sweeper.objectives={routing_accuracy:maximize,mean_cost:minimize}"
    result = main("train", *SEARCH, *SPACE, objectives, "hydra.sweeper.sampler=nsgaii", "hydra.sweeper.n_trials=8")
    assert result.status == 0, result.errors
    points = {number: (values[1], -values[0]) for number, _, _, values in told(sweep) if values}
    front = [
        number
        for number, (accuracy, saved) in points.items()
        if not any(a >= accuracy and s >= saved and (a, s) != (accuracy, saved) for a, s in points.values())
    ]
    assert [trial["number"] for trial in best_of(sweep)] == front
    for trial in best_of(sweep):
        assert trial["values"]["mean_cost"] == pytest.approx(trial["params"]["optim.learning_rate"])


def test_a_failed_trial_does_not_stop_the_search_and_is_retried_when_asked(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    def fail(config: TrainConfig) -> None:
        if config.sweep.trial == 1:
            raise ValueError("planted")

    planted.before = fail
    result = main("train", *SEARCH, *SPACE)
    assert (result.status, "4 done, 1 failed of 5 jobs" in result.errors) == (1, True)
    assert "best trial" in result.output
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert main("train", *SEARCH, *SPACE).status == 1
    assert planted.runs == [0, 1, 2, 3, 4]
    result = main("train", *SEARCH, *SPACE, "sweep.retry_failed=true")
    assert result.status == 0, result.errors
    assert planted.runs == [0, 1, 2, 3, 4, 5]
    assert told(sweep)[5][1:3] == (told(sweep)[1][1], "COMPLETE")


@pytest.mark.parametrize("num_lines", [0, 1, 7])
def test_a_lost_or_cut_history_costs_a_finished_search_nothing(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder, num_lines: int
) -> None:
    pruner = ["hydra.sweeper.pruner=median", "hydra.sweeper.pruner_args={n_startup_trials:1}"]
    command = ["train", *SEARCH, *SPACE, *pruner, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=8"]
    assert main(*command).status == 0
    before = {job: status.state for job, status in read_statuses(sweep).items()}
    assert set(before.values()) == {"done", "pruned"}
    runs, trials, best = list(planted.runs), told(sweep), best_of(sweep)
    lines = sweep.jobs.read_bytes().splitlines(keepends=True)
    sweep.jobs.write_bytes(b"".join(lines[:num_lines]) + lines[num_lines][:9])
    result = main(*command)
    assert result.status == 0, result.errors
    assert (planted.runs, told(sweep), best_of(sweep)) == (runs, trials, best), "nothing ran again"
    assert {job: status.state for job, status in read_statuses(sweep).items()} == before


def test_a_trial_that_ran_out_of_memory_is_due_again_by_itself(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    def fail(config: TrainConfig) -> None:
        if config.sweep.trial == 1:
            raise MemoryError

    planted.before = fail
    assert main("train", *SEARCH, *SPACE).status == 1
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert main("train", *SEARCH, *SPACE).status == 0
    assert planted.runs == [0, 1, 2, 3, 4, 5]
    assert told(sweep)[5][1:3] == (told(sweep)[1][1], "COMPLETE")


def test_a_full_disk_stops_a_search_where_it_is(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    def fail(config: TrainConfig) -> None:
        if config.sweep.trial == 1 and planted.runs.count(1) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    planted.before = fail
    assert main("train", *SEARCH, *SPACE).status == 1
    assert planted.runs == [0, 1], "further trials would meet it too"
    assert main("train", *SEARCH, *SPACE).status == 0
    assert planted.runs == [0, 1, 1, 2, 3, 4]
    assert main("train", *SEARCH, *SPACE, "sweep.name=calm").status == 0
    assert told(sweep) == told(SweepFolder(sweep.path.parent / "calm"))


def test_a_search_stops_at_a_failure_when_asked(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    def fail(config: TrainConfig) -> None:
        if config.sweep.trial == 1 and len(planted.runs) == 2:
            raise ValueError("planted")

    planted.before = fail
    assert main("train", *SEARCH, *SPACE, "sweep.on_failure=stop").status == 1
    assert planted.runs == [0, 1]
    assert main("train", *SEARCH, *SPACE, "sweep.on_failure=stop").status == 1
    assert planted.runs == [0, 1, 2, 3, 4]


def test_trials_whose_parameters_do_not_go_together_fail_alone(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder
) -> None:
    space = ["data.validation_fraction=choice(0.2,0.7)", "data.test_fraction=choice(0.7,0.2)"]
    result = main("train", *SEARCH, *space, "hydra.sweeper.n_trials=10")
    assert result.status == 0, result.errors
    states = {tuple(params.values()): state for _, params, state, _ in told(sweep)}
    assert states.pop((0.7, 0.7)) == "FAIL"
    assert set(states.values()) == {"COMPLETE"}
    assert "data.validation_fraction + data.test_fraction" in result.output


@pytest.mark.parametrize("objectives", ["{mean_cost:minimize}", "{mean_cost:minimize,routing_accuracy:maximize}"])
def test_without_a_metric_the_trial_fails_and_says_so(
    main: Callable[..., Result], planted: Planted, sweep: SweepFolder, objectives: str
) -> None:
    result = main("train", *SEARCH, *SPACE, f"hydra.sweeper.objectives={objectives}", "hydra.sweeper.n_trials=2")
    assert result.status == 1
    assert result.output.count("objectives must be metrics of this run (accuracy_gain") == 2
    assert "got 'mean_cost'" in result.output
    assert "2 failed of 2 jobs" in result.errors or "none of its 2 trials has a result" in result.errors
    assert [state for _, _, state, _ in told(sweep)] == ["FAIL", "FAIL"]
    assert best_of(sweep) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "hydra.sweeper.params must hold at least one entry"),
        (["optim.learning_rat=interval(0.1,0.2)"], "learning_rat"),
        (["lora.lora_r=choice(2,0)"], "lora.lora_r must be an integer of at least 1, got 0"),
        ([*SPACE, "hydra.sweeper.objectives={accuracy:maximize}"], "hydra.sweeper.objectives"),
        (
            [*SPACE, "hydra.sweeper.objectives=mean_cost"],
            "hydra.sweeper.objectives must be null or a dictionary, got 'mean_cost'",
        ),
        ([*SPACE, "hydra.sweeper.sampler_args={seeed:1}"], "got 'seeed'"),
        ([*SPACE, "hydra.sweeper.sampler=grid"], "hydra.sweeper.sampler must be one of gp, nsgaii, qmc"),
        ([*SPACE, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be an integer of at least 1, got 0"),
        ([*SPACE, "hydra.sweeper.n_trial=9"], "n_trial"),
        ([*SPACE, "evaluation.final_validation=false"], "evaluation.final_validation must be true"),
        (
            [*SPACE, "hydra.sweeper.pruner=median", "evaluation.split=test"],
            "evaluation.split must be validation with a pruner, got 'test'",
        ),
        (
            [*SPACE, "hydra.sweeper.pruner=asha", "evaluation.every_n_epochs=null"],
            "evaluation.every_n_steps must be set for a pruner, got null",
        ),
        (["optim.learning_rate=tag(lg,interval(1,2))"], "tags must be log, for a range or an interval, got ['lg']"),
    ],
)
def test_wrong_settings_stop_a_search_before_it_begins(
    main: Callable[..., Result], planted: Planted, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = main("train", *SEARCH, *arguments)
    assert result.status == 1
    assert message in result.errors
    assert result.errors.startswith("error: ")
    assert len(result.errors.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.simulated.seed=5"], "fixed.data.simulated.seed=0 (here 5)"),
        (["hydra.sweeper.seed=1"], "seed=0 (here 1)"),
        (["hydra.sweeper.objectives={mean_score:maximize}"], "objectives.mean_score=None (here 'maximize')"),
        (["lora.lora_r=choice(2,4)"], "params.lora.lora_r='CategoricalDistribution(choices=(2, 4, 8))' (here"),
    ],
)
def test_another_search_of_the_name_is_refused(
    main: Callable[..., Result], planted: Planted, arguments: list[str], message: str
) -> None:
    assert main("train", *SEARCH, *SPACE, "hydra.sweeper.n_trials=1").status == 0
    result = main("train", *SEARCH, *SPACE, *arguments)
    assert result.status == 1
    assert message in result.errors
    assert "choose another sweep.name" in result.errors
    assert planted.runs == [0]


def test_preset(main: Callable[..., Result], planted: Planted, tmp_path: Path) -> None:
    result = main("train", *SMALL, "sweep=search", "hydra.sweeper.n_trials=2")
    assert result.status == 0, result.errors
    assert planted.runs == [0, 1]
    assert (tmp_path / "outputs" / "sweeps" / "search" / "best.json").is_file()


LONG = ["trainer.num_epochs=4", "trainer.checkpoint_every_n_steps=1", "trainer.batch_size=4"]
REAL = [*SEARCH, *SPACE, *LONG]


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "causal_lm_router.commands.train", *REAL, *arguments]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_trial(sweep: SweepFolder, number: int) -> None:
    """Wait until the trial's job has written a checkpoint."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        running = {event.job for event in read_events(sweep) if event.state == "running"}
        jobs = [status.job for status in read_statuses(sweep).values() if status.trial == number]
        if jobs and jobs[0] in running and list(sweep.run_dir(jobs[0]).glob("checkpoints/step_*.ckpt")):
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.mark.slow
def test_a_killed_search_of_real_runs_is_the_undisturbed_one(
    main: Callable[..., Result], sweep: SweepFolder, tmp_path: Path
) -> None:
    trials = "hydra.sweeper.n_trials=3"
    killed = start(tmp_path, trials)
    wait_for_trial(sweep, 1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE", "RUNNING"]
    result = main("train", *REAL, trials)
    assert result.status == 0, result.errors
    assert main("train", *REAL, trials, "sweep.name=calm").status == 0
    assert told(sweep) == told(SweepFolder(sweep.path.parent / "calm"))
    assert [number for number, _, _, _ in told(sweep)] == [0, 1, 2]


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_at_once(sweep: SweepFolder, tmp_path: Path) -> None:
    search = start(tmp_path, "sweep.isolated=true", "hydra.sweeper.n_trials=2")
    wait_for_trial(sweep, 1)
    (child,) = psutil.Process(search.pid).children()
    child.kill()
    assert search.wait(timeout=240) == 0
    assert [state for _, _, state, _ in told(sweep)] == ["COMPLETE"] * 2
    states = [event.state.value for event in read_events(sweep) if event.job == told_job(sweep, 1)]
    assert states == ["queued", "running", "failed", "running", "done"]


def told_job(sweep: SweepFolder, number: int) -> str:
    (job,) = [status.job for status in read_statuses(sweep).values() if status.trial == number]
    return job
