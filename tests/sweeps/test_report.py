"""The report over run folders: what it reads, chooses and writes, and that every number leads back to a run."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from rich.console import Console

from causal_lm_router.evaluation.evaluation_folder import outcome_rows
from causal_lm_router.evaluation.intervals import rate_estimate
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.files.checksums import find_damage
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample
from causal_lm_router.runs.job_log import FailureReason, JobEvent, JobState, append_event
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.report.figures import draw_configurations
from causal_lm_router.sweeps.report.findings import Findings, find, say_cautions, say_selection, say_verdict
from causal_lm_router.sweeps.report.parameter_figures import draw_parameter
from causal_lm_router.sweeps.report.report_folder import SweepReport, write_report
from causal_lm_router.sweeps.report.shortfalls import say_shortfalls
from causal_lm_router.sweeps.report.tables import latex_text
from causal_lm_router.sweeps.report.terminal import print_summary
from tests.conftest import Result

NAMES = ["small_1", "large|50%", "other"]
NUM_QUERIES = 40
CONFIG: dict[str, Any] = {
    "name": "smoke",
    "seed": 0,
    "run_dir": "x",
    "lora": {"lora_r": 16, "target_modules": ["q_proj"]},
    "optim": {"learning_rate": 2.0e-05},
    "data": {"split_seed": 0, "test_fold": 0},
    "trainer": {"progress_bar": False},
    "tracking": {"tensorboard": True},
}
FILES = {
    "report.md",
    "report.html",
    "configurations.csv",
    "comparisons.csv",
    "runs.csv",
    "configurations.tex",
    "figures",
    "checksums.txt",
}


def write_evaluation(
    folder: Path, split: str, share_right: float, prefix: str = "q", costs: bool = True, num_failed: int = 2
) -> None:
    """The first share of queries is routed to the best candidate, the last ones do not parse, the rest is wrong."""
    outcomes = []
    for index in range(NUM_QUERIES):
        scores = dict.fromkeys(NAMES, 0.25) | {NAMES[index % 3]: 1.0}
        priced = dict(zip(NAMES, (0.001, 0.002, 0.003), strict=True)) if costs else None
        example = RoutingExample(f"{prefix}-{split}-{index:03}", "text", f"task{index % 2}", scores, priced)
        right, wrong = NAMES[index % 3], NAMES[(index + 1) % 3]
        route = ParsedRoute(right if index < round(share_right * NUM_QUERIES) else wrong)
        if index >= NUM_QUERIES - num_failed:
            route = ParsedRoute(None, ParseFailure.unknown)
        outcomes.append(
            RouteOutcome(
                example=example,
                label=right,
                generation=Generation("a\u2028b", "stop"),
                route=route,
                called=route.candidate,
            )
        )
    rows = outcome_rows(outcomes)
    rows = [row | {"scores": dict(one.example.scores)} for row, one in zip(rows, outcomes, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    report = evaluate_outcomes(outcomes, NAMES, NAMES[1], 3.0).report.to_dict()
    (folder / "report.json").write_text(json.dumps({"split": split, "name": "smoke", **report}))


def write_run(
    folder: Path, share_right: float | None, *, validation: float | None = None, costs: bool = True, **settings: Any
) -> Path:
    """A run folder; `share_right` None is an unfinished one, `lora__lora_r=4` sets a key of the config."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in settings.items():
        *groups, last = key.split("__")
        inside = config
        for group in groups:
            inside = inside[group]
        inside[last] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"run_dir": str(folder)}))
    if share_right is not None:
        write_evaluation(folder, "test", share_right, costs=costs)
        steps = "".join(f"{step},0,train/loss,{2 / step}\n{step},,validation/mean_score,0.5\n" for step in (1, 2, 3))
        (folder / "metrics.csv").write_text(f"step,epoch,name,value\n{steps}4,0,train/lo")
    if validation is not None:
        write_evaluation(folder / "validation", "validation", validation)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two ranks x two seeds, of which 16 is better on validation and 4 on test; one more job failed, one is queued."""
    folder = tmp_path / "rank_50%"
    for rank, test, validation in ((16, 0.5, 0.75), (4, 0.65, 0.5)):
        for seed in (0, 1):
            job = folder / f"job-{rank}-{seed}"
            write_run(job, test + 0.05 * seed, validation=validation, lora__lora_r=rank, seed=seed)
    write_run(folder / "job-64-0", None, lora__lora_r=64)
    SweepFolder(folder).make_metadata()
    for job in ("job-16-0", "job-16-1", "job-4-0", "job-4-1", "job-64-0", "job-64-1"):
        append_event(SweepFolder(folder), JobEvent(job, JobState.queued, overrides=[]))
    message = "CUDA out of memory\n<b>tried</b> to allocate | 2 GiB"
    append_event(SweepFolder(folder), JobEvent("job-64-0", JobState.failed, reason=FailureReason.oom, message=message))
    with (folder / "jobs.jsonl").open("a") as file:
        file.write('{"job": "job-64-1", "sta')
    return folder


def report(*folders: Path, output: Path | None = None, **options: Any) -> SweepReport:
    return write_report(folders, output or folders[0] / "report", **options)


def find_in(*folders: Path, baseline: str | None = None, metric: str = "mean_score") -> Findings:
    """What the report would say, without writing it."""
    return find(folders, baseline, metric)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_everything_is_written(sweep: Path) -> None:
    written = report(sweep)
    assert written.folder == sweep / "report"
    assert {path.name for path in written.folder.iterdir()} == FILES
    compared, damaged = find_damage(written.folder)
    assert (compared > len(FILES), damaged) == (True, []), "the figures have checksums too"
    names = ("swept_01_lora.lora_r", "frontier", "confusion", "learning_curves")
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    for name in names:
        for ending, start in starts.items():
            assert (written.folder / "figures" / f"{name}{ending}").read_bytes().startswith(start)
    assert len(list((written.folder / "figures").iterdir())) == 2 * len(names)
    assert list(sweep.parent.glob(".*tmp")) == list(sweep.glob(".*tmp")) == []


@pytest.mark.slow
def test_table_holds_means_over_seeds_and_baselines(sweep: Path) -> None:
    rows = report(sweep).rows
    assert [row["who"] for row in rows] == [
        "lora.lora_r=4",
        "lora.lora_r=16",
        "random",
        "best single (large|50%)",
        "oracle",
    ]
    first = rows[0]
    # 26 and 28 of 40 right; 12 and 10 score 0.25; 2 fail.
    assert (first["seeds"], first["queries"], first["lora.lora_r"]) == (2, 40, 4)
    assert first["routing_accuracy"] == pytest.approx(27 / 40)
    assert first["mean_score"] == pytest.approx((27 + 11 * 0.25) / 40)
    assert first["parse_failure_rate"] == pytest.approx(2 / 40)
    assert first["regret"] == pytest.approx((11 * 0.75 + 2) / 40)
    assert first["validation_routing_accuracy"] == pytest.approx(0.5)
    assert first["routing_accuracy_low"] < first["routing_accuracy"] < first["routing_accuracy_high"]
    single = json.loads((sweep / "job-16-0" / "report.json").read_text())["references"]["best_single"]
    assert rows[3]["routing_accuracy_low"] == single["routing_accuracy"]["low"]
    assert rows[3]["parse_failure_rate"] is None


@pytest.mark.slow
def test_numbers_are_traceable_to_run_folders(sweep: Path) -> None:
    report(sweep)
    runs = {row["run"]: row for row in read_csv(sweep / "report" / "runs.csv")}
    assert set(runs) == {f"job-{rank}-{seed}" for rank in (4, 16, 64) for seed in (0, 1)}
    for row in read_csv(sweep / "report" / "configurations.csv")[:2]:
        folders = row["runs"].split(";")
        assert len(folders) == int(row["seeds"])
        for metric in ("routing_accuracy", "mean_score", "parse_failure_rate", "regret", "mean_cost"):
            own = [json.loads((sweep / name / "report.json").read_text())[metric]["value"] for name in folders]
            assert float(row[metric]) == pytest.approx(np.mean(own))
            assert [float(runs[name][metric]) for name in folders] == pytest.approx(own)
    compared = read_csv(sweep / "report" / "comparisons.csv")
    assert compared[0]["runs"] == "job-16-0;job-16-1"
    assert compared[0]["baseline_runs"] == "job-4-0;job-4-1"


@pytest.mark.slow
def test_the_best_is_chosen_on_validation_never_on_test(sweep: Path) -> None:
    written = report(sweep)
    selection = written.findings.selection
    assert selection and selection.chosen
    assert selection.chosen.configuration.name == "lora.lora_r=16"
    assert selection.best_on_test.configuration.name == "lora.lora_r=4"
    text = (written.folder / "report.md").read_text()
    assert "Chosen on validation (mean score, mean over seeds 0.800)" in text
    assert "Not a result: the best on test is 1: lora.lora_r=4" in text
    assert [row["chosen"] for row in written.rows] == [False, True, False, False, False]


def test_of_equal_ones_the_first_is_chosen(sweep: Path) -> None:
    for rank in (4, 16):
        for seed in (0, 1):
            write_evaluation(sweep / f"job-{rank}-{seed}" / "validation", "validation", 0.5)
    selection = find_in(sweep, metric="routing_accuracy").selection
    assert selection and selection.chosen and selection.chosen.configuration.number == 1


def shortfalls_of(folder: Path) -> list[str]:
    findings = find_in(folder)
    return say_shortfalls(findings.shortfalls, findings.selection)


def test_routers_that_name_no_llm_are_not_chosen_and_that_is_said_first(sweep: Path) -> None:
    for rank in (4, 16):
        for seed in (0, 1):
            folder = sweep / f"job-{rank}-{seed}"
            write_evaluation(folder, "test", 0.0, num_failed=NUM_QUERIES)
            write_evaluation(folder / "validation", "validation", 0.0, num_failed=NUM_QUERIES)
    findings = find_in(sweep)
    assert findings.selection and findings.selection.chosen is None
    assert say_selection(findings) == [], "nothing is called chosen, or best on test"
    first, second, third = shortfalls_of(sweep)
    assert first.startswith("No configuration is chosen: each of the 2 names no LLM on more than half")
    assert "names no LLM on 100.0% of the queries" in second
    assert "is worse than calling a random LLM: mean score 0.000, 0.500 at random" in third
    # One that names LLMs is chosen, however it scores.
    write_evaluation(sweep / "job-4-0" / "validation", "validation", 0.1)
    write_evaluation(sweep / "job-4-1" / "validation", "validation", 0.1)
    chosen = find_in(sweep).selection
    assert chosen and chosen.chosen and chosen.chosen.configuration.name == "lora.lora_r=4"


def test_a_best_configuration_below_random_or_not_above_best_single_is_said_first(tmp_path: Path) -> None:
    write_run(tmp_path / "worse" / "a", 0.1, validation=0.1)
    (sentence,) = shortfalls_of(tmp_path / "worse")
    assert sentence.startswith("The configuration chosen on validation (1) is worse than calling a random LLM")
    # Best single is right on 13 of 40 queries: as often as this one.
    write_run(tmp_path / "equal" / "a", 13 / 40, validation=0.5)
    (sentence,) = shortfalls_of(tmp_path / "equal")
    assert "is not above the best single LLM" in sentence or "worse than calling a random LLM" in sentence
    write_run(tmp_path / "little" / "a", 0.5, validation=0.5)
    (sentence,) = shortfalls_of(tmp_path / "little")
    assert "is not shown to be above the best single LLM" in sentence and "no significant gain" in sentence
    write_run(tmp_path / "better" / "a", 0.95, validation=0.9)
    assert shortfalls_of(tmp_path / "better") == []


def test_a_front_has_no_silent_router(tmp_path: Path) -> None:
    for rank, share, failed in ((4, 0.6, 2), (8, 0.0, NUM_QUERIES), (16, 0.1, 30)):
        folder = write_run(tmp_path / "s" / str(rank), share, lora__lora_r=rank)
        write_evaluation(folder, "test", share, num_failed=failed)
    findings = find_in(tmp_path / "s")
    assert [one.is_silent for one in findings.summaries] == [False, True, True]
    figure = draw_configurations(findings.summaries, findings.references)
    assert figure is not None
    (front,) = [line for line in figure.axes[0].lines if line.get_label() == "Pareto front"]
    silent = {1000 * one.estimates["mean_cost"].value for one in findings.summaries[1:]}
    assert not silent & set(map(float, front.get_xdata()))


def drawn(folder: Path, key: str) -> Figure:
    findings = find_in(folder)
    figure = draw_parameter(key, findings.summaries, findings.references)
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def test_options_without_an_order_are_dots_the_best_on_top(tmp_path: Path) -> None:
    for method, share in (("svm", 0.3), ("elo", 0.8), ("mlp", 0.5)):
        write_baseline(tmp_path / "s" / method, method, share, 0.5)
    figure = drawn(tmp_path / "s", "baseline.method")
    accuracy, failures = figure.axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["elo", "mlp", "svm"]
    (dots,) = [container[0] for container in accuracy.containers]
    assert dots.get_linestyle() == "None"
    places = dict(zip(map(float, dots.get_ydata()), map(float, dots.get_xdata()), strict=True))
    assert places == pytest.approx({0.0: 0.8, 1.0: 0.5, 2.0: 0.3})
    assert accuracy.get_ylim()[0] > accuracy.get_ylim()[1], "the first row is the uppermost"
    assert failures.get_xlabel() == "parse-failure rate"


def test_numbers_that_lie_close_have_labels_that_do_not_touch(tmp_path: Path) -> None:
    rates = (1e-4, 1.1e-4, 1.2e-4, 5e-4)
    for number, rate in enumerate(rates):
        write_run(tmp_path / "s" / str(number), 0.2 * number, optim__learning_rate=rate)
    figure = drawn(tmp_path / "s", "optim.learning_rate")
    labels = figure.axes[1].get_xticklabels()
    assert [label.get_text().strip() for label in labels] == ["0.0001", "0.00011", "0.00012", "0.0005"]
    ends: dict[int, float] = {}
    for label in labels:
        # A label's own line is the last one of its text.
        box, line = label.get_window_extent(), label.get_text().count("\n")
        assert box.x0 > ends.get(line, float("-inf"))
        ends[line] = box.x1


def test_every_run_that_is_left_out_is_named_on_the_terminal(sweep: Path) -> None:
    (sweep / "job-4-0" / "outcomes.jsonl").write_text('{"query_id": "q", "tor')
    console = Console(file=io.StringIO(), width=100)
    print_summary(find_in(sweep), sweep / "report", console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "left out: job-64-0 (failed: oom: CUDA out of memory <b>tried</b> to allocate | 2 GiB)\n" in printed
    assert "left out: job-64-1 (queued)\n" in printed
    assert re.search(r"left out: job-4-0 \(unreadable: .*outcomes\.jsonl: cannot be read: JSONDecodeError", printed)


@pytest.mark.slow
def test_without_validation_nothing_is_chosen(sweep: Path) -> None:
    for folder in sweep.glob("job-*/validation"):
        shutil.rmtree(folder)
    written = report(sweep)
    assert written.findings.selection and written.findings.selection.chosen is None
    assert "No configuration is chosen" in (written.folder / "report.md").read_text()
    assert not (written.folder / "figures" / "confusion.png").exists()


@pytest.mark.slow
def test_unfinished_and_failed_jobs_are_listed_with_their_reasons(sweep: Path) -> None:
    assert report(sweep).findings.progress == "6 runs: 4 done, 1 failed, 1 queued"
    rows = {row["run"]: row for row in read_csv(sweep / "report" / "runs.csv")}
    assert rows["job-64-0"]["detail"] == "oom: CUDA out of memory\n<b>tried</b> to allocate | 2 GiB"
    assert (rows["job-64-1"]["state"], rows["job-64-1"]["configuration"]) == ("queued", "")
    page = (sweep / "report" / "report.html").read_text()
    assert "&lt;b&gt;tried&lt;/b&gt;" in page and "<b>tried" not in page
    (line,) = [line for line in (sweep / "report" / "report.md").read_text().splitlines() if "oom: CUDA" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 9, "a message must not add cells"


def test_without_finished_runs_the_report_is_their_list(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "a", None)
    written = report(tmp_path / "sweep")
    assert written.rows == []
    text = (written.folder / "report.md").read_text()
    assert "1 runs: 1 unfinished" in text and "No run has finished yet." in text
    assert read_csv(written.folder / "configurations.csv") == []


def test_unreadable_runs_are_left_out_and_said(sweep: Path) -> None:
    (sweep / "job-4-0" / "outcomes.jsonl").write_text('{"query_id": "q", "tor')
    (sweep / "job-4-1" / "report.json").write_text("{}")
    findings = find_in(sweep)
    assert findings.progress == "6 runs: 2 done, 2 unreadable, 1 failed, 1 queued"
    details = {run.folder.name: run.detail for run in findings.runs if run.state == "unreadable"}
    assert "job-4-0" in details["job-4-0"] and "JSONDecodeError" in details["job-4-0"]
    assert "KeyError" in details["job-4-1"] or "missing" in details["job-4-1"]


def test_outcomes_that_do_not_fit_their_report_are_unreadable(sweep: Path) -> None:
    path = sweep / "job-4-0" / "outcomes.jsonl"
    path.write_text("\n".join(path.read_text().split("\n")[:-2]))
    (run,) = [run for run in find_in(sweep).runs if run.state == "unreadable"]
    assert run.detail == f"{path}: must hold a row for each of 40 queries, got 39 rows"


def test_a_configuration_is_the_config_without_seed_and_what_changes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "s" / "a", 0.5, seed=0, tracking={"tensorboard": True}, data__split_seed=0)
    write_run(tmp_path / "s" / "b", 0.5, seed=1, trainer__progress_bar=True, tracking={"tensorboard": False})
    findings = find_in(tmp_path / "s")
    assert [(one.name, len(one.runs)) for one in findings.configurations] == [("the only configuration", 2)]


def write_baseline(folder: Path, method: str, share_right: float, validation: float, **settings: Any) -> Path:
    """A run folder of a baseline: with the settings of one, which trained routers lack."""
    return write_run(folder, share_right, validation=validation, baseline={"method": method, **settings})


def test_trained_routers_and_baselines_differ_by_the_method_and_by_what_was_swept(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "s" / f"trained-{seed}", 0.6, seed=seed)
    for method in ("svm", "elo"):
        write_baseline(tmp_path / "s" / method, method, 0.5, 0.5, num_shots=5, embedding="minilm")
    assert [(one.name, len(one.runs)) for one in find_in(tmp_path / "s").configurations] == [
        ("baseline.method=(absent)", 2),
        ("baseline.method=elo", 1),
        ("baseline.method=svm", 1),
    ]
    write_baseline(tmp_path / "s" / "elo-50", "elo", 0.5, 0.5, num_shots=50, embedding="minilm")
    assert [one.name for one in find_in(tmp_path / "s").configurations] == [
        "baseline.method=(absent) baseline.num_shots=(absent)",
        "baseline.method=elo baseline.num_shots=5",
        "baseline.method=elo baseline.num_shots=50",
        "baseline.method=svm baseline.num_shots=5",
    ]


def test_one_more_entry_of_a_dictionary_makes_another_configuration(tmp_path: Path) -> None:
    for index, renamed in enumerate(({}, {"small_1": "tiny"})):
        write_run(tmp_path / "s" / str(index), 0.5, data__renamed_candidates=renamed)
    assert len(find_in(tmp_path / "s").configurations) == 2


def test_an_oracle_is_in_the_tables_but_never_chosen(sweep: Path) -> None:
    for method in ("oracle", "cheapest_oracle"):
        write_baseline(sweep / method, method, 1.0, 1.0)
    findings = find_in(sweep)
    selection = findings.selection
    assert selection and selection.chosen and selection.best_on_test
    assert selection.chosen.configuration.name == "lora.lora_r=16 baseline.method=(absent)"
    assert selection.best_on_test.configuration.name == "lora.lora_r=4 baseline.method=(absent)"
    assert [one.configuration.is_oracle for one in findings.summaries] == [False, False, True, True]
    assert any("neither compared nor chosen" in caution for caution in say_cautions(findings))
    assert [one.score is None for one in findings.comparisons] == [False, True, True], "no claim is made of an oracle"
    assert "oracle" in findings.comparisons[1].note
    assert "3" not in say_verdict(findings).partition(":")[2]


def test_an_oracle_is_no_baseline_unless_asked_for(tmp_path: Path) -> None:
    write_baseline(tmp_path / "s" / "a", "oracle", 1.0, 1.0)
    write_baseline(tmp_path / "s" / "b", "svm", 0.5, 0.5)
    assert find_in(tmp_path / "s").baseline == "baseline.method=svm"
    assert find_in(tmp_path / "s", baseline="baseline.method=oracle").baseline == "baseline.method=oracle"


@pytest.mark.slow
def test_of_oracles_alone_none_is_chosen(tmp_path: Path) -> None:
    write_baseline(tmp_path / "s" / "oracle", "oracle", 1.0, 1.0)
    written = report(tmp_path / "s")
    assert "No configuration is chosen: all are oracles" in (written.folder / "report.md").read_text()


@pytest.mark.slow
def test_a_split_seed_that_follows_the_seed_makes_replicates_on_their_own_queries(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = write_run(tmp_path / "s" / str(seed), 0.5, seed=seed, data__split_seed=seed)
        write_evaluation(folder, "test", 0.5, prefix=f"split{seed}")
    written = report(tmp_path / "s")
    assert len(written.findings.configurations) == 1
    assert written.rows[0]["queries"] == 80
    assert "Not all runs were evaluated on the same queries" in (written.folder / "report.md").read_text()


def test_folds_of_a_cross_validation_are_one_sample(tmp_path: Path) -> None:
    shares = {0.0002: 0.9, 0.0005: 0.5}
    for rate, share in shares.items():
        for fold in range(4):
            folder = tmp_path / "s" / f"{rate}-{fold}"
            write_run(folder, 0.5, data__test_fold=fold, optim__learning_rate=rate)
            # The folds are unequally hard: alone that is no reason to doubt the mean over all of them.
            write_evaluation(folder, "test", share - 0.1 * fold, prefix=f"fold{fold}")
    findings = find_in(tmp_path / "s")
    assert [one.name for one in findings.configurations] == [f"optim.learning_rate={rate}" for rate in shares]
    assert [one.num_seeds for one in findings.configurations] == [1, 1]
    assert not any(run.state == "repeated" for run in findings.runs)
    summary = findings.summaries[0]
    assert summary.num_queries == 4 * NUM_QUERIES
    # As wide as the interval of one run over 160 queries, of which 30 are right in each fold on average.
    accuracy = summary.estimates["routing_accuracy"]
    assert accuracy.low is not None and accuracy.high is not None
    expected = rate_estimate(round(accuracy.value * 160), 160)
    assert (accuracy.low, accuracy.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    (comparison,) = findings.comparisons
    assert len(comparison.pairs) == 4 and comparison.num_queries == 160
    assert all(other and one.replicate == other.replicate for one, other in comparison.pairs)
    assert not any("same queries" in caution for caution in say_cautions(findings))


def test_runs_on_other_queries_are_not_paired(sweep: Path) -> None:
    for seed in (0, 1):
        write_evaluation(sweep / f"job-4-{seed}", "test", 0.9, prefix="other")
    findings = find_in(sweep)
    (one,) = findings.comparisons
    assert one.accuracy is None and one.score is None
    assert one.note == "not compared: asks other queries than the baseline, or routes among another pool"
    assert len([baseline for baseline in findings.references if baseline.name == "random"]) == 2


def test_the_same_configuration_and_seed_counts_once(sweep: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(sweep / "job-4-0", again)
    findings = find_in(sweep, again, sweep / "job-16-0")
    assert findings.progress == "7 runs: 4 done, 1 failed, 1 queued, 1 repeated"
    (run,) = [run for run in findings.runs if run.state == "repeated"]
    assert run.folder == again and run.detail.endswith("job-4-0")


@pytest.mark.slow
def test_unknown_costs_are_unknown(tmp_path: Path) -> None:
    for rank in (4, 8):
        write_run(tmp_path / "s" / f"{rank}", 0.5, costs=False, lora__lora_r=rank)
    written = report(tmp_path / "s")
    assert [row["mean_cost"] for row in written.rows] == [None] * 5
    assert not (written.folder / "figures" / "frontier.png").exists()


@pytest.mark.parametrize(
    "text", ["lora.lora_r=16", "lora.lora_r=16,optim.learning_rate=5e-4", "optim.learning_rate=0.0005 lora.lora_r=16.0"]
)
def test_baseline_is_named_by_its_settings(text: str, tmp_path: Path) -> None:
    for rank, rate in ((4, 2e-5), (16, 5e-4)):
        write_run(tmp_path / "s" / f"{rank}", 0.5, lora__lora_r=rank, optim__learning_rate=rate)
    findings = find_in(tmp_path / "s", baseline=text)
    assert findings.baseline == "lora.lora_r=16 optim.learning_rate=0.0005"
    assert [one.configuration.number for one in findings.comparisons] == [1]


def test_best_single_as_baseline(sweep: Path) -> None:
    findings = find_in(sweep, baseline="best_single")
    assert findings.baseline == "best single"
    one = findings.comparisons[0]
    # Right on 26 and on 28 queries, best single on 13 of 40.
    assert one.accuracy and one.accuracy.estimate.value == pytest.approx(27 / 40 - 13 / 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"baseline": "lora.lora_r=5"},
            "baseline must be best_single or fit one of the configurations, got 'lora.lora_r=5', which fits 0: ",
        ),
        ({"baseline": "rank"}, "got 'rank', which fits 0: "),
        ({"metric": "regret"}, "metric must be mean_score or routing_accuracy, got 'regret'"),
    ],
)
@pytest.mark.slow
def test_wrong_options_leave_an_earlier_report_as_it_was(options: dict[str, str], message: str, sweep: Path) -> None:
    report(sweep)
    before = {path: path.read_bytes() for path in (sweep / "report").rglob("*.*")}
    with pytest.raises(ValueError, match=re.escape(message)):
        report(sweep, **options)
    assert {path: path.read_bytes() for path in (sweep / "report").rglob("*.*")} == before


@pytest.mark.slow
def test_a_failure_while_writing_leaves_an_earlier_report_as_it_was(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(sweep)
    marker = sweep / "report" / "report.html"
    before = marker.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("causal_lm_router.sweeps.report.report_folder.save_figure", fail)
    with pytest.raises(OSError, match="No space"):
        report(sweep)
    assert marker.read_text() == before
    assert list(sweep.glob(".*tmp")) == []


@pytest.mark.slow
def test_a_newer_report_takes_the_place_of_an_earlier_one(sweep: Path) -> None:
    report(sweep)
    (sweep / "report" / "figures" / "stale.png").write_text("old")
    write_run(sweep / "job-64-1", 0.9, lora__lora_r=64, seed=1)
    assert report(sweep).findings.progress == "6 runs: 5 done, 1 failed"
    assert not (sweep / "report" / "figures" / "stale.png").exists()
    assert [path.name for path in sweep.glob(".*") if "report" in path.name] == []


def test_a_folder_that_is_no_report_is_not_replaced(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("text")
    with pytest.raises(FileExistsError, match="--output must be a new or empty folder or a report"):
        report(sweep, output=tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "text"


@pytest.mark.slow
def test_equal_runs_give_equal_files(sweep: Path, tmp_path: Path) -> None:
    one, other = report(sweep, output=tmp_path / "one").folder, report(sweep, output=tmp_path / "other").folder
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert [path for path in files if (one / path).read_bytes() != (other / path).read_bytes()] == []


@pytest.mark.slow
def test_latex_fits_a_page_is_escaped_and_marks_the_best(sweep: Path) -> None:
    text = (report(sweep).folder / "configurations.tex").read_text()
    for part in (
        r"\toprule",
        r"\bottomrule",
        r"\label{tab:Sweep-",
        r"{adjustbox}{max width=\linewidth,max totalheight=",
    ):
        assert part in text, part
    assert r"lora\_r & seeds" in text and r"best single (large|50\%)" in text
    body = text.split("\n", 1)[1]
    assert re.search(r"(?<!\\)[%_#]", body) is None
    rows = body[body.index(r"\midrule") : body.index(r"\bottomrule")].strip().splitlines()[1:]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {8}
    # A column for each, numbers right; references stand in the column of the first setting.
    assert r"\begin{tabular}{rlrrrrrrr}" in text
    # Best of a column: one of the two configurations, never a reference.
    bold = [row.count(r"\textbf") for row in rows]
    assert sum(bold) >= 5 and not any(bold[2:])


def test_latex_escapes_what_are_commands() -> None:
    assert latex_text(r"a_b\c~50%") == r"a\_b\textbackslash{}c\textasciitilde{}50\%"


@pytest.mark.slow
def test_long_texts_and_formulas_as_swept_values(tmp_path: Path) -> None:
    templates = ["Query: {query}\n\nBest LLM:", "$x_1$ <i>|</i> " + 10 * "long ", "$x_1$ <i>|</i> " + 10 * "lone "]
    for index, template in enumerate(templates):
        write_run(tmp_path / "s" / str(index), 0.5, name=template)
    written = report(tmp_path / "s")
    names = [one.name for one in written.findings.configurations]
    assert len(set(names)) == 3 and not any("\n" in name for name in names)
    assert "<i>|" not in (written.folder / "report.html").read_text()
    page = (written.folder / "report.md").read_text()
    assert r"\$x_1\$ \<i>\|\</i>" in page
    assert re.search(r"(?<!\\)[$<]", page) is None


# The command


@pytest.fixture
def command(main: Callable[..., Result]) -> Callable[..., Result]:
    """Function that runs `causal-lm-router report ...` and returns its status, output and errors."""
    return lambda *arguments: main("report", *map(str, arguments))


@pytest.mark.slow
def test_command_prints_summary_and_path(sweep: Path, command: Callable[..., Result]) -> None:
    status, output, errors = command(sweep)
    assert (status, errors) == (0, "")
    assert "lora_r=16" in output and "Chosen on validation" in output
    assert f"report: {sweep / 'report' / 'report.html'}" in output
    status, output, errors = command(sweep, "--json")
    plain = json.loads(output)
    assert (status, errors, plain["progress"]) == (0, "", "6 runs: 4 done, 1 failed, 1 queued")
    assert [row["who"] for row in plain["configurations"]][:2] == ["lora.lora_r=4", "lora.lora_r=16"]
    assert len(plain["comparisons"]) == 1 and len(plain["runs"]) == 6


def test_command_says_bad_input_in_one_line(sweep: Path, tmp_path: Path, command: Callable[..., Result]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((tmp_path / "nowhere",), "no such folder"),
        ((tmp_path / "rank_50",), f"no such folder; did you mean {sweep}?"),
        ((tmp_path / "empty",), "must hold a run, a folder with config.yaml, got none"),
        ((sweep / "job-4-0" / "validation",), "rank_50%/job-4-0"),
        ((sweep, sweep / "job-4-0"), "--output must be given unless FOLDER is one folder of runs"),
        ((sweep / "job-4-0",), "--output must be given unless FOLDER is one folder of runs; its sweep is "),
    ):
        status, output, errors = command(*arguments)
        assert (status, output) == (1, "")
        assert errors.startswith("error: ") and message in errors
        assert len(errors.splitlines()) == 1
    assert not (sweep / "report").exists()


@pytest.mark.slow
def test_command_takes_run_folders(sweep: Path, tmp_path: Path, command: Callable[..., Result]) -> None:
    arguments = (sweep / "job-4-0", sweep / "job-16-0", "--output", tmp_path / "out" / "report")
    assert command(*arguments)[0] == 0
    rows = read_csv(tmp_path / "out" / "report" / "runs.csv")
    assert [row["run"] for row in rows] == ["../rank_50%/job-4-0", "../rank_50%/job-16-0"]


def test_any_folder_of_runs_is_read(sweep: Path, tmp_path: Path) -> None:
    single = write_run(tmp_path / "quickstart" / "2026-01-31_12-00-00", 0.5, validation=0.5, lora__lora_r=2)
    findings = find_in(tmp_path)
    assert findings.progress == "7 runs: 5 done, 1 failed, 1 queued"
    assert [one.texts["lora.lora_r"] for one in findings.configurations] == ["2", "4", "16"]
    # What lies inside of a run is part of it.
    shutil.copytree(single, single / "evaluations" / "again")
    assert len(find_in(tmp_path).runs) == 7


def test_a_report_says_what_its_runs_were_made_of_and_by(sweep: Path) -> None:
    origin = {"version": "0.1.0", "commit": "ab" * 20, "data": {"content": "c0ffee"}, "command": "clr train -m a=1,2"}
    for number, job in enumerate(sorted(sweep.glob("job-*/report.json"))):
        plain = json.loads(job.read_text())
        sizes = {"num_train": 1200, "num_validation": 40, "num_test": 40, "base_model": "tiny"}
        time = f"2026-01-31T12:0{number}:00+00:00"
        job.write_text(json.dumps(plain | sizes | {"provenance": origin | {"time": time}}))
    said = dict(find_in(sweep).origins)
    assert said["queries"] == "1,200 to train on, 40 validation, 40 test; 3 LLMs to choose from"
    assert (said["base model"], said["command"]) == ("tiny", "clr train -m a=1,2")
    assert said["time"] == "2026-01-31 12:00:00 UTC to 2026-01-31 12:03:00 UTC"
    assert said["version"] == "0.1.0, commit abababababab"
    assert "content c0ffee" in said["data"]
    append_event(SweepFolder(sweep), JobEvent("", JobState.started, message="clr train -m a=1,2,3"))
    assert dict(find_in(sweep).origins)["command"] == "clr train -m a=1,2,3"


# The page in a browser


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[Path], str]:
    """Function that opens a page in headless Chromium and returns its DOM; skips where Chromium is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")

    def dump(page: Path) -> str:
        quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
        line = [chromium, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
        line += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout

    return dump


@pytest.mark.slow
def test_page_needs_no_other_file_and_no_network(sweep: Path) -> None:
    page = (report(sweep).folder / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    embedded = [source for source in sources if source.startswith("data:")]
    assert len(embedded) == 5, "four figures and the icon"
    assert set(sources) - set(embedded) == {"runs.csv", *(f"../job-{r}-{s}/" for r in (4, 16, 64) for s in (0, 1))}
    assert "http" not in page


def test_page_opens_in_a_browser_and_its_tables_sort(sweep: Path, browse: Callable[[Path], str]) -> None:
    page = report(sweep).folder / "report.html"
    # Listens for every resource the page loads, sorts by rank, downwards, and writes what it saw into the title.
    probe = """<script>
      addEventListener("load", () => {
        const heading = [...document.querySelectorAll("#configurations th")].find(th => th.innerText === "lora.lora_r");
        heading.click(); heading.click();
        const rows = [...document.querySelectorAll("#configurations tbody tr")].map(row => row.cells[1].innerText);
        const loaded = performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 30));
        const sizes = [...document.images].map(image => image.naturalWidth > 300);
        document.title = JSON.stringify({rows, loaded, sizes, wide: document.documentElement.scrollWidth > innerWidth});
      });
    </script></body>"""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", probe))
    dom = browse(probed)
    seen = json.loads(re.search(r"<title>(.*?)</title>", dom)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert [text for text in seen["rows"] if text.isdigit()] == ["16", "4"]
    assert all(name.startswith("data:") for name in seen["loaded"])
    assert seen["sizes"] == [True] * 4
    assert seen["wide"] is False
    assert "Chosen on validation" in dom and "Differences from the baseline" in dom
