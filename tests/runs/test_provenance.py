"""What report.json and config.yaml say about how a run was made."""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_lm_router import __version__
from causal_lm_router.config import EvaluateConfig
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.data.prepared import prepare_data
from causal_lm_router.runs.evaluate_run import evaluate_run
from causal_lm_router.runs.provenance import describe_origin, find_commit, write_config
from tests.conftest import tiny_data

SHA = "0123456789abcdef0123456789abcdef01234567"


def test_the_origin_has_versions_processor_data_and_command_without_secrets(
    tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "+inference.engine_args.hf_token=hf_abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setattr(sys, "argv", ["causal-lm-router train", "data=simulated", "name=a b", key])
    origin = describe_origin(tiny_config().data, tiny_data())
    assert json.loads(json.dumps(origin)) == origin
    assert origin["version"] == __version__
    assert origin["packages"]["torch"] == importlib.metadata.version("torch")
    assert origin["processor"].endswith("cores")
    assert origin["data"] == {"source": "simulated", "content": tiny_data().content_hash}
    assert origin["command"].startswith("causal-lm-router train data=simulated 'name=a b' ")
    assert "hf_abc" not in str(origin)


def test_the_hash_of_the_data_follows_the_content_alone(make_data_config: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"query": f"query {index}", "scores": {"a": 1.0, "b": index / 40}} for index in range(40)]

    def content(**fields: Any) -> str:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return prepare_data(make_data_config("jsonl", path=str(path), **fields)).content_hash

    first = content()
    assert content() == content(near_duplicate_threshold=0.5) == first
    assert content(split_seed=1) != first
    rows[3]["scores"] = {"a": 0.9, "b": 3 / 40}
    assert content() != first


def test_the_comments_of_a_config_are_no_settings(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(path, "name: x\n", tiny_config().data, tiny_data())
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    said = {key: json.loads(value) for key, _, value in (line[2:].partition(": ") for line in comments)}
    assert {"version", "commit", "packages", "processor", "data", "command"} <= said.keys()
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"name": "x"}


def test_the_commit_is_read_from_every_form_of_a_checkout(tmp_path: Path) -> None:
    assert find_commit(tmp_path) is None
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(f"{SHA}\n")
    assert find_commit(tmp_path) == SHA
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert find_commit(tmp_path) is None, "a branch without a commit"
    (git / "packed-refs").write_text(f"# pack-refs\n{'1' * 40} refs/heads/other-main\n{SHA} refs/heads/main\n")
    assert find_commit(tmp_path) == SHA
    (git / "refs" / "heads" / "main").write_text(f"{'2' * 40}\n")
    assert find_commit(tmp_path) == "2" * 40
    # A further worktree: a file names its folder, which names the common one.
    tree, own = tmp_path / "tree", git / "worktrees" / "tree"
    tree.mkdir()
    own.mkdir(parents=True)
    (tree / ".git").write_text(f"gitdir: {own}\n")
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text("../..\n")
    assert find_commit(tree) == "2" * 40


def test_a_run_and_its_evaluation_say_how_they_were_made(
    smoke_run: Path, tiny_config: Callable[..., Any], tmp_path: Path, client: None
) -> None:
    output = tmp_path / "evaluation"
    settings = tiny_config(f"run_dir={smoke_run}", "decoding=scored", "tracking.wandb.mode=offline")
    evaluate_run(EvaluateConfig(**vars(settings), output_dir=str(output), latency_calls=None))
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (smoke_run, output)]
    assert reports[0]["provenance"]["data"] == reports[1]["provenance"]["data"]
    for folder in (smoke_run, output):
        assert (folder / "config.yaml").read_text(encoding="utf-8").startswith(f'# version: "{__version__}"\n')
    # The evaluation's settings, in the form of a run's.
    assert load_run_config(output)["decoding"]["method"] == "scored"
    assert load_run_config(smoke_run)["decoding"]["method"] == "free"
    assert load_run_config(output)["lora"] == load_run_config(smoke_run)["lora"]
    # Its W&B run has the outcomes with their queries.
    (table,) = output.glob("wandb/offline-run-*/files/media/table/test/outcomes_*.table.json")
    columns, rows = json.loads(table.read_text(encoding="utf-8")).values()
    lines = (output / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row[columns.index("query")] for row in rows] == [json.loads(line)["query"] for line in lines]
    assert not any(smoke_run.glob("wandb/*"))
