"""The list of runs that `status` shows of a folder."""

import json
from collections.abc import Callable
from pathlib import Path

from causal_lm_router.runs.job_log import JobEvent, JobState, append_event
from causal_lm_router.runs.sweep_folder import SweepFolder
from tests.conftest import Result
from tests.sweeps.test_report import write_run


def test_status_lists_runs_and_sweeps(main: Callable[..., Result], tmp_path: Path) -> None:
    data = {"split_seed": 0, "source": "jsonl", "path": "mine.jsonl"}
    write_run(tmp_path / "outputs" / "quickstart" / "first", 0.5, data=data)
    write_run(tmp_path / "outputs" / "quickstart" / "second", None)
    (tmp_path / "outputs" / "broken").mkdir()
    (tmp_path / "outputs" / "broken" / "config.yaml").write_text("[")
    sweep = SweepFolder(tmp_path / "outputs" / "sweeps" / "rank")
    sweep.make_metadata()
    append_event(sweep, JobEvent("a", JobState.queued))
    shown = main("status", "outputs")
    assert shown.status == 0, shown.errors
    for text in ("quickstart/", "done", "unfinished", "unreadable", "mine.jsonl", "0.613", "50.0%", "5.0%"):
        assert text in shown.output, text
    assert "sweep outputs/sweeps/rank: 0 of 1 jobs done" in shown.output
    assert "outputs/broken: outputs/broken/config.yaml: cannot be read" in shown.output
    listed = json.loads(main("status", "outputs", "--json").output)
    assert {run["folder"]: run["state"] for run in listed["runs"]} == {
        "outputs/quickstart/first": "done",
        "outputs/quickstart/second": "unfinished",
        "outputs/broken": "unreadable",
    }
    one = json.loads(main("status", "outputs/quickstart/first", "--json").output)
    assert [run["mean_score"] for run in one["runs"]] == [0.6125]


def test_status_of_a_folder_without_runs_is_one_line(main: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    for folder, message in (("outputs", "must hold a run"), ("output", "did you mean outputs?")):
        result = main("status", folder)
        assert (result.status, result.output, result.errors.count("\n")) == (1, "", 1)
        assert message in result.errors
