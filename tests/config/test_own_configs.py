"""Experiments and choices of the user's own, in a folder outside of the checkout."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.plain import dump_config
from tests.conftest import CHECKOUT

pytestmark = pytest.mark.slow

MINE = {
    "data/mine.yaml": "defaults: [jsonl, _self_]\npath: mine.jsonl\n",
    "experiment/mine.yaml": (
        "# @package _global_\ndefaults:\n  - quickstart\n  - override /data: mine\n"
        "name: mine\noptim:\n  learning_rate: 0.5\n"
    ),
    "baseline/near.yaml": "defaults: [knn_vote, _self_]\nk: 7\n",
}
Shown = Callable[..., dict]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """Function that returns the config that a command shows, run in an empty folder with the user's files beside."""
    for name, text in MINE.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "run").mkdir()
    config = dump_config(compose_config(["data=simulated", "debug=smoke", "run_dir=elsewhere"]))
    (tmp_path / "run" / "config.yaml").write_text(config, encoding="utf-8")

    def show(command: str, *arguments: str) -> dict:
        line = [sys.executable, "-m", f"causal_lm_router.commands.{command}", "--cfg", "job", *arguments]
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        loaded = yaml.safe_load(done.stdout)
        assert isinstance(loaded, dict)
        return loaded

    return show


@pytest.mark.parametrize("place", [("--config-dir", "own"), ("hydra.searchpath=[own]",)], ids=["flag", "searchpath"])
def test_own_files_are_found(place: tuple[str, ...], shown: Shown) -> None:
    trained = shown("train", *place, "experiment=mine")
    assert (trained["name"], trained["data"]["source"], trained["data"]["path"]) == ("mine", "jsonl", "mine.jsonl")
    assert trained["optim"]["learning_rate"] == 0.5
    fitted = shown("baseline", *place, "baseline=near", "data=mine")
    assert fitted["baseline"] == {"method": "knn_vote", "embedding": "minilm", "k": 7}
    evaluated = shown("evaluate", *place, "run_dir=run", "data=mine")
    assert (evaluated["data"]["path"], evaluated["base_model"]["name"]) == ("mine.jsonl", "tiny-llama")
