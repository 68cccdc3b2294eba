"""The search on a real journal, with plain objective functions: what a killed process leaves, and who is best."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.search import Search, open_trial, read_validation_metrics
from causal_lm_router.sweeps.search_spec import SAMPLERS, SearchSpec

PARAMS = {
    "optim.learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "lora.lora_r": CategoricalDistribution([4, 8, 16]),
    "trainer.num_epochs": IntDistribution(1, 8),
}
SPEC = SearchSpec({"routing_accuracy": "maximize"}, PARAMS, {"data": {"source": "simulated"}}, "tpe", {}, "none", {}, 7)
COSTLY = {"routing_accuracy": "maximize", "mean_cost": "minimize"}
# `run_search` in a process of its own.
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_search import PRUNED, run_search
run_search(Path(sys.argv[2]), PRUNED, num_parallel=int(sys.argv[3]), pause_s=0.03)
"""
PRUNED = replace(SPEC, pruner="median", sampler_args={"n_startup_trials": 5})


def metrics_of(trial: FrozenTrial) -> dict[str, float]:
    params = trial.params
    accuracy = 1 - abs(params["optim.learning_rate"] - 1e-3) - 0.01 * params["lora.lora_r"]
    return {"routing_accuracy": accuracy, "mean_cost": 0.1 * params["trainer.num_epochs"]}


def run_search(
    folder: Path, spec: SearchSpec = SPEC, num_trials: int = 20, num_parallel: int = 1, pause_s: float = 0.0
) -> Search:
    """Search as a sweeper does, with jobs that report at three steps; what begins and ends goes to `<folder>/log`."""
    search = Search(SweepFolder(folder), spec)
    with (folder / "log").open("a", buffering=1) as log:
        while batch := search.next_batch(num_trials, num_parallel):
            pruned = {}
            for trial in batch:
                log.write(f"begin {trial.number}\n")
                pruned[trial.number] = is_pruned(folder, trial, pause_s)
            for trial in batch:
                if pruned[trial.number]:
                    search.stop(trial.number, pruned=True)
                else:
                    search.complete(trial.number, f"job{trial.number}", metrics_of(trial))
                log.write(f"done {trial.number}\n")
    return search


def is_pruned(folder: Path, trial: FrozenTrial, pause_s: float) -> bool:
    monitor = open_trial(folder, trial.number)
    for step in (1, 2, 3):
        time.sleep(pause_s)
        if monitor.report({name: value * step for name, value in metrics_of(trial).items()}, step):
            return True
    return False


def told(search: Search) -> list[tuple[Any, ...]]:
    return [(t.number, t.params, t.state, t.values, t.intermediate_values) for t in search.trials]


def ask(search: Search) -> int:
    (trial,) = search.next_batch(len(search.trials) + 1, 1)
    return trial.number


def complete(search: Search, **metrics: float) -> int:
    number = ask(search)
    search.complete(number, f"job{number}", metrics)
    return number


@pytest.mark.parametrize("num_parallel", [1, 3])
@pytest.mark.slow
def test_killed_at_random_moments_it_is_the_undisturbed_search(tmp_path: Path, num_parallel: int) -> None:
    folder, log = tmp_path / "killed", tmp_path / "killed" / "log"
    for name in ("killed", "calm"):
        (tmp_path / name).mkdir()
    log.touch()
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder), str(num_parallel)]
    moments = random.Random(num_parallel)
    for kills in range(1, 6):
        size = log.stat().st_size
        with subprocess.Popen(command) as child:
            while child.poll() is None and log.stat().st_size == size:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.12))
            child.kill()
        assert child.returncode == -signal.SIGKILL, f"it ended before kill {kills}"
    subprocess.run(command, check=True)

    killed = Search(SweepFolder(folder), PRUNED)
    assert told(killed) == told(run_search(tmp_path / "calm", PRUNED, num_parallel=num_parallel))
    assert [trial.number for trial in killed.trials] == list(range(20))
    assert {trial.state for trial in killed.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    events = log.read_text().splitlines()
    for index, event in enumerate(events):
        if event.startswith("done"):
            assert event.replace("done", "begin") not in events[index:]
    assert sum(event.startswith("begin") for event in events) > 20, "no trial was interrupted"


@pytest.mark.parametrize("num_parallel", [1, 3])
@pytest.mark.parametrize("objectives", [SPEC.objectives, COSTLY], ids=["one", "two"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.slow
def test_every_sampler_goes_on_as_if_not_interrupted(
    tmp_path: Path, sampler: str, objectives: dict[str, str], num_parallel: int
) -> None:
    args = {"nsgaii": {"population_size": 4}, "gp": {"n_startup_trials": 4}, "tpe": {"n_startup_trials": 4}}
    spec = replace(SPEC, sampler=sampler, sampler_args=args.get(sampler, {}), objectives=objectives)
    (tmp_path / "calm").mkdir()
    calm = run_search(tmp_path / "calm", spec, 7, num_parallel)
    while batch := Search(SweepFolder(tmp_path), spec).next_batch(7, num_parallel):
        for trial in batch:
            Search(SweepFolder(tmp_path), spec).complete(trial.number, f"job{trial.number}", metrics_of(trial))
    # Only the undisturbed search has reported steps.
    assert [row[:4] for row in told(Search(SweepFolder(tmp_path), spec))] == [row[:4] for row in told(calm)]
    assert len({str(trial.params) for trial in calm.trials}) >= 5


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    ours, theirs = run_search(tmp_path / "a", num_trials=3), run_search(tmp_path / "b", replace(SPEC, seed=8), 3)
    assert all(a.params != b.params for a, b in zip(ours.trials, theirs.trials, strict=True))


def test_tpe_learns_from_the_trials_before(tmp_path: Path) -> None:
    """Rank 4 is the best of three; after the start-up trials it comes up more often than by chance."""
    search = run_search(tmp_path, num_trials=30)
    ranks = [trial.params["lora.lora_r"] for trial in search.trials[10:]]
    assert ranks.count(4) >= 10


@pytest.mark.slow
def test_a_journal_cut_anywhere_goes_on(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run_search(tmp_path / "whole", num_trials=4)
    content = SweepFolder(tmp_path / "whole").study.read_bytes()
    journal = SweepFolder(tmp_path / "cut").study
    for size in range(0, len(content), 97):
        journal.write_bytes(content[:size])
        assert told(run_search(tmp_path / "cut", num_trials=4)) == told(whole), f"cut at byte {size}"
        for line in journal.read_text().splitlines():
            json.loads(line)


@pytest.mark.slow
def test_the_lock_of_a_killed_process_keeps_nobody_out(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), SPEC)
    code = (
        "import os, sys; from pathlib import Path; from causal_lm_router.sweeps.journal import _JournalLock\n"
        "_JournalLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(SweepFolder(tmp_path).study)], check=False)
    assert killed.returncode == -signal.SIGKILL
    start = time.monotonic()
    assert ask(search) == 0
    assert time.monotonic() - start < 5


def test_more_trials_go_on_from_the_last(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    first = told(run_search(tmp_path, num_trials=4))
    more = run_search(tmp_path, num_trials=7)
    assert told(more)[:4] == first
    assert told(more) == told(run_search(tmp_path / "calm", num_trials=7))
    assert run_search(tmp_path, num_trials=2).next_batch(2, 1) == []


def test_a_batch_is_asked_for_whole_or_finished_first(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), SPEC)
    assert [trial.number for trial in search.next_batch(8, 3)] == [0, 1, 2]
    search.complete(0, "job0", {"routing_accuracy": 0.5})
    assert [trial.number for trial in search.next_batch(8, 3)] == [1, 2]
    search.stop(1, pruned=False)
    search.stop(2, pruned=False)
    assert [trial.number for trial in search.next_batch(8, 1)] == [3]
    assert [trial.number for trial in search.next_batch(8, 3)] == [3, 4, 5]
    for number in (3, 4, 5):
        search.complete(number, f"job{number}", {"routing_accuracy": 0.5})
    assert [trial.number for trial in search.next_batch(8, 3)] == [6, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objectives": {"mean_score": "maximize"}},
            "objectives.routing_accuracy='maximize' (here None), objectives.mean_score=None (here 'maximize')",
        ),
        ({"objectives": {"routing_accuracy": "minimize"}}, "objectives.routing_accuracy='maximize' (here 'minimize')"),
        ({"params": PARAMS | {"seed": IntDistribution(0, 3)}}, "params.seed=None (here 'IntDistribution(high=3"),
        (
            {"params": PARAMS | {"lora.lora_r": CategoricalDistribution([4, 8])}},
            "(here 'CategoricalDistribution(choices=(4, 8))')",
        ),
        ({"sampler": "random"}, "sampler='tpe' (here 'random')"),
        ({"sampler_args": {"n_startup_trials": 3}}, "sampler_args.n_startup_trials=None (here 3)"),
        ({"pruner": "median"}, "pruner='none' (here 'median')"),
        ({"seed": 8}, "seed=7 (here 8)"),
        ({"fixed": {"data": {"source": "jsonl"}}}, "fixed.data.source='simulated' (here 'jsonl')"),
    ],
)
def test_another_search_in_the_folder_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run_search(tmp_path, num_trials=1)
    before = SweepFolder(tmp_path).study.read_bytes()
    with pytest.raises(ValueError, match=r"choose another sweep\.name") as error:
        Search(SweepFolder(tmp_path), replace(SPEC, **changes))
    assert message in str(error.value)
    assert SweepFolder(tmp_path).study.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": {}}, "objectives must hold at least one entry"),
        (
            {"objectives": {"acuracy": "maximize"}},
            "objectives must be one of .*mean_cost.*routing_accuracy.*, got 'acuracy'",
        ),
        ({"objectives": {"oracle/mean_score": "maximize"}}, "objectives must be one of .*, got 'oracle/mean_score'"),
        ({"objectives": {"mean_cost": "min"}}, "objectives.mean_cost must be one of maximize, minimize, got 'min'"),
        ({"params": {}}, "params must hold at least one entry"),
        ({"sampler": "annealing"}, "sampler must be one of gp, nsgaii, qmc, random, tpe, got 'annealing'"),
        ({"sampler_args": {"seed": 1}}, "sampler_args must be one of .*n_startup_trials.*, got 'seed'"),
        ({"sampler": "nsgaii", "sampler_args": {"population_size": 1}}, "`population_size` must be greater"),
        ({"pruner": "hyper"}, "pruner must be one of asha, median, none, got 'hyper'"),
        (
            {"pruner": "median", "pruner_args": {"warmup": 1}},
            "pruner_args must be one of .*n_warmup_steps.*, got 'warmup'",
        ),
        ({"pruner": "asha", "pruner_args": {"reduction_factor": 1}}, "reduction_factor >= 2"),
        ({"objectives": COSTLY, "pruner": "median"}, "pruner must be none with several objectives, got 'median'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        replace(SPEC, **changes)


def test_median_pruner_stops_the_planted_bad_trials(tmp_path: Path) -> None:
    """Five good trials must be done before (Optuna's default); then 0.1 lies below the median of 0.8 at step 10."""
    search = Search(SweepFolder(tmp_path), replace(SPEC, pruner="median", sampler="random"))
    for number in range(12):
        assert ask(search) == number
        value = 0.1 if number in (2, 6, 9) else 0.8
        for step in (10, 20):
            if open_trial(tmp_path, number).report({"routing_accuracy": value}, step):
                search.stop(number, pruned=True)
                break
        else:
            search.complete(number, f"job{number}", {"routing_accuracy": value})
    pruned = {trial.number: trial for trial in search.trials if trial.state is TrialState.PRUNED}
    assert set(pruned) == {6, 9}
    assert pruned[6].intermediate_values == {10: 0.1}
    assert search.best()[0]["number"] == 0


def test_asha_prunes_what_is_not_in_the_best_half_of_its_rung(tmp_path: Path) -> None:
    pruner_args = {"min_resource": 10, "reduction_factor": 2}
    search = Search(SweepFolder(tmp_path), replace(SPEC, pruner="asha", pruner_args=pruner_args))
    decisions = []
    for value in (0.5, 0.4, 0.6, 0.3):
        number = ask(search)
        # Nothing is decided before the first rung.
        assert not open_trial(tmp_path, number).report({"routing_accuracy": value}, 9)
        decisions.append(open_trial(tmp_path, number).report({"routing_accuracy": value}, 10))
        # The second asking is that of a resumed job: in Optuna the trial would now stand in the next rung.
        assert open_trial(tmp_path, number).report({"routing_accuracy": value}, 10) == decisions[-1]
        search.stop(number, pruned=True)
    # The rung holds 1, 2, 3, 4 values, of which the best 1, 1, 1, 2 go on.
    assert decisions == [False, True, False, True]


def test_a_resumed_job_reports_again_and_the_first_value_stands(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), replace(SPEC, pruner="median", pruner_args={"n_startup_trials": 1}))
    number = ask(search)
    assert not open_trial(tmp_path, number).report({"routing_accuracy": 0.8}, 10)
    search.complete(number, "job0", {"routing_accuracy": 0.8})

    number = ask(search)
    first = open_trial(tmp_path, number)
    assert not first.report({"routing_accuracy": 0.9}, 10)
    assert not first.report({"routing_accuracy": 0.9}, 20)
    resumed = open_trial(tmp_path, number)
    assert not resumed.report({"routing_accuracy": 0.1}, 10)
    assert not resumed.report({"routing_accuracy": 0.1}, 20)
    assert search.trials[number].intermediate_values == {10: 0.9, 20: 0.9}
    search.stop(number, pruned=False)

    number = ask(search)
    assert open_trial(tmp_path, number).report({"routing_accuracy": 0.1}, 10)
    assert not open_trial(tmp_path, number).report({"routing_accuracy": 0.9}, 5)
    assert open_trial(tmp_path, number).report({"routing_accuracy": 0.9}, 20)
    search.stop(number, pruned=True)
    assert not open_trial(tmp_path, number).report({"routing_accuracy": 0.1}, 30), "a job run again by hand"


@pytest.mark.slow
def test_another_process_reports(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), replace(SPEC, pruner="median", pruner_args={"n_startup_trials": 1}))
    number = ask(search)
    open_trial(tmp_path, number).report({"routing_accuracy": 0.8}, 1)
    search.complete(number, "job0", {"routing_accuracy": 0.8})
    number = ask(search)
    code = (
        "import sys; from pathlib import Path; from causal_lm_router.sweeps.search import open_trial\n"
        "print(open_trial(Path(sys.argv[1]), 1).report({'routing_accuracy': 0.2, 'mean_score': 0.9}, 1))"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert printed.stdout == "True\n"
    search.stop(number, pruned=True)
    assert search.trials[number].intermediate_values == {1: 0.2}
    assert search.trials[number].state is TrialState.PRUNED


def test_monitor_needs_a_search_and_the_objective(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"study\.journal: no search there"):
        open_trial(tmp_path, 0)
    ask(Search(SweepFolder(tmp_path), SPEC))
    with pytest.raises(
        ValueError, match=r"objectives must be metrics of this run \(mean_score\), got 'routing_accuracy'"
    ):
        open_trial(tmp_path, 0).report({"mean_score": 0.5}, 1)
    with pytest.raises(KeyError, match="trial_number=1"):
        open_trial(tmp_path, 1)


def test_several_objectives_have_a_pareto_front(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), replace(SPEC, objectives=COSTLY))
    planted = [(0.9, 3.0), (0.8, 1.0), (0.7, 2.0), (0.9, 4.0), (0.5, 0.5)]
    for accuracy, cost in planted:
        assert not open_trial(tmp_path, ask(search)).report({"routing_accuracy": 0.0}, 1)
        complete(search, routing_accuracy=accuracy, mean_cost=cost)
    assert [(trial["number"], trial["values"]) for trial in search.best()] == [
        (0, {"mean_cost": 3.0, "routing_accuracy": 0.9}),
        (1, {"mean_cost": 1.0, "routing_accuracy": 0.8}),
        (4, {"mean_cost": 0.5, "routing_accuracy": 0.5}),
    ]


def test_best_names_the_first_of_equal_trials_and_of_those_that_share_a_job(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), SPEC)
    assert search.best() == []
    complete(search, routing_accuracy=0.2)
    for job in ("shared", "shared", "other"):
        search.complete(ask(search), job, {"routing_accuracy": 0.7})
    (best,) = search.best()
    assert best == {
        "number": 1,
        "values": {"routing_accuracy": 0.7},
        "params": search.trials[1].params,
        "job": "shared",
    }


def test_a_router_that_names_no_llm_is_never_the_best(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), replace(SPEC, objectives=COSTLY))
    silent = {"routing_accuracy": 0.0, "mean_cost": 0.0, "parse_failure_rate": 1.0}
    search.complete(ask(search), "job0", silent)
    assert [trial["job"] for trial in search.best()] == ["job0"], "where all are silent they are what there is"
    named = {"routing_accuracy": 0.5, "mean_cost": 2.0, "parse_failure_rate": 0.1}
    search.complete(ask(search), "job1", named)
    search.complete(ask(search), "job2", named | {"mean_cost": 3.0})
    assert [(trial["number"], trial["job"]) for trial in search.best()] == [(1, "job1")]


def test_a_missing_metric_leaves_the_trial_untold(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), replace(SPEC, objectives=COSTLY))
    number = ask(search)
    with pytest.raises(
        ValueError, match=r"objectives must be metrics of this run \(routing_accuracy\), got 'mean_cost'"
    ):
        search.complete(number, "job0", {"routing_accuracy": 0.5})
    assert search.trials[number].state is TrialState.RUNNING


def test_failed_trials_are_tried_again_beyond_the_number_of_trials(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), SPEC)
    complete(search, routing_accuracy=0.5)
    search.stop(ask(search), pruned=False)
    assert search.next_batch(2, 1) == []
    search.retry_failed(by_own_fault=False)
    assert search.next_batch(2, 1) == []
    search.retry_failed(by_own_fault=True)
    search.retry_failed(by_own_fault=True)
    (again,) = search.next_batch(2, 1)
    assert (again.number, again.params) == (2, search.trials[1].params)
    search.complete(2, "job1", {"routing_accuracy": 0.9})
    assert search.next_batch(2, 1) == []
    assert [trial.number for trial in search.next_batch(3, 1)] == [3]


def test_trials_that_failed_for_a_reason_outside_are_tried_again_unasked(tmp_path: Path) -> None:
    search = Search(SweepFolder(tmp_path), SPEC)
    search.stop(ask(search), pruned=False, from_outside=True)
    search.retry_failed(by_own_fault=False)
    (again,) = search.next_batch(1, 1)
    assert (again.number, again.params) == (1, search.trials[0].params)


def test_metrics_are_those_of_the_validation_report(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"validation/report\.json: missing; a search needs evaluation\.final_validation"
    ):
        read_validation_metrics(tmp_path)
    outcomes = []
    for number in range(4):
        example = RoutingExample(str(number), "text", "task", {"cheap": 1.0, "strong": 0.0})
        route = ParsedRoute("cheap" if number else "strong")
        outcomes.append(
            RouteOutcome(
                example=example,
                label="cheap",
                generation=Generation("text", "stop"),
                route=route,
                called=route.candidate,
            )
        )
    report = evaluate_outcomes(outcomes, ("cheap", "strong"), "strong", queries_per_second=None).report
    (tmp_path / "validation").mkdir()
    plain = {"split": "validation", "seed": 0, **report.to_dict()}
    (tmp_path / "validation" / "report.json").write_text(json.dumps(plain))
    metrics = read_validation_metrics(tmp_path)
    assert metrics["routing_accuracy"] == 0.75
    assert "mean_cost" not in metrics
