"""`compare`: numbers by hand over made-up run folders, what it writes, and what it refuses."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_lm_router.evaluation.comparison.compare import Comparison, compare_runs
from causal_lm_router.evaluation.comparison.comparison_folder import write_comparison
from causal_lm_router.evaluation.evaluation_folder import outcome_rows
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample
from tests.conftest import Result

NAMES = ["a", "b"]
COSTS = {"a": 0.001, "b": 0.003}
# On queries 0 to 4 only a is right, on 5 to 9 only b; "-" does not parse.
FIRST = "aaaabaaaba"
RUN = "aaaaabbba-"


def write_run(
    folder: Path, routes: str, *, split: str = "test", costs: bool = True, prefix: str = "q", **data: Any
) -> Path:
    """A folder with report.json and outcomes.jsonl; candidates' predictions are their scores, halved."""
    names, best_single, other = data.get("names", NAMES), data.get("best_single", "a"), data.get("other", 0.0)
    outcomes = []
    for index, route in enumerate(routes):
        scores = dict.fromkeys(names, other) | {names[0 if index < 5 else 1]: 1.0}
        example = RoutingExample(f"{prefix}{index}", "text", "task", scores, COSTS if costs else None)
        parsed = ParsedRoute(None, ParseFailure.empty) if route == "-" else ParsedRoute(route)
        generation = Generation("one\u2028line", "stop")
        predicted = {name: score / 2 for name, score in scores.items()}
        outcomes.append(
            RouteOutcome(
                example=example,
                label="a",
                generation=generation,
                route=parsed,
                called=parsed.candidate,
                predicted=predicted,
            )
        )
    folder.mkdir(parents=True)
    report = evaluate_outcomes(outcomes, names, best_single, None).report.to_dict()
    (folder / "report.json").write_text(json.dumps({"split": split, **report}))
    # In any order: what pairs queries is their id.
    rows = outcome_rows(outcomes)[:: -1 if "-" in routes else 1]
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "first" / "run", FIRST), write_run(tmp_path / "second" / "run", RUN)]


def compare(folders: Sequence[Path]) -> Comparison:
    return compare_runs(folders)


def test_differences_by_hand(folders: list[Path]) -> None:
    (pair,) = compare(folders).pairs
    # Only the run is right on queries 4 to 7, only the first one on 8.
    assert (pair.only_run_right, pair.only_first_right) == (4, 1)
    assert pair.accuracy.mcnemar_p == pytest.approx(2 * (1 + 5) / 2**5)
    assert pair.score.mcnemar_p is None
    assert pair.accuracy.estimate.value == pair.score.estimate.value == pytest.approx(0.3)
    # Both are wrong on query 9, but one names a candidate.
    assert pair.routes_differ.value == 0.6
    # 15 USD per 10,000 queries against 14.
    assert pair.cost is not None and pair.cost.value == pytest.approx(0.0001)
    # Differences: four of 1, one of -1, five of 0.
    error = (10 * (5 / 10 - 0.3**2) / 9) ** 0.5 / 10**0.5
    assert pair.score.estimate.standard_error == pytest.approx(error)
    assert pair.score.estimate.low is not None and pair.score.estimate.high is not None
    assert -0.3 < pair.score.estimate.low < 0 < 0.6 < pair.score.estimate.high < 0.8
    assert 0.05 < pair.score.p < 0.5
    assert pair.score.adjusted_p == pair.score.p, "a single pair needs no correction"
    assert pair.score.verdict == "no significant difference"


def test_holm_corrects_each_metric_over_the_pairs(folders: list[Path], tmp_path: Path) -> None:
    right = write_run(tmp_path / "third", "aaaaabbbbb")
    pairs = compare([*folders, right]).pairs
    low, high = sorted(pair.score.p for pair in pairs)
    assert sorted(pair.score.adjusted_p for pair in pairs) == pytest.approx([2 * low, max(2 * low, high)])
    # Right alone 4 : 1 and 5 : 0; the larger of McNemar's p and the interval's is corrected.
    assert [pair.accuracy.mcnemar_p for pair in pairs] == pytest.approx([0.375, 2 / 2**5])
    assert [pair.accuracy.adjusted_p for pair in pairs] == pytest.approx([0.375, 2 * 2 / 2**5])


def test_equal_runs_do_not_differ(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, FIRST) for name in ("x", "y")]
    (pair,) = compare(folders).pairs
    assert (pair.score.estimate.value, pair.score.estimate.low, pair.score.estimate.high) == (0, None, None)
    assert (pair.score.p, pair.accuracy.mcnemar_p, pair.routes_differ.value) == (1, 1, 0)


def test_names_are_the_ends_of_paths_that_differ(folders: list[Path], tmp_path: Path) -> None:
    assert [run.name for run in compare(folders).runs] == ["first/run", "second/run"]
    other = write_run(tmp_path / "third", RUN)
    assert [run.name for run in compare([folders[0], other]).runs] == ["run", "third"]


def test_labels_are_names_and_the_settings_that_differ(tmp_path: Path) -> None:
    settings = {"run_dir": "there", "seed": 0, "lora": {"lora_r": 4, "lora_alpha": 8}, "tracking": {"csv": True}}
    folders = []
    for index, (name, rank, seed) in enumerate((("quick", 4, 0), ("quick", 16, 0), ("other", 4, 1))):
        folder = write_run(tmp_path / f"2026-01-3{index}", FIRST)
        plain = settings | {"name": name, "run_dir": str(folder), "seed": seed, "lora": {"lora_r": rank}}
        (folder / "config.yaml").write_text(yaml.safe_dump(plain))
        folders.append(folder)
    labels = [run.name for run in compare(folders).runs]
    assert labels == ["quick lora.lora_r=4 seed=0", "quick lora.lora_r=16 seed=0", "other lora.lora_r=4 seed=1"]
    assert [run.name for run in compare(folders[:2]).runs] == ["quick lora.lora_r=4", "quick lora.lora_r=16"]
    # The same settings twice, and another decoding of one run, whose config stands two folders above.
    again = write_run(tmp_path / "again", RUN)
    (again / "config.yaml").write_bytes((folders[0] / "config.yaml").read_bytes())
    assert [run.name for run in compare([folders[0], again]).runs] == ["quick (2026-01-30)", "quick (again)"]
    decoded = write_run(folders[0] / "decodings" / "trie", RUN)
    assert [run.name for run in compare([folders[0], decoded]).runs] == ["quick (2026-01-30)", "quick (trie)"]


def test_files_hold_every_metric(folders: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    paths = write_comparison(compare(folders), output)
    assert [path.name for path in paths] == ["compare.csv", "compare.json", "compare.md", "frontier.png"]
    assert {path.name for path in output.iterdir()} == {path.name for path in paths}
    with paths[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["first/run", "second/run", "random", "best single", "oracle"]
    assert [row["kind"] for row in rows] == ["first", "run", "reference", "reference", "reference"]
    first, run, _, single, oracle = rows
    assert (first["mean_score"], run["mean_score"], single["mean_score"], oracle["mean_score"]) == (
        "0.5",
        "0.8",
        "0.5",
        "1.0",
    )
    assert (float(run["mean_cost"]), run["parse_failure_rate"]) == (pytest.approx(0.0015), "0.1")
    assert (run["only_run_right"], run["only_first_right"], run["mcnemar_p"]) == ("4", "1", "0.375")
    assert first["mcnemar_p"] == single["mcnemar_p"] == ""
    assert run["folder"] == "../../second/run"
    plain = json.loads(paths[1].read_text())
    assert {key: plain[key] for key in ("split", "queries", "first")} == {
        "split": "test",
        "queries": 10,
        "first": "first/run",
    }
    assert plain["rows"][1]["routes_differ"] == 0.6
    page = paths[2].read_text()
    assert "| second/run | 0.800 [" in page and "| 4 : 1 |" in page
    write_comparison(compare(folders), output)  # over an earlier one


def test_without_costs_there_is_no_frontier(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run{routes[0]}", routes, costs=False) for routes in ("ab", "bb")]
    comparison = compare(folders)
    assert comparison.pairs[0].cost is None
    assert [path.name for path in write_comparison(comparison, tmp_path / "out")][-1] == "compare.md"


@pytest.fixture
def command(main: Callable[..., Result]) -> Callable[..., Result]:
    """Function that runs `causal-lm-router compare ...` and returns its status, output and errors."""
    return lambda *arguments: main("compare", *map(str, arguments))


def test_command_prints_tables_and_files(folders: list[Path], tmp_path: Path, command: Callable[..., Result]) -> None:
    other = write_run(tmp_path / "third", "aaaaabbbbb", best_single="b")
    status, output, errors = command(*folders, other, "--output", tmp_path / "out")
    assert (status, errors) == (0, "")
    words = " ".join(output.split())
    for text in (
        "3 runs on the same 10 queries of the test split",
        "second/run against first/run",
        f"{tmp_path.name}/third against first/run",
        "right alone 4 : 1",
        "McNemar p 0.375",
        "routes differ 60.0%",
        "best single: a",
        "best single: b",
        "Holm p",
    ):
        assert text in words, text
    assert max(map(len, output.splitlines()[:20])) <= 80
    assert str(tmp_path / "out" / "frontier.png") in output


def test_command_refuses_in_one_line(folders: list[Path], tmp_path: Path, command: Callable[..., Result]) -> None:
    first, second = folders
    missing = write_run(tmp_path / "missing", RUN)
    (missing / "outcomes.jsonl").unlink()
    (tmp_path / "empty").mkdir()
    broken = write_run(tmp_path / "broken", RUN)
    (broken / "outcomes.jsonl").write_text("{}\n")
    unscored = write_run(tmp_path / "unscored", RUN)
    text = (unscored / "outcomes.jsonl").read_text()
    (unscored / "outcomes.jsonl").write_text(text.replace('"scores"', '"older"'))
    for arguments, message in (
        ((first,), "folders must be at least 2, got 1"),
        ((first, second, first.parent / ".." / "first" / "run"), "is given twice"),
        ((first, tmp_path / "nowhere"), "no such folder"),
        ((first, tmp_path / "empty"), "holds no report.json"),
        ((first, missing), "holds no outcomes.jsonl"),
        ((first, broken), "outcomes.jsonl: cannot be read"),
        ((first, unscored), "cannot be compared: its rows lack the scores"),
        ((first, write_run(tmp_path / "split", RUN, split="validation")), "evaluates the split 'validation'"),
        (
            (first, write_run(tmp_path / "pool", RUN.replace("b", "a"), names=["a", "c"], costs=False)),
            "other candidates",
        ),
        ((first, write_run(tmp_path / "fewer", RUN[:8])), "8 and 10 queries, 8 of them in both"),
        ((first, write_run(tmp_path / "ids", RUN, prefix="p")), "10 and 10 queries, 0 of them in both"),
        ((first, write_run(tmp_path / "data", RUN, other=0.5)), "candidates have other scores"),
        ((first, second, "--output", first), "--output must not be the folder of a run"),
    ):
        status, output, errors = command(*arguments)
        assert (status, output) == (1, ""), arguments
        assert errors.startswith("error: ") and message in errors, errors
        assert len(errors.splitlines()) == 1
    assert not (first / "compare.json").exists()
