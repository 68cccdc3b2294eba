"""Configs in run folders: those that an earlier version wrote still load."""

import shutil
from pathlib import Path

import pytest

from causal_lm_router.config import BaselineRunConfig, MlpConfig, RouterDCDataConfig, SvmConfig, TrainConfig
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import load_run_config

OLD_RUNS = Path(__file__).parent / "old_runs"
"""config.yaml files of version 0.1 before each source and each baseline had its own keys."""


def load(name: str, tmp_path: Path) -> TrainConfig:
    shutil.copy(OLD_RUNS / name, tmp_path / "config.yaml")
    return resolve_config({**load_run_config(tmp_path), "run_dir": "x"}, TrainConfig)


def test_a_router_of_before_loads(tmp_path: Path) -> None:
    config = load("router.yaml", tmp_path)
    assert isinstance(config.data, RouterDCDataConfig)
    assert (config.data.path, config.data.assumed_output_tokens) == ("path/to/llmrouter", 200)
    assert "columns" not in load_run_config(tmp_path)["data"]
    assert (config.name, config.lora.num_layers) == ("llmrouter_scored_cpu", 10)


def test_a_baseline_of_before_loads(tmp_path: Path) -> None:
    config = load("baseline.yaml", tmp_path)
    assert isinstance(config, BaselineRunConfig)
    assert config.baseline == SvmConfig(method=config.baseline.method, embedding="minilm", svm_c=10.0)


def test_one_hidden_layer_of_before_is_a_list_of_one(tmp_path: Path) -> None:
    text = (OLD_RUNS / "baseline.yaml").read_text(encoding="utf-8").replace("method: svm", "method: mlp")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    config = resolve_config({**load_run_config(tmp_path), "run_dir": "x"}, TrainConfig)
    assert isinstance(config, BaselineRunConfig) and isinstance(config.baseline, MlpConfig)
    assert (config.baseline.mlp_hidden_units, config.baseline.mlp_batch_size) == ([256], 200)


@pytest.mark.parametrize("unknown", ["  data_path: x\n", "  columns_: {}\n"])
def test_keys_of_no_source_are_refused(unknown: str, tmp_path: Path) -> None:
    text = (OLD_RUNS / "router.yaml").read_text(encoding="utf-8").replace("data:\n", f"data:\n{unknown}")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml: this is not the config of a run: .*key: data\.\w+"):
        load_run_config(tmp_path)
